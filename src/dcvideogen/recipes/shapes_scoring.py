"""Scores a transformer in the shapes world: videos from captions, held against them. For base and adapted models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.base_autoencoder import load_base_autoencoder
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.sampling import sample_latents
from dcvideogen.adaptation.text import load_text_encoder, pad_embeds
from dcvideogen.autoencoder.loading import load_autoencoder
from dcvideogen.conditioning import FirstLatent
from dcvideogen.errors import UserError
from dcvideogen.evaluation.shapes_reading import ShapesReading, read_shapes
from dcvideogen.evaluation.shapes_score import ShapesScore, mean_scores, score_reading
from dcvideogen.evaluation.strip import save_png
from dcvideogen.shapes_world import ATTRIBUTES, Combination, caption, combinations

# latents (B, C, t, h, w), normalised -> video (B, 3, T, H, W) in about [-1, 1]
Decode = Callable[[Tensor], Tensor]

STRIP_ROWS, STRIP_COLUMNS, STRIP_SIDE = 8, 6, 128
_LABEL = 14  # pixels above each row


@dataclass(frozen=True)
class ShapesPrompts:
    """Captions, embedded. embeds (N, L, D), mask (N, L): of `combinations`. null: (L, D) and (L,), of no text."""

    combinations: tuple[Combination, ...]
    embeds: Tensor
    mask: Tensor
    null: tuple[Tensor, Tensor]


def held_out_combinations(count: int) -> tuple[Combination, ...]:
    """`count` held-out combinations, spread evenly over the split; UserError for more than it has, or none."""
    split = combinations("test")
    if not 1 <= count <= len(split):
        raise UserError(f"{count} held-out captions came; 1 to {len(split)} are allowed")
    return tuple(split[index * len(split) // count] for index in range(count))


def encode_captions(
    base: Path, asked: Sequence[Combination], *, max_sequence_length: int = 64, null_prompt: str = ""
) -> ShapesPrompts:
    """By the text encoder of a base pipeline's folder; the lengths and the null prompt are those of its training."""
    encoder = load_text_encoder(
        base, max_sequence_length=max_sequence_length, device=torch.device("cpu"), dtype=torch.float32
    )
    found = encoder.encode([*(caption(one) for one in asked), null_prompt])
    embeds, mask = pad_embeds(found, max_sequence_length)
    return ShapesPrompts(tuple(asked), embeds[:-1], mask[:-1], (embeds[-1], mask[-1]))


def wan_decoder(base: Path) -> Decode:
    """Of the AutoencoderKLWan in the `vae` folder of a base pipeline: t latents give 4 t - 3 frames."""
    vae = load_base_autoencoder(base / "vae", torch.device("cpu")).model
    if not hasattr(vae.config, "latents_mean"):
        raise UserError(f"{base / 'vae'} holds a {type(vae).__name__}; an AutoencoderKLWan is allowed here")
    mean, std = (torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    return lambda latents: vae.decode(latents * std + mean, return_dict=False)[0]


def dcv_decoder(autoencoder: str | Path) -> Decode:
    """Of our autoencoder in a folder, or of that name: t latents give 4 t frames."""
    return load_autoencoder(autoencoder).requires_grad_(False).decode


@dataclass(frozen=True)
class Sampling:
    """How videos are asked for: Euler steps, the shift of their noise levels, guidance, videos at once; see
    `sample_latents` for image_guidance and first_latent."""

    steps: int = 20
    shift: float = 3.0
    guidance: float = 3.0
    batch_size: int = 8
    image_guidance: float = 1.0
    first_latent: FirstLatent = "generated"


def sampled_videos(
    transformer: nn.Module,
    backbone: Backbone,
    decode: Decode,
    prompts: ShapesPrompts,
    latent_shape: tuple[int, int, int, int],
    seeds: Sequence[int],
    sampling: Sampling,
    condition_of: Callable[[Combination, int], Tensor] | None = None,
) -> Iterator[tuple[Combination, int, Tensor]]:
    """Combination, seed and video (3, T, H, W) for each prompt and seed; the noise depends on these two alone.

    latent_shape: (C, t, h, w). condition_of: for image to video, the channels (C', t, h, w) behind the latents'.
    """
    jobs = [(index, seed) for seed in seeds for index in range(len(prompts.combinations))]
    for start in range(0, len(jobs), sampling.batch_size):
        chosen = jobs[start : start + sampling.batch_size]
        indices = [index for index, _ in chosen]
        asked = [(prompts.combinations[index], seed) for index, seed in chosen]
        noise = torch.stack([noise_of(one, seed, latent_shape) for one, seed in asked])
        condition = None if condition_of is None else torch.stack([condition_of(one, seed) for one, seed in asked])
        names = tuple(caption(one) for one, _ in asked)
        batch = LatentBatch(noise, prompts.embeds[indices], prompts.mask[indices], names, condition)
        latents = sample_latents(
            transformer, backbone, batch, noise, null_prompt=prompts.null,
            steps=sampling.steps, shift=sampling.shift, guidance=sampling.guidance,
            image_guidance=sampling.image_guidance, first_latent=sampling.first_latent,
        )  # fmt: skip
        with torch.inference_mode():
            videos = decode(latents)
        yield from ((*pair, video) for pair, video in zip(asked, videos, strict=True))


def score_transformer(
    transformer: nn.Module,
    backbone: Backbone,
    decode: Decode,
    prompts: ShapesPrompts,
    latent_shape: tuple[int, int, int, int],
    *,
    seeds: Sequence[int] = (0,),
    steps: int = 20,
    shift: float = 3.0,
    guidance: float = 3.0,
    batch_size: int = 8,
    strip: Path | None = None,
) -> dict[str, float]:
    """Mean scores (ShapesScore.as_json), `videos`, and the `seconds` of one video, sampling and decoding together.

    See `sampled_videos`. strip: PNG of the first few videos, one a row.
    """
    began = perf_counter()
    scores: list[ShapesScore] = []
    rows: list[tuple[str, np.ndarray]] = []
    sampling = Sampling(steps, shift, guidance, batch_size)
    for one, _, video in sampled_videos(transformer, backbone, decode, prompts, latent_shape, seeds, sampling):
        reading = read_shapes(video)
        scores.append(score_reading(reading, one))
        if strip is not None and len(rows) < STRIP_ROWS:
            rows.append((row_label(one, reading), frames_of(video)))
    if strip is not None:
        save_strip(strip, rows)
    return mean_scores(scores) | {"videos": len(scores), "seconds": (perf_counter() - began) / len(scores)}


def noise_of(combination: Combination, seed: int, latent_shape: tuple[int, int, int, int]) -> Tensor:
    """(C, t, h, w): what the video of this caption and seed starts from."""
    generator = torch.Generator().manual_seed(seed * len(combinations("all")) + combination.index)
    return torch.randn(latent_shape, generator=generator)


def save_strip(path: Path, rows: Sequence[tuple[str, np.ndarray]]) -> None:
    """Label and frames, uint8 (n, h, w, 3) of one size, a row each."""
    count, height, width, _ = rows[0][1].shape
    sheet = Image.new("RGB", (count * width, len(rows) * (height + _LABEL)))
    draw = ImageDraw.Draw(sheet)
    for row, (label, frames) in enumerate(rows):
        top = row * (height + _LABEL)
        draw.text((2, top + 1), label, fill="white")
        sheet.paste(Image.fromarray(np.concatenate(list(frames), axis=1)), (0, top + _LABEL))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(path, sheet)


def row_label(asked: Combination, reading: ShapesReading) -> str:
    wrong = [
        f"{name} {getattr(reading, name)}" for name in ATTRIBUTES if getattr(reading, name) != getattr(asked, name)
    ]
    return f"{caption(asked)}: {'right' if not wrong else 'seen ' + ', '.join(wrong)}"


def frames_of(video: Tensor) -> np.ndarray:
    """A few frames of a video (3, T, H, W) from first to last, uint8 (n, h, w, 3)."""
    last, columns = video.shape[1] - 1, min(STRIP_COLUMNS, video.shape[1])
    places = [round(column * last / max(1, columns - 1)) for column in range(columns)]
    levels = ((video[:, places].float().nan_to_num(-1).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pictures = levels.permute(1, 2, 3, 0).numpy()
    factor = max(1, pictures.shape[1] // STRIP_SIDE)
    return pictures[:, ::factor, ::factor]
