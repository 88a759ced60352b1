"""A training pass through an autoencoder as one module: that is what DDP and FSDP2 can wrap."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dcvideogen.autoencoder.model import AutoencoderDCV


class Reconstruction(NamedTuple):
    """video: (B, 3, T, H, W). mean, logvar: of the posterior, (B, C, t, h, w); logvar is None where it has none."""

    video: Tensor
    mean: Tensor
    logvar: Tensor | None


class AutoencoderPass(nn.Module):
    """Encode, draw from the posterior, add noise, decode.

    past_gradient: let gradients flow through the frames kept between chunks. latent_noise: see `LossSettings`.
    """

    def __init__(self, model: AutoencoderDCV, *, past_gradient: bool = True, latent_noise: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.past_gradient, self.latent_noise = past_gradient, latent_noise
        keep_full_precision(model)
        self.used: dict[str, Tensor] = {}

    def forward(self, video: Tensor, chunk_frames: int, seeds: Sequence[Sequence[int]]) -> Reconstruction:
        """video (B, 3, T, H, W) in [-1, 1]; the chunk length to run it with; for each clip what seeds its noise."""
        model = self.model
        num_frames, height, width = video.shape[2:]
        with chunk_length(model, chunk_frames):
            if model.config.posterior == "gaussian":
                mean, logvar = model.encode_moments(video, past_gradient=self.past_gradient)
            else:
                mean, logvar = model.encode(video, past_gradient=self.past_gradient), None
            latents = self._perturbed(mean, logvar, seeds)
            result = model.decode(
                latents, num_frames=num_frames, height=height, width=width, past_gradient=self.past_gradient
            )
        return Reconstruction(result, mean, logvar)

    def _perturbed(self, mean: Tensor, logvar: Tensor | None, seeds: Sequence[Sequence[int]]) -> Tensor:
        latents = mean
        if logvar is not None:
            latents = latents + (0.5 * logvar.float()).exp() * normal(mean, seeds, 0)
        if self.latent_noise:
            deviation = mean.detach().float().std(dim=(2, 3, 4), keepdim=True, correction=0)
            latents = latents + self.latent_noise * uniform(mean, seeds) * deviation * normal(mean, seeds, 1)
        return latents

    def note_last_weight(self) -> None:
        """From now on every pass leaves the weight of the last conv in `used["last_weight"]`.

        Under FSDP2 the weight that takes part in a pass is another tensor than the parameter. Only where it is wanted:
        torch.compile cannot trace the note together with gradient checkpointing.
        """

        def note(conv: nn.Module, _inputs: Any) -> None:
            self.used["last_weight"] = conv.weight

        last_conv(self.model).register_forward_pre_hook(note)


def last_conv(model: AutoencoderDCV) -> nn.Conv3d:
    """The conv that makes the pixels."""
    return model.decoder.layers[-1].upsample.conv


def normal(like: Tensor, seeds: Sequence[Sequence[int]], stream: int) -> Tensor:
    """Standard normal numbers in the shape of `like`, one generator per clip: the same on every device, and however
    the clips of a step are shared out."""
    drawn = [torch.randn(like.shape[1:], generator=generator(seed, stream)) for seed in seeds]
    return torch.stack(drawn).to(like.device)


def uniform(like: Tensor, seeds: Sequence[Sequence[int]]) -> Tensor:
    """One number in [0, 1) per clip, (B, 1, 1, 1, 1)."""
    return (
        torch.cat([torch.rand(1, generator=generator(seed, 2)) for seed in seeds]).view(-1, 1, 1, 1, 1).to(like.device)
    )


def generator(seed: Sequence[int], stream: int) -> torch.Generator:
    """A CPU generator, seeded by all of these numbers (at least 0)."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([*seed, stream]).generate_state(1, np.uint64)[0]))


def keep_full_precision(model: AutoencoderDCV) -> None:
    """Makes the layers at latent rate and the decoder's head compute in fp32 under autocast.

    The latents are the narrow place, and at their rate fp32 costs next to nothing; the head's last sum needs more than
    eight bits.
    """
    latent_rate = [model.encoder.layers[-1], *model.decoder.layers[:2]]
    for layer in (*latent_rate, model.decoder.layers[-1]):
        layer.forward = functools.partial(in_full_precision, type(layer).forward, layer)


def in_full_precision(forward: Callable[..., Tensor], layer: nn.Module, x: Tensor, *rest: Any) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return forward(layer, x.float(), *rest)


@contextmanager
def chunk_length(model: AutoencoderDCV, chunk_frames: int) -> Iterator[None]:
    """Runs the model with another chunk length: short clips then cross a chunk's edge too."""
    own = model.geometry
    model.geometry = dataclasses.replace(own, chunk_frames=chunk_frames)
    try:
        yield
    finally:
        model.geometry = own
