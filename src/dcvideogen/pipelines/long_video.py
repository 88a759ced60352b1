"""Videos of any length: windows of the length that a model was trained for, each going on from the end of the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dcvideogen.adaptation.folder import Trained
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.errors import UserError
from dcvideogen.pipelines.sizes import VideoSize

# Of the end of a window, that the next one is given; 0: its last frame as a picture, as models were trained.
GIVEN_LATENTS = 0
# (what is given: a picture or (1, 3, n, H, W) frames; frames to make; window's number) -> latents (1, C, t, h, w)
Generate = Callable[[object, int, int], Tensor]


def window_frames(trained: Trained, task: str, size: VideoSize) -> int | None:
    """Frames of a window, where the video is longer than the model's and the model can go on from a picture."""
    longest = max((frames for _, _, frames in trained.sizes), default=size.num_frames)
    return longest if task == "i2v" and size.num_frames > longest else None


def window_lengths(num_latents: int, window: int, given: int) -> list[int]:
    """Latents that each window makes, what is given to it included; all but the first begin with `given` of those that
    the one before made. UserError: a window in which nothing new could be made."""
    if window <= given:
        raise UserError(f"windows of {window} latents that begin with {given} given ones came; longer ones are needed")
    lengths = [min(window, num_latents)]
    left = num_latents - lengths[0]
    while left > 0:
        new = min(window - given, left)
        lengths.append(given + new)
        left -= new
    return lengths


def generate_windows(
    autoencoder: AutoencoderDCV,
    image: object,
    num_latents: int,
    *,
    window: int,
    given: int,
    size: tuple[int, int],
    generate: Generate,
) -> Iterator[Tensor]:
    """Latents (1, C, t, h, w) of each window without those that were given to it: joined, one video of `num_latents`.

    window, given: in latents. given 0: a window begins with the last frame of the one before as its picture; n: with
    its last n latents' frames, which it then does not make anew. size: (height, width) of the video. What is given is
    decoded from a window by itself; the video is decoded as one stream, so that the decoder makes no seam.
    """
    ratio = autoencoder.geometry.temporal_ratio
    lengths = window_lengths(num_latents, window, given)
    for number, length in enumerate(lengths):
        made = generate(image, length * ratio, number)
        yield made if number == 0 else made[:, :, given:]
        if number + 1 < len(lengths):
            image = _end_of(autoencoder, made, given, size)


@torch.inference_mode()
def _end_of(autoencoder: AutoencoderDCV, latents: Tensor, given: int, size: tuple[int, int]) -> Tensor:
    """The last frame (1, 3, H, W) of a window, or the frames (1, 3, n, H, W) of its last latents."""
    height, width = size
    video = autoencoder.decode(latents.to(autoencoder.device, autoencoder.dtype), height=height, width=width)
    video = video.float().clamp(-1, 1)
    return video[:, :, -1] if given == 0 else video[:, :, -given * autoencoder.geometry.temporal_ratio :]
