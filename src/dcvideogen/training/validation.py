"""Held-out clips through the autoencoder: numbers as `dcvideogen reconstruct` gives them, and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.evaluation.latent_statistics import LatentStatistics
from dcvideogen.evaluation.reconstruction import ReconstructionMetrics
from dcvideogen.evaluation.strip import Strip
from dcvideogen.video import VideoWriter, video_to_frames

FPS = 24  # of the films, whatever the clip's own rate was
CRF = 23


@torch.no_grad()
def validate(model: AutoencoderDCV, held_out: Mapping[str, Tensor], folder: Path) -> dict[str, float]:
    """Measures named videos (1, 3, T, H, W) in [-1, 1]; writes `name.mp4`, input beside reconstruction, and `name.png`.

    Returns psnr in dB and ssim of each clip (`psnr/name`) and their means over the clips (`psnr`), the chunk-edge ratio
    where there is more than one chunk, and of the latents: the largest absolute mean and the smallest and largest std
    of a channel, and the scaling factor (1 / std of all numbers) that they imply. What does not exist is left out.
    """
    per_clip: dict[str, dict[str, float]] = {"psnr": {}, "ssim": {}, "chunk_edge_ratio": {}}
    latents = LatentStatistics()
    for name, video in held_out.items():
        video = video.to(model.device)
        encoded = model.encode(video)
        latents.update(encoded)
        num_frames, height, width = video.shape[2:]
        reconstruction = model.decode(encoded, num_frames=num_frames, height=height, width=width)
        report = measure_and_draw(model, video_to_frames(video), video_to_frames(reconstruction), folder, name)
        found = {
            "psnr": report["psnr_db"]["mean"],
            "ssim": report["ssim"]["mean"],
            "chunk_edge_ratio": report["chunk_edges"]["ratio"],
        }
        for metric, value in found.items():
            if value is not None:
                per_clip[metric][name] = value
    result = {metric: float(np.mean(list(values.values()))) for metric, values in per_clip.items() if values}
    result |= {f"{metric}/{name}": value for metric, values in per_clip.items() for name, value in values.items()}
    return result | latent_figures(latents)


def measure_and_draw(
    model: AutoencoderDCV, frames: np.ndarray, reconstruction: np.ndarray, folder: Path, name: str
) -> dict:
    """The report of ReconstructionMetrics on uint8 frames (T, H, W, 3)."""
    metrics, strip = ReconstructionMetrics(model.geometry.chunk_frames, model.geometry.temporal_ratio), Strip()
    file = name.replace("/", "_")
    with VideoWriter(folder / f"{file}.mp4", fps=FPS, crf=CRF) as writer:
        for pair in zip(frames, reconstruction, strict=True):
            metrics.update(*pair)
            strip.update(*pair)
            writer.write(np.concatenate(pair, axis=1))
    strip.save(folder / f"{file}.png")
    return metrics.report()


def latent_figures(latents: LatentStatistics) -> dict[str, float]:
    """Of the latents as they are handed out."""
    report = latents.report(own_mean=(0.0,), own_std=(1.0,))
    if report is None:
        return {}
    figures = {
        "latents/largest_mean": max(abs(mean) for mean in report["mean"]),
        "latents/smallest_std": min(report["std"]),
        "latents/largest_std": max(report["std"]),
        "latents/scaling_factor": report["scaling_factor"],
    }
    return {name: value for name, value in figures.items() if value is not None}
