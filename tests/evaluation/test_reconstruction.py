import json

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dcvideogen.evaluation.reconstruction import ReconstructionMetrics, psnr, ssim


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A frame with smooth and rough parts."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = 110 + 90 * np.sin(y / 5) * np.cos(x / 7)
    noise = generator.normal(0, 25, (height, width, 3)) * (x > width / 2)[:, :, None]
    return (waves[:, :, None] + noise).round().clip(0, 255).astype(np.uint8)


def noisy(frame: np.ndarray, levels: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, levels, frame.shape)
    return (frame + noise).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (11, 11), (37, 21), (74, 20), (75, 20), (150, 30)])
@pytest.mark.parametrize("levels", [2, 30])
def test_ssim_and_psnr_agree_with_scikit_image(height, width, levels):
    frame = textured(height, width)
    other = noisy(frame, levels)
    expected = structural_similarity(
        frame,
        other,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2,
        data_range=255,
    )
    assert ssim(frame, other) == pytest.approx(expected, abs=2e-5)
    assert psnr(frame, other) == pytest.approx(peak_signal_noise_ratio(frame, other), abs=1e-4)


def test_ssim_of_flat_frames_stays_exact():
    bright = np.full((16, 16, 3), 250, dtype=np.uint8)
    assert ssim(bright, bright) == pytest.approx(1, abs=1e-6)


def test_a_frame_too_small_for_the_window_has_a_null_ssim_with_its_reason():
    metrics = ReconstructionMetrics(chunk_frames=4, temporal_ratio=4)
    frame = textured(10, 40)
    metrics.update(frame, noisy(frame, 5))
    report = metrics.report()
    assert report["ssim"]["mean"] is None
    assert report["ssim"]["per_frame"] == [None]
    assert "smaller than 11 x 11" in report["ssim"]["reason"]
    assert report["psnr_db"]["reason"] is None


def test_identical_frames_have_a_null_psnr_with_its_reason_and_valid_json():
    metrics = ReconstructionMetrics(chunk_frames=40, temporal_ratio=4)
    frame = textured(20, 20)
    metrics.update(frame, frame)
    metrics.update(frame, noisy(frame, 4))
    report = json.loads(json.dumps(metrics.report(), allow_nan=False))
    assert report["psnr_db"]["per_frame"][0] is None
    assert report["psnr_db"]["mean"] == report["psnr_db"]["per_frame"][1]
    assert (report["psnr_db"]["num_null"], report["psnr_db"]["reason"]) == (1, "identical")


def test_frames_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        ReconstructionMetrics(40, 4).update(textured(20, 20), textured(20, 21))


def measured_edges(offset_of_frame, num_frames=24, chunk_frames=8) -> dict:
    metrics = ReconstructionMetrics(chunk_frames=chunk_frames, temporal_ratio=4)
    for index in range(num_frames):
        # The content moves by itself, which must not count.
        frame = np.roll(textured(16, 32), index, axis=1) // 2
        metrics.update(frame, frame + np.uint8(offset_of_frame(index)))
    return metrics.report()["chunk_edges"]


def test_a_seam_shows_as_a_ratio_above_one():
    # Brightness drifts by 1 per latent frame and jumps by 6 more at each chunk.
    seam = measured_edges(lambda k: k // 4 + 6 * (k // 8))
    assert seam["ratio"] == pytest.approx(7)
    assert (seam["edge_levels"], seam["latent_edge_levels"], seam["inside_levels"]) == (7, 1, 0)
    assert seam["frames"] == [8, 16]


def test_flicker_at_every_latent_frame_is_no_seam():
    assert measured_edges(lambda k: 3 * (k // 4))["ratio"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("offset", "options", "reason"),
    [
        (lambda k: k // 4, {"num_frames": 8}, "one chunk of 8"),
        (lambda k: k // 4, {"chunk_frames": 4}, "no frame inside a chunk"),
        (lambda k: 5, {}, "no error inside"),
    ],
)
def test_a_chunk_edge_ratio_that_does_not_exist_is_null_with_its_reason(offset, options, reason):
    edges = measured_edges(offset, **options)
    assert edges["ratio"] is None
    assert reason in edges["reason"]


def test_the_worst_blocks_are_named_with_frame_place_and_psnr():
    metrics = ReconstructionMetrics(chunk_frames=40, temporal_ratio=4, num_worst_blocks=2)
    frame = textured(70, 64)
    for index in range(3):
        other = frame.copy()
        other[0:32, 32:64] ^= 1
        if index == 1:
            other[64:70, 0:32] ^= 16  # a block at the bottom edge, 6 rows high
        metrics.update(frame, other)
    worst, second = metrics.report()["worst_blocks"]
    assert (worst["frame"], worst["y"], worst["x"], worst["height"], worst["width"]) == (1, 64, 0, 6, 32)
    assert worst["psnr_db"] == pytest.approx(20 * np.log10(255 / 16))
    assert (second["y"], second["x"]) == (0, 32)
    assert second["psnr_db"] == pytest.approx(20 * np.log10(255))
    frames = ReconstructionMetrics(40, 4)
    frames.update(frame, frame)
    assert frames.worst_blocks() == []


def test_flicker_is_the_mean_difference_of_frame_differences():
    metrics = ReconstructionMetrics(chunk_frames=None, temporal_ratio=4)
    frames = [np.roll(textured(16, 32), index, axis=1) // 2 for index in range(4)]
    for frame, offset in zip(frames, (0, 3, 3, 1), strict=True):
        metrics.update(frame, frame + np.uint8(offset))
    flicker = metrics.report()["flicker_levels"]
    assert flicker["per_frame"] == [None, 3, 0, 2]
    assert flicker["mean"] == pytest.approx(5 / 3)
    assert flicker["reason"] is None


def test_one_frame_has_no_flicker_and_a_model_without_chunks_no_edges():
    metrics = ReconstructionMetrics(chunk_frames=None, temporal_ratio=4)
    metrics.update(textured(16, 16), textured(16, 16))
    report = metrics.report()
    assert report["flicker_levels"] == {"mean": None, "per_frame": [None], "reason": "fewer than 2 frames"}
    assert (report["chunk_edges"]["ratio"], report["chunk_edges"]["reason"]) == (None, "runs without chunks")
