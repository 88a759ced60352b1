import pytest
import torch
from PIL import Image

from dcvideogen.evaluation.reconstruction import ReconstructionMetrics
from dcvideogen.training.validation import validate
from dcvideogen.video import probe, video_to_frames


def test_held_out_clips_are_measured_as_reconstruct_does_and_drawn(tiny, random_video, tmp_path):
    held_out = {"beach/day": random_video(20, 32, 48), "cat": random_video(8, 32, 32)}
    numbers = validate(tiny, held_out, tmp_path)
    metrics = ReconstructionMetrics(8, 4)
    with torch.no_grad():
        reconstruction = tiny(held_out["beach/day"])
    for pair in zip(video_to_frames(held_out["beach/day"]), video_to_frames(reconstruction), strict=True):
        metrics.update(*pair)
    report = metrics.report()
    assert numbers["psnr/beach/day"] == report["psnr_db"]["mean"]
    assert numbers["ssim/beach/day"] == report["ssim"]["mean"]
    assert numbers["chunk_edge_ratio/beach/day"] == report["chunk_edges"]["ratio"]
    assert numbers["psnr"] == pytest.approx((numbers["psnr/beach/day"] + numbers["psnr/cat"]) / 2)
    assert "chunk_edge_ratio/cat" not in numbers  # one chunk: no edge
    assert sorted(p.name for p in tmp_path.iterdir()) == ["beach_day.mp4", "beach_day.png", "cat.mp4", "cat.png"]
    info = probe(tmp_path / "beach_day.mp4")
    assert (info.height, info.width, info.num_frames) == (32, 96, 20)
    with Image.open(tmp_path / "cat.png") as strip:
        assert strip.width == 4 * 32


def test_latent_figures_are_those_of_all_held_out_latents(tiny, random_video, tmp_path):
    clips = {"a": random_video(8, 32, 64), "b": random_video(8, 64, 64, seed=2)}
    numbers = validate(tiny, clips, tmp_path)
    with torch.no_grad():
        latents = torch.cat([tiny.encode(clip)[0].flatten(1) for clip in clips.values()], dim=1).double()
    std = latents.std(dim=1, correction=0)
    assert numbers["latents/smallest_std"] == pytest.approx(std.min().item(), rel=1e-4)
    assert numbers["latents/largest_std"] == pytest.approx(std.max().item(), rel=1e-4)
    assert numbers["latents/largest_mean"] == pytest.approx(latents.mean(dim=1).abs().max().item(), rel=1e-4)
    assert numbers["latents/scaling_factor"] == pytest.approx(1 / latents.std(correction=0).item(), rel=1e-4)


def test_without_held_out_clips_there_is_nothing_to_say(tiny, tmp_path):
    assert validate(tiny, {}, tmp_path) == {}
