"""Whether the parts of a pipeline belong together."""

from __future__ import annotations

from torch import nn

from dcvideogen.adaptation.folder import AdaptationInfo
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.errors import UserError


def check_parts(transformer: nn.Module, autoencoder: AutoencoderDCV, info: AdaptationInfo, input_channels: int) -> None:
    """Raises UserError where the transformer works in other latents than the autoencoder's, or is for another task.

    input_channels: those that the pipeline's task needs.
    """
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
    if transformer.config.in_channels != input_channels:
        raise UserError(
            f"a transformer with {transformer.config.in_channels} input channels came; {input_channels} are needed: "
            "text-to-video transformers take latents, image-to-video ones a mask and an image's latents too"
        )
