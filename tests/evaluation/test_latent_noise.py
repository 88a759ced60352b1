import numpy as np
import pytest
import torch
from pictures import waves

from dcvideogen.evaluation.latent_noise import LEVELS, MAX_FRAMES, latent_noise
from dcvideogen.evaluation.reconstruction import psnr
from dcvideogen.evaluation.subjects import Traits
from dcvideogen.video import frames_to_video


class Pixels:
    """A codec whose latents are the video itself, at a scale of its own."""

    traits = Traits("pixels", "model", 1, 1, 1, None, "", latent_channels=3)
    device = torch.device("cpu")

    def encode(self, video):
        self.frames_seen = video.shape[2]
        return video * 7

    def decode(self, latents, num_frames, height, width):
        return latents[:, :, :num_frames, :height, :width] / 7


def test_noise_is_measured_in_standard_deviations_of_each_channel():
    frames = [(frame // 4 + 96).astype(np.uint8) for frame in waves(6, 48, 48)]  # away from black and white
    rows = latent_noise(Pixels(), frames)
    deviation = frames_to_video(frames).std(dim=(0, 2, 3, 4), correction=0) * 127.5
    for row in rows[1:]:
        error = float((row["std"] * deviation).square().mean()) + 1 / 12  # and what rounding adds
        assert row["psnr_db"] == pytest.approx(10 * np.log10(255**2 / error), abs=0.1)
    assert [row["std"] for row in rows] == list(LEVELS)
    assert rows[0]["psnr_db"] is None  # identical


def test_the_same_seed_gives_the_same_noise_and_long_clips_cost_no_more():
    codec = Pixels()
    frames = waves(MAX_FRAMES + 5, 32, 32)
    assert latent_noise(codec, frames) == latent_noise(codec, frames)
    assert latent_noise(codec, frames) != latent_noise(codec, frames, seed=1)
    assert codec.frames_seen == MAX_FRAMES


def test_without_noise_it_is_the_reconstruction(tiny):
    from dcvideogen.evaluation.subjects import ModelSubject

    frames, subject = waves(8, 32, 64), ModelSubject(tiny, "tiny")
    with torch.inference_mode():
        rows = latent_noise(subject, frames)
        rebuilt = list(subject.stream(frames, lambda _: None))
    expected = np.mean([psnr(frame, other) for frame, other in zip(frames, rebuilt, strict=True)])
    assert rows[0]["psnr_db"] == pytest.approx(expected, abs=1e-3)
