import numpy as np
import pytest
import torch
from pictures import waves

from dcvideogen.evaluation.dct_baseline import DctBaseline
from dcvideogen.evaluation.subjects import DctSubject, ModelSubject, stated_scaling, weights_fingerprint
from dcvideogen.video import frames_to_video, video_to_frames


@pytest.mark.parametrize("mode", ["chunk_causal", "causal", "non_causal"])
def test_a_model_streams_what_it_makes_of_the_whole_clip_and_shows_all_latents(make_tiny, mode):
    model = make_tiny(temporal_mode=mode)
    frames, seen = waves(21, 40, 70), []
    with torch.inference_mode():
        video = frames_to_video(frames)
        latents = model.encode(video)
        expected = video_to_frames(model.decode(latents, num_frames=21, height=40, width=70))
        rebuilt = list(ModelSubject(model, "tiny").stream(iter(frames), seen.append))
    difference = np.abs(np.stack(rebuilt).astype(int) - expected)
    assert difference.max() <= 1  # where rounding is on an edge
    assert difference.mean() < 1e-3
    assert (torch.cat(seen, dim=2) - latents).abs().max() < 1e-4


def test_no_more_than_a_chunk_is_read_before_frames_come_back(tiny):
    read = []

    def source():
        for frame in waves(30, 32, 32):
            read.append(frame)
            yield frame

    with torch.inference_mode():
        next(ModelSubject(tiny, "tiny").stream(source(), lambda _: None))
    assert len(read) <= 2 * tiny.geometry.chunk_frames


def test_rows_per_step_changes_nothing_but_how_it_is_run(tiny):
    frames = waves(8, 64, 32)
    with torch.inference_mode():
        whole, by_rows = (
            np.stack(list(ModelSubject(tiny, "tiny", rows_per_step=rows).stream(frames, lambda _: None))).astype(int)
            for rows in (None, 16)
        )
    assert np.abs(whole - by_rows).max() <= 1


def test_traits_tell_what_a_model_is(make_tiny):
    traits = ModelSubject(make_tiny(latents_std=(2.0,)), "tiny").traits
    assert (traits.kind, traits.spatial_ratio, traits.temporal_ratio, traits.chunk_frames) == ("model", 32, 4, 8)
    assert (traits.compression_ratio, traits.latent_channels, traits.stated) == (768, 16, "factor 0.5000")
    assert ModelSubject(make_tiny(temporal_mode="causal"), "tiny").traits.chunk_frames is None
    assert traits.fingerprint != ModelSubject(make_tiny(latent_channels=8), "tiny").traits.fingerprint


def test_the_fingerprint_changes_with_one_weight_and_not_otherwise(tiny):
    before = weights_fingerprint(tiny)
    assert weights_fingerprint(tiny) == before
    with torch.no_grad():
        next(tiny.decoder.parameters()).view(-1)[0] += 1e-3
    assert weights_fingerprint(tiny) != before


def test_the_dct_is_a_subject():
    frames = waves(5, 40, 40)
    rebuilt = list(DctSubject().stream(frames, lambda _: None))
    assert np.array_equal(np.stack(rebuilt), DctBaseline().reconstruct(frames))
    assert DctSubject().traits.compression_ratio == 96


def test_a_scaling_is_told_in_words():
    assert stated_scaling([2.0], [0.0]) == "factor 0.5000"
    assert stated_scaling([1.0], [0.25]) == "factor 1.0000, mean 0.2500"
    assert stated_scaling([1.0] * 16, [0.0] * 16) == "mean and std of each of 16 channels"
