"""Scores image to video in the shapes world: whether what the first picture shows stays, and moves as the text says."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.conditioning import ImageCondition, condition, condition_latents
from dcvideogen.data.shapes import render
from dcvideogen.evaluation.shapes_reading import read_shapes
from dcvideogen.evaluation.shapes_score import ShapesScore, mean_scores, score_reading
from dcvideogen.recipes.shapes_scoring import (
    STRIP_ROWS,
    Decode,
    Sampling,
    ShapesPrompts,
    frames_of,
    row_label,
    sampled_videos,
    save_strip,
)
from dcvideogen.shapes_world import Combination, combinations

# videos (B, 3, T, H, W) in [-1, 1] -> normalised latents (B, C, t, h, w)
Encode = Callable[[Tensor], Tensor]

# What a first picture shows; the rest of a caption, the motion, it cannot.
RETAINED = ("background", "color", "size", "shape")
# Of the clips whose first frames are given: no training sees them.
CLIP_SEED = 2**31


def score_image_to_video(
    transformer: nn.Module,
    backbone: Backbone,
    encode: Encode,
    decode: Decode,
    prompts: ShapesPrompts,
    latent_shape: tuple[int, int, int, int],
    *,
    num_frames: int,
    size: int,
    repeat: int,
    image_condition: ImageCondition = "zeros",
    chunk_frames: int = 0,
    first: int = 0,
    seeds: Sequence[int] = (0,),
    sampling: Sampling | None = None,
    strip: Path | None = None,
) -> dict[str, float]:
    """Means over a video for each prompt and seed, which begins with a frame of a real clip of that combination.

    `retention`: the mean of background, color, size and shape, each 1 when the video shows it. `motion`, `joint` and
    the others as in ShapesScore. `first_frame_psnr`: of the video's first frame against the picture that was given,
    in dB; `autoencoder_psnr`: of the first frame of that clip, encoded and decoded, against it: what can be had.
    num_frames, size: of the clips that the autoencoder takes, in frames and pixels. first: which frame of a rendered
    clip they begin with. repeat: how often the picture stands at the start of the condition: the frames of the first
    latent. image_condition, chunk_frames: what `condition_latents` does then, as the transformer was trained; the
    latter is needed for "chunk" alone.
    """

    @functools.lru_cache(maxsize=32)
    def clip(one: Combination, seed: int) -> Tensor:
        rendered = render(one, CLIP_SEED + seed * len(combinations("all")) + one.index, size=size)
        return rendered[:, first : first + num_frames]

    @torch.inference_mode()
    def condition_of(one: Combination, seed: int) -> Tensor:
        picture = clip(one, seed)[None, :, :1]
        latents = condition_latents(
            encode, picture.expand(-1, -1, repeat, -1, -1), num_frames,
            how=image_condition, latent_frames=repeat, chunk_frames=chunk_frames,
        )  # fmt: skip
        return condition(latents)[0]

    scores: list[ShapesScore] = []
    given: list[float] = []
    possible: list[float] = []
    rows: list[tuple[str, np.ndarray]] = []
    videos = sampled_videos(
        transformer, backbone, decode, prompts, latent_shape, seeds, sampling or Sampling(), condition_of
    )
    for one, seed, video in videos:
        reading, real = read_shapes(video), clip(one, seed)
        scores.append(score_reading(reading, one))
        given.append(frame_psnr(video[:, 0], real[:, 0]))
        with torch.inference_mode():
            possible.append(frame_psnr(decode(encode(real[None]))[0, :, 0], real[:, 0]))
        if strip is not None and len(rows) < STRIP_ROWS:
            rows.append((row_label(one, reading), frames_of(video)))
    if strip is not None:
        save_strip(strip, rows)
    means = mean_scores(scores)
    return means | {
        "retention": sum(means[name] for name in RETAINED) / len(RETAINED),
        "first_frame_psnr": sum(given) / len(given),
        "autoencoder_psnr": sum(possible) / len(possible),
        "videos": len(scores),
    }


def frame_psnr(one: Tensor, other: Tensor) -> float:
    """Of two frames (3, H, W) in [-1, 1], in dB, as 8-bit pictures."""
    first, second = (((frame.float().clamp(-1, 1) + 1) * 127.5).round() for frame in (one, other))
    error = (first - second).square().mean().clamp(min=1e-3)
    return float(10 * torch.log10(255**2 / error))
