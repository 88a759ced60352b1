"""Measures one model of the study of time on whole clips and on clips of the training length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.evaluation.reconstruction import ReconstructionMetrics
from dcvideogen.evaluation.strip import Strip
from dcvideogen.video import video_to_frames

WINDOWS = 5  # clips of a length, evenly spread over the whole one, so that all lengths see the same pictures


@torch.no_grad()
def evaluate(
    model: AutoencoderDCV,
    tests: dict[str, Tensor],
    num_frames: int,
    chunk_frames: int,
    folder: Path,
    edges: Sequence[int] = (),
) -> dict[str, Any]:
    """Per clip: reports at 1, 2 and 5 times `num_frames` (those that fit), and of the whole clip cut into pieces.

    "whole" and "cut" have the seams of pieces of `num_frames` measured: the whole clip at once, and the pieces
    by themselves put one after the other, which is what people do with models that need the whole clip. `edges`: chunk
    lengths at whose edges the jumps of the whole clip are measured too. Strips of the whole clip go into `folder`.
    """
    return {name: _evaluate_clip(model, video, num_frames, chunk_frames, folder / f"{name}.png", edges)
            for name, video in tests.items()}  # fmt: skip


def _evaluate_clip(
    model: AutoencoderDCV, video: Tensor, num_frames: int, chunk_frames: int, picture: Path, edges: Sequence[int]
) -> dict[str, Any]:
    total = video.shape[2]
    pieces = [_rebuild(model, piece) for piece in video.split(num_frames, dim=2)]
    whole = _rebuild(model, video)
    ratio = model.geometry.temporal_ratio
    entry: dict[str, Any] = {
        "1x": [
            measure(piece, rebuilt, chunk_frames, ratio)
            for piece, rebuilt in zip(video.split(num_frames, dim=2), pieces, strict=True)
        ],
        "whole": measure(video, whole, num_frames, ratio),
        "cut": measure(video, torch.cat(pieces, dim=2), num_frames, ratio),
        "jumps": {str(frames): measure(video, whole, frames, ratio)["edges"]["ratio"] for frames in edges},
    }
    for multiple in (2, 5):
        length = multiple * num_frames
        if length > total:
            continue
        last = total - length
        starts = sorted({last * index // (WINDOWS - 1) for index in range(WINDOWS)})
        windows = [video[:, :, start : start + length] for start in starts]
        entry[f"{multiple}x"] = [
            measure(window, whole if length == total else _rebuild(model, window), chunk_frames, ratio)
            for window in windows
        ]
    strip = Strip(columns=6)
    for frame, rebuilt in zip(video_to_frames(video), video_to_frames(whole), strict=True):
        strip.update(frame, rebuilt)
    strip.save(picture)
    return entry


def _rebuild(model: AutoencoderDCV, video: Tensor) -> Tensor:
    return model(video.to(model.device)).float().cpu()


def measure(video: Tensor, rebuilt: Tensor, chunk_frames: int, temporal_ratio: int) -> dict[str, Any]:
    """PSNR in dB of every frame (None where it is exact), mean SSIM, and the jumps at chunk edges."""
    metrics = ReconstructionMetrics(chunk_frames, temporal_ratio)
    for frame, other in zip(video_to_frames(video), video_to_frames(rebuilt), strict=True):
        metrics.update(frame, other)
    report = metrics.report()
    return {
        "psnr": [None if value is None else round(value, 3) for value in report["psnr_db"]["per_frame"]],
        "ssim": report["ssim"]["mean"],
        "edges": {key: report["chunk_edges"][key] for key in ("ratio", "edge_levels", "latent_edge_levels")},
    }
