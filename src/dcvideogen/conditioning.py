"""How an image-to-video transformer is told its first image: the layout that adaptation and pipelines share.

Wan's (arXiv 2503.20314, and diffusers' WanImageToVideoPipeline): the transformer's input channels are the noisy
latents, then 4 mask channels, then the latents of a video whose first frames are the image and whose others are zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from dcvideogen.errors import UserError

MASK_CHANNELS = 4  # one per frame of the base autoencoder's latent frame
# How the latents behind the mask are made; see `condition_latents`.
ImageCondition = Literal["zeros", "alone", "chunk"]
# Whether the latents that the mask says are known are made like all others, or given as they are; see `with_given`.
FirstLatent = Literal["generated", "given"]


def condition_video(image: Tensor, num_frames: int, repeat: int) -> Tensor:
    """Image (B, 3, H, W) in [-1, 1] -> video (B, 3, num_frames, H, W): the image `repeat` times, then zeros.

    repeat: the frames that the first latent covers: 1 for a causal autoencoder with a lone first frame, the temporal
    ratio for one whose latents all cover as many frames. Raises UserError when that is not 1 to num_frames.
    """
    if not 1 <= repeat <= num_frames:
        raise UserError(f"the image {repeat} times in {num_frames} frames; 1 to {num_frames} times are allowed")
    return given_video(image[:, :, None].expand(-1, -1, repeat, -1, -1), num_frames)


def given_video(first: Tensor, num_frames: int, last_image: Tensor | None = None) -> Tensor:
    """Frames (B, 3, n, H, W) in [-1, 1] -> video (B, 3, num_frames, H, W): them, then zeros.

    last_image: (B, 3, H, W), which fills as many frames at the end as `first` has. UserError where there is no room.
    """
    count = first.shape[2]
    needed = count if last_image is None else 2 * count
    if needed > num_frames:
        raise UserError(f"{needed} frames are given and {num_frames} asked for; ask for more")
    video = first.new_zeros(*first.shape[:2], num_frames, *first.shape[3:])
    video[:, :, :count] = first
    if last_image is not None:
        video[:, :, -count:] = last_image[:, :, None]
    return video


def condition_latents(
    encode: Callable[[Tensor], Tensor],
    first: Tensor,
    num_frames: int,
    *,
    how: ImageCondition = "zeros",
    latent_frames: int,
    chunk_frames: int,
    last_image: Tensor | None = None,
) -> Tensor:
    """Frames (B, 3, n, H, W) in [-1, 1] -> condition latents (B, C, t, h, w) for a video of `num_frames`.

    encode: videos (B, 3, T, H, W) -> latents. first: as many frames as the given latents cover. last_image:
    (B, 3, H, W). how: "zeros": the latents of `given_video`. "alone": what is given is encoded by itself, and the other
    latents are zero, so that nothing of grey frames comes in. "chunk": as "zeros", with the last given frame repeated
    to the end of its chunk (or to where the last image begins): inside a chunk information flows both ways.
    latent_frames, chunk_frames: those of a latent and of a chunk of the autoencoder. UserError where there is no room.
    """
    video, count = given_video(first, num_frames, last_image), first.shape[2]
    if how == "chunk":
        chunk_end = -(-count // chunk_frames) * chunk_frames
        video[:, :, count : min(chunk_end, num_frames - (0 if last_image is None else count))] = first[:, :, -1:]
    if how != "alone":
        return encode(video)
    given = encode(first)
    latents = given.new_zeros(*given.shape[:2], num_frames // latent_frames, *given.shape[3:])
    latents[:, :, : given.shape[2]] = given
    if last_image is not None:
        latents[:, :, -1:] = encode(video[:, :, -latent_frames:])
    return latents


def condition_mask(latents: Tensor, *, given: int = 1, last: bool = False) -> Tensor:
    """(B, 4, t, h, w) for latents (B, C, t, h, w): one on the first `given` latent frames, and zero behind them.

    last: the last latent frame is given too.
    """
    count, _, *grid = latents.shape
    mask = latents.new_zeros(count, MASK_CHANNELS, *grid)
    mask[:, :, :given] = 1
    if last:
        mask[:, :, -1] = 1
    return mask


def with_given(latents: Tensor, channels: Tensor) -> Tensor:
    """Latents (B, C, t, h, w), and where the mask of `condition` (B, 4 + C, t, h, w) is one, its clean latents."""
    return torch.where(channels[:, :1] > 0, channels[:, MASK_CHANNELS:].to(latents), latents)


def noisy_tokens(channels: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """(B, L): 1, and 0 for tokens of `patch` whose latents the mask of `condition` (B, 4 + C, t, h, w) names."""
    return (1 - channels[:, 0, :: patch[0], :: patch[1], :: patch[2]]).flatten(1)


def join(mask: Tensor, condition_latents: Tensor) -> Tensor:
    """The input channels behind the noisy latents, (B, 4 + C, t, h, w): the mask first."""
    return torch.cat([mask, condition_latents], dim=1)


def condition(condition_latents: Tensor, *, given: int = 1, last: bool = False) -> Tensor:
    """(B, 4 + C, t, h, w) for the latents (B, C, t, h, w) of a `condition_video`: its mask, and behind it itself."""
    return join(condition_mask(condition_latents, given=given, last=last), condition_latents)
