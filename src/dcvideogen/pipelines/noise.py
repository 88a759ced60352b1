"""The noise of a video: a function of the seed and of the video's number alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from dcvideogen.errors import UserError


def video_generator(seed: int, number: int) -> torch.Generator:
    """For video `number` (from 0) of a seed: on the CPU, so that every device starts from the same noise."""
    digest = hashlib.sha256(f"dcvideogen {seed} {number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def one_for_each(
    generator: torch.Generator | Sequence[torch.Generator] | None, count: int
) -> list[torch.Generator] | None:
    """Those that came, or the single one for every video, which then draw one after the other; None: none came.

    UserError: another number of generators.
    """
    if generator is None:
        return None
    generators = list(generator) if isinstance(generator, Sequence) else [generator] * count
    if len(generators) != count:
        raise UserError(
            f"{len(generators)} generators came for {count} videos; one for each, or a single one, is allowed"
        )
    return generators


def starting_noise(
    shape: Sequence[int],
    generator: torch.Generator | Sequence[torch.Generator] | None,
    device: torch.device,
) -> Tensor:
    """fp32 noise of shape (B, C, t, h, w) on the device, each video drawn for itself: its noise is the same in a batch.

    generator: as in `one_for_each`.
    """
    generators = one_for_each(generator, shape[0]) or [None] * shape[0]
    drawn = [randn_tensor((1, *shape[1:]), generator=one, device=device, dtype=torch.float32) for one in generators]
    return torch.cat(drawn)
