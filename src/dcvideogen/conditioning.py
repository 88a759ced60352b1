"""How an image-to-video transformer is told its first image: the layout that adaptation and pipelines share.

Wan's (arXiv 2503.20314, and diffusers' WanImageToVideoPipeline): the transformer's input channels are the noisy
latents, then 4 mask channels, then the latents of a video whose first frames are the image and whose others are zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dcvideogen.errors import UserError

MASK_CHANNELS = 4


def condition_video(image: Tensor, num_frames: int, repeat: int, last_image: Tensor | None = None) -> Tensor:
    """Image (B, 3, H, W) in [-1, 1] -> video (B, 3, num_frames, H, W): the image `repeat` times, then zeros.

    repeat: the frames that the first latent covers: 1 for a causal autoencoder with a lone first frame, the temporal
    ratio for one whose latents all cover as many frames. last_image: as often at the end, for the last latent.
    Raises UserError when there is no room for that.
    """
    pictures = 1 if last_image is None else 2
    if not 1 <= pictures * repeat <= num_frames:
        what = "the image" if last_image is None else "each of two images"
        most = num_frames // pictures
        raise UserError(f"{what} {repeat} times in {num_frames} frames; 1 to {most} times are allowed")
    video = image.new_zeros(*image.shape[:2], num_frames, *image.shape[2:])
    video[:, :, :repeat] = image[:, :, None]
    if last_image is not None:
        video[:, :, -repeat:] = last_image[:, :, None]
    return video


def condition_mask(latents: Tensor, *, last: bool = False) -> Tensor:
    """(B, 4, t, h, w) for latents (B, C, t, h, w): one on latent frame 0, which is given, and zero behind it.

    last: the last latent frame is given too.
    """
    count, _, *grid = latents.shape
    mask = latents.new_zeros(count, MASK_CHANNELS, *grid)
    mask[:, :, 0] = 1
    if last:
        mask[:, :, -1] = 1
    return mask


def join(mask: Tensor, condition_latents: Tensor) -> Tensor:
    """The input channels behind the noisy latents, (B, 4 + C, t, h, w): the mask first."""
    return torch.cat([mask, condition_latents], dim=1)


def condition(condition_latents: Tensor, *, last: bool = False) -> Tensor:
    """(B, 4 + C, t, h, w) for the latents (B, C, t, h, w) of a `condition_video`: its mask, and behind it itself."""
    return join(condition_mask(condition_latents, last=last), condition_latents)
