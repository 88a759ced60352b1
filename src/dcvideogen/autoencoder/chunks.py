"""Cutting a stream of pieces of any length into chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from dcvideogen.errors import UserError


def cut_into_chunks(pieces: Iterable[Tensor], length: int, total: int | None = None) -> Iterator[tuple[Tensor, bool]]:
    """Pieces (B, C, any, H, W) of one clip -> (chunk, is_last): chunks of `length` frames, the last one maybe shorter.

    A chunk is given out as soon as it is complete, so whether it is the last one is known only when `total`, the
    number of frames of the clip, is; otherwise `is_last` is True for a short chunk alone.
    """
    waiting: list[Tensor] = []
    num_waiting = seen = 0
    shape: tuple[int, ...] | None = None
    for piece in pieces:
        if piece.ndim != 5:
            raise UserError(
                f"a piece of shape {tuple(piece.shape)}; expected 5 axes (batch, channels, time, height, width)"
            )
        form = (*piece.shape[:2], *piece.shape[3:])
        if shape is not None and form != shape:
            raise UserError(f"a piece of shape {tuple(piece.shape)} in a stream whose (B, C, H, W) was {shape}")
        shape = form
        while piece.shape[2] > 0:
            part = piece[:, :, : length - num_waiting]
            piece = piece[:, :, part.shape[2] :]
            waiting.append(part)
            num_waiting += part.shape[2]
            if num_waiting == length:
                seen += length
                chunk = waiting[0] if len(waiting) == 1 else torch.cat(waiting, dim=2)
                waiting, num_waiting = [], 0
                yield chunk, seen == total
                del chunk
    if waiting:
        yield torch.cat(waiting, dim=2), True


def first_frames(videos: Iterator[Tensor], num_frames: int) -> Iterator[Tensor]:
    """The first `num_frames` frames of a stream."""
    left = num_frames
    for video in videos:
        if left <= 0:
            return
        yield video[:, :, :left]
        left -= video.shape[2]
    if left > 0:
        raise UserError(f"num_frames is {num_frames}; the latents held only {num_frames - left} frames")
