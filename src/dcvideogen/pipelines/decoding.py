"""Decoding that does not run out of memory: a list of plans, each slower and smaller than the one before."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.errors import UserError
from dcvideogen.pipelines.memory_autoencoder import DecodePlan, Need, decode_chunks, decode_need, outline_model

# Rows of pixels per step. With fewer than 16 nothing is gained: what the convs keep waiting, two rows each, then
# outweighs what they work on. Steps between these two save less than they cost in words.
ROWS = (64, 16)
WORTHWHILE = 0.9  # a plan that needs more than this share of the one before is left out
GIB = 2**30
# What RuntimeErrors say that are in truth a lack of memory: of PyTorch's CPU allocator, of cuDNN and of cuBLAS.
OUT_OF_MEMORY = ("can't allocate memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")


def decode_plans(autoencoder: AutoencoderDCV, height: int, width: int) -> tuple[DecodePlan, ...]:
    """Plans for videos of two chunks and more, fastest first; each needs at most 0.9 of the memory of the one before.

    height, width: of the video in pixels. On a CPU the frames between chunks are in host memory anyway, so there no
    plan moves them.
    """
    on_cpu = autoencoder.device.type == "cpu"
    num_frames = 2 * autoencoder.config.chunk_frames
    return tuple(decode_needs(outline_model(autoencoder), height, width, num_frames, on_cpu=on_cpu))


def decode_needs(
    model: AutoencoderDCV, height: int, width: int, num_frames: int, batch: int = 1, *, on_cpu: bool
) -> dict[DecodePlan, Need]:
    """The plans for a video, as decode_plans, with what each takes. model: on the meta device (`outline_model`)."""
    tall = model.geometry.padded_size(height, width)[0]
    tries = [DecodePlan(rows) for rows in (None, *ROWS) if rows is None or rows < tall]
    if not on_cpu:
        tries.append(DecodePlan(tries[-1].rows_per_step, offload_state=True))
    needs: dict[DecodePlan, Need] = {}
    smallest = math.inf
    for plan in tries:
        need = decode_need(model, plan, height, width, num_frames, batch, on_cpu=on_cpu)
        if need.device <= WORTHWHILE * smallest:
            needs[plan], smallest = need, need.device
    return needs


def plans_from(plans: Sequence[DecodePlan], first: DecodePlan) -> tuple[DecodePlan, ...]:
    """`first` and the smaller ones of `plans` behind it: what is left to step down to."""
    behind = plans[plans.index(first) + 1 :] if first in plans else ()
    return (first, *behind)


def decode_pieces(
    autoencoder: AutoencoderDCV,
    latents: Tensor,
    height: int,
    width: int,
    num_frames: int,
    plans: Sequence[DecodePlan],
    told: Callable[[str], object] = print,
) -> Iterator[Tensor]:
    """Latents (B, C, t, h, w) -> frames (B, 3, n, height, width) in about [-1, 1], a chunk at a time, on the
    autoencoder's device; together `num_frames`, exactly.

    Out of memory, it goes on with the next of `plans`, says so through `told`, and decodes again from the first chunk
    without giving frames out twice. UserError when the latents hold less than what is asked for, and when no plan is
    left.
    """
    if not plans:
        raise UserError("no plan to decode by came; decode_plans gives those of an autoencoder and a size")
    given = 0
    for index, plan in enumerate(plans):
        short = None
        frames = _frames_from(given, _decode(autoencoder, latents, height, width, num_frames, plan))
        while True:
            try:
                piece = next(frames, None)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                short = error.with_traceback(None)  # whose frames hold what the decoder was working on
                break
            if piece is None:
                return
            given += piece.shape[2]
            yield piece
            piece = None  # not held while the next one is made
        piece = frames = None
        _free()
        if index + 1 < len(plans):
            told(f"out of memory when decoding by {plan}: decoding by {plans[index + 1]} from here on")
    need = decode_need(
        outline_model(autoencoder),
        plans[-1],
        height,
        width,
        num_frames,
        latents.shape[0],
        on_cpu=autoencoder.device.type == "cpu",
    )
    raise UserError(
        f"not enough memory to decode {num_frames} frames of {height}x{width}: even {plans[-1]} needs "
        f"{need.device / GIB:.2g} GiB beside the autoencoder's weights; the latents are saved, so end other programs, "
        "or take a machine with more memory, and finish with `dcvideogen decode`"
    ) from short


def is_out_of_memory(error: BaseException) -> bool:
    """Also the plain RuntimeErrors by which the CPU's allocator and CUDA's libraries say it."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


@torch.inference_mode()
def _decode(
    autoencoder: AutoencoderDCV, latents: Tensor, height: int, width: int, num_frames: int, plan: DecodePlan
) -> Iterator[Tensor]:
    hook = getattr(autoencoder, "_hf_hook", None)  # of enable_model_cpu_offload, which knows decode, not decode_stream
    if hasattr(hook, "pre_forward"):
        hook.pre_forward(autoencoder)
    yield from decode_chunks(autoencoder, latents.to(autoencoder.device), height, width, num_frames, plan)


def _frames_from(start: int, pieces: Iterator[Tensor]) -> Iterator[Tensor]:
    """All but the first `start` frames of a stream."""
    for piece in pieces:
        skipped = min(start, piece.shape[2])
        start -= skipped
        if skipped < piece.shape[2]:
            yield piece[:, :, skipped:]


def _free() -> None:
    """What a failed try has left: cycles on the host, and blocks that CUDA's allocator keeps."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
