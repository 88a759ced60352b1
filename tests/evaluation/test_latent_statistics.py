import json

import pytest
import torch

from dcvideogen.evaluation.latent_statistics import LatentStatistics

LATENTS = torch.randn(1, 3, 7, 4, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.5, 2.0, 1e-4]).view(
    1, 3, 1, 1, 1
) + torch.tensor([1000.0, -1, 0]).view(1, 3, 1, 1, 1)


def test_pieces_and_clips_add_up_to_the_statistics_of_the_whole():
    whole, one, other = LatentStatistics(), LatentStatistics(), LatentStatistics()
    whole.update(LATENTS)
    for piece in LATENTS[:, :, :5].split(2, dim=2):
        one.update(piece)
    other.update(LATENTS[:, :, 5:])
    one.add(LatentStatistics.from_json(json.loads(json.dumps(other.as_json()))))
    one.add(LatentStatistics())
    flat = LATENTS[0].flatten(1).double()
    for statistics in (whole, one):
        report = statistics.report([0.0], [1.0])
        assert report["positions"] == 140
        assert report["mean"] == pytest.approx(flat.mean(1).tolist())
        assert report["std"] == pytest.approx(flat.std(1, correction=0).tolist(), rel=1e-6)
        assert report["overall_std"] == pytest.approx(float(flat.std(correction=0)), rel=1e-9)
        assert report["dead_channels"] == [2]


def test_the_scaling_factor_is_that_of_the_raw_latents():
    statistics = LatentStatistics()
    mean, std = torch.tensor([2.0, -3.0, 0.5]), torch.tensor([4.0, 0.5, 3.0])
    raw = torch.randn(1, 3, 6, 5, 5, generator=torch.Generator().manual_seed(1)) * 2.5
    statistics.update((raw - mean.view(1, 3, 1, 1, 1)) / std.view(1, 3, 1, 1, 1))
    report = statistics.report(mean.tolist(), std.tolist())
    assert report["scaling_factor"] == pytest.approx(1 / float(raw.double().std(correction=0)), rel=1e-5)
    assert report["raw_std"] == pytest.approx(raw[0].flatten(1).std(1, correction=0).tolist(), rel=1e-5)
    one_number = statistics.report([0.0], [2.0])
    assert one_number["raw_std"] == pytest.approx([2 * value for value in report["std"]])


def test_without_latents_there_are_no_statistics():
    assert LatentStatistics().report([0.0], [1.0]) is None
