"""What encoding and decoding take besides the weights, by plan, counted by running the autoencoder on outlines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dcvideogen.autoencoder.cost import conv_flops
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.pipelines.memory_outline import Account, Outline
from dcvideogen.pipelines.memory_work import Work, count_work

# In strips, memory grows in a straight line with the height, or a little slower where the frames between chunks are
# elsewhere (the line is then up to 10 % too high): two heights, in rows of latents, tell all others.
STRAIGHT = (8, 12)


@dataclass(frozen=True)
class DecodePlan:
    """rows_per_step: pixel rows run at a time, None for whole chunks. offload_state: frames that the convs keep from
    one chunk for the next wait in host memory."""

    rows_per_step: int | None = None
    offload_state: bool = False

    def __str__(self) -> str:
        words = "whole chunks" if self.rows_per_step is None else f"strips of {self.rows_per_step} rows"
        return f"{words}, the frames between chunks in host memory" if self.offload_state else words


@dataclass(frozen=True)
class Need:
    """Bytes at the peak, on the device that computes and, where it is another, in host memory; without weights."""

    device: int
    host: int = 0


def outline_model(autoencoder: AutoencoderDCV) -> AutoencoderDCV:
    """The same autoencoder on the meta device, in the same dtype: sizes without numbers."""
    with torch.device("meta"):
        model = AutoencoderDCV.from_config(autoencoder.config)
    return torch.nn.Module.to(model, autoencoder.dtype).eval()


def decode_chunks(
    model: AutoencoderDCV, latents: Tensor | Outline, height: int, width: int, num_frames: int, plan: DecodePlan
) -> Iterator[Tensor]:
    """The chunks of one decode. A clip of a single chunk is decoded as such: it keeps no frames for another."""
    one_chunk = latents.shape[2] <= model.geometry.chunk_latent_frames
    sizes = {"height": height, "width": width, "num_frames": num_frames}
    how = {"rows_per_step": plan.rows_per_step, "offload_state": plan.offload_state}
    if one_chunk or model.config.temporal_mode == "non_causal":
        yield model.decode(latents, **sizes, **how)
    else:
        yield from model.decode_stream([latents], **sizes, **how)


def decode_need(
    model: AutoencoderDCV, plan: DecodePlan, height: int, width: int, num_frames: int, batch: int = 1, *, on_cpu: bool
) -> Need:
    """model: on the meta device (`outline_model`). The frames of a chunk that were given out count until the next chunk
    is complete, as they do for a caller that writes them away in between."""
    if model.config.temporal_mode != "non_causal":  # from the second full chunk on nothing grows
        num_frames = min(num_frames, 2 * model.config.chunk_frames)
    frames, rows, columns = model.geometry.latent_shape(num_frames, height, width)

    def run(rows: int, accounts: tuple[Account, Account]) -> None:
        latents = Outline((batch, model.config.latent_channels, frames, rows, columns), model.dtype, accounts)
        for _frames in decode_chunks(model, latents, *model.geometry.video_size(rows, columns), num_frames, plan):
            pass

    return _count(run, rows, plan, on_cpu)


def encode_need(
    model: AutoencoderDCV, plan: DecodePlan, height: int, width: int, num_frames: int, *, on_cpu: bool
) -> Need:
    """The same for one video through `encode`; the video itself, which is there as a whole, included."""
    _, rows, columns = model.geometry.latent_shape(num_frames, height, width)

    def run(rows: int, accounts: tuple[Account, Account]) -> None:
        video = Outline((1, 3, num_frames, *model.geometry.video_size(rows, columns)), model.dtype, accounts)
        model.encode(video, rows_per_step=plan.rows_per_step, offload_state=plan.offload_state)

    return _count(run, rows, plan, on_cpu)


def encode_work(model: AutoencoderDCV, latent_shape: tuple[int, int, int]) -> Work:
    """To encode one video of that many latents, in whole chunks. model: on the meta device."""

    def run(frames: int) -> object:
        size = model.geometry.num_video_frames(frames), *model.geometry.video_size(1, 1)
        return model.encode(torch.empty(1, 3, *size, dtype=model.dtype, device="meta"))

    return _work(model, latent_shape, run, _latent_flops(model)[0])


def decode_work(model: AutoencoderDCV, latent_shape: tuple[int, int, int]) -> Work:
    """To decode it, in whole chunks."""

    def run(frames: int) -> object:
        shape = 1, model.config.latent_channels, frames, 1, 1
        return model.decode(torch.empty(shape, dtype=model.dtype, device="meta"))

    return _work(model, latent_shape, run, _latent_flops(model)[1])


def _latent_flops(model: AutoencoderDCV) -> tuple[int, int]:
    """To encode and to decode one latent. Convs pad each side, so every latent costs the same."""
    ratio = model.geometry.spatial_ratio
    return conv_flops(model, model.geometry.temporal_ratio, ratio, ratio)


def _work(
    model: AutoencoderDCV, latent_shape: tuple[int, int, int], run: Callable[[int], object], flops: float
) -> Work:
    """run: with so many latents, one behind the other; from the second full chunk on, all chunks cost the same. flops:
    of one latent."""
    frames, rows, columns = latent_shape
    few = frames
    if model.config.temporal_mode != "non_causal":
        few = min(frames, 2 * model.geometry.chunk_latent_frames)
    found, area, longer = count_work([], lambda: run(few), 0.0), rows * columns, frames / few
    return Work(flops * frames * area, found.launches * longer, found.moved * longer * area)


def _count(run: Callable[[int, tuple[Account, Account]], None], rows: int, plan: DecodePlan, on_cpu: bool) -> Need:
    """run: with so many rows of latents, on these accounts."""

    def count(rows: int) -> Need:
        accounts = Account(lazy=on_cpu), Account()
        with torch.no_grad():
            run(rows, accounts)
        return Need(*(account.peak for account in accounts))

    if plan.rows_per_step is None or rows <= STRAIGHT[1] + 2:
        return count(rows)
    low, high = (some + rows % 2 for some in STRAIGHT)
    first, second = count(low), count(high)
    steps = (rows - low) / (high - low)
    return Need(
        first.device + round(steps * (second.device - first.device)),
        first.host + round(steps * (second.host - first.host)),
    )
