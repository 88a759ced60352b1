"""Whether the parts of a pipeline belong together, and what it can be asked for."""

from __future__ import annotations

from typing import Literal

from torch import nn

from dcvideogen.adaptation.folder import AdaptationInfo
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.conditioning import MASK_CHANNELS, FirstLatent
from dcvideogen.errors import UserError

Task = Literal["t2v", "i2v"]


def tasks_of(input_channels: int, latent_channels: int, first_latent: FirstLatent = "generated") -> tuple[Task, ...]:
    """What a transformer with so many input channels was made for.

    One that takes an image's latent in place of a noisy one, having no channels of its own for it, does both, as
    Wan 2.2 5B.
    """
    if input_channels == 2 * latent_channels + MASK_CHANNELS:
        return ("i2v",)
    if input_channels != latent_channels:
        return ()
    return ("i2v", "t2v") if first_latent == "given" else ("t2v",)


def check_parts(transformer: nn.Module, autoencoder: AutoencoderDCV, info: AdaptationInfo, task: Task) -> None:
    """Raises UserError where the transformer works in other latents than the autoencoder's, or is for another task."""
    space = autoencoder.config.latent_space_id or autoencoder.fingerprint()
    if info.latent_space_id != space:
        raise UserError(
            f"the transformer works with latents of space {info.latent_space_id} and the autoencoder makes those of "
            f"{space}; give the autoencoder that it was adapted to"
        )
    channels = (info.latent_channels, transformer.config.out_channels, autoencoder.config.latent_channels)
    if len(set(channels)) > 1:
        raise UserError(
            f"the adaptation says {channels[0]} latent channels, the transformer has {channels[1]} and the autoencoder "
            f"{channels[2]}; they must be the same"
        )
    if task not in tasks_of(transformer.config.in_channels, info.latent_channels, info.first_latent):
        needed = info.latent_channels if task == "t2v" else 2 * info.latent_channels + MASK_CHANNELS
        raise UserError(
            f"a transformer with {transformer.config.in_channels} input channels came; {needed} are needed: "
            "text-to-video transformers take latents, image-to-video ones a mask and an image's latents too"
        )
