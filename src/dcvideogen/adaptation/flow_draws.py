"""What a frozen transformer is asked at fixed draws of noise, noise level and text: the rows of the head's fit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.clip_split import bucket_batches
from dcvideogen.adaptation.flow_matching import without_image, without_text
from dcvideogen.adaptation.head_settings import HeadSettings
from dcvideogen.adaptation.patches import patchify
from dcvideogen.errors import UserError
from dcvideogen.flow import add_noise, sample_sigma, velocity_target

if TYPE_CHECKING:
    from dcvideogen.adaptation.cache import LatentCache


@dataclass(frozen=True)
class HeadRows:
    """Of one batch. features: (B, L, D), what the head is given; targets: (B, L, Q), what it should say; weights:
    (B, L), 0 where what it says means nothing; sigma: (B,)."""

    features: Tensor
    targets: Tensor
    weights: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class FlowDraws:
    """Draws for clips of a cache. A draw depends on seed, clip and its number, and on nothing else: not on the batch
    that it comes in, nor on the device."""

    backbone: Backbone
    cache: LatentCache
    settings: HeadSettings

    @torch.no_grad()
    def rows(self, transformer: nn.Module, indices: Sequence[int], draws: int) -> Iterator[HeadRows]:
        """Each clip in `draws` draws; UserError for latents or features that are not finite."""
        device = self.backbone.embedder_module(transformer).weight.device
        # Ends in fp32 on a transformer in bf16 run together under autocast alone.
        bf16 = self.settings.precision == "bf16" or any(p.dtype == torch.bfloat16 for p in transformer.parameters())
        autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)
        for clips in bucket_batches(self.cache, indices, self.settings.batch_size):
            batch = self.cache.batch(clips)
            for draw in range(draws):
                drawn, noise, sigma = self.draw(batch, [self.cache.clips[index].key for index in clips], draw)
                noisy = add_noise(drawn.latents, noise, sigma).to(device)
                with evaluating(transformer), autocast:
                    features = self.backbone.features(transformer, noisy, sigma.to(device), drawn.to(device))
                velocity = velocity_target(drawn.latents, noise).to(device)
                targets = self.backbone.head_targets(velocity, transformer.config)
                if not (features.isfinite().all() and targets.isfinite().all()):
                    raise UserError(
                        f"latents of {', '.join(batch.names)}, or what the transformer makes of them, are not finite; "
                        "remove the clip and cache it again, or check the base model"
                    )
                yield HeadRows(features, targets, self._weights(drawn, transformer).to(device), sigma)

    def draw(self, batch: LatentBatch, keys: Sequence[str], number: int) -> tuple[LatentBatch, Tensor, Tensor]:
        """The batch without the text and the image that are dropped, noise (B, C, t, h, w), sigma (B,); on the CPU."""
        flow, noise, sigma, shares = self.settings.flow, [], [], []
        for key in keys:
            digest = hashlib.sha256(f"{self.settings.seed} {key} {number}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
            sigma.append(
                sample_sigma(
                    1,
                    distribution=flow.distribution,
                    shift=flow.shift,
                    sigma_range=flow.sigma_range,
                    generator=generator,
                )
            )
            shares.append(torch.rand(2, generator=generator))
            noise.append(torch.randn(batch.latents.shape[1:], generator=generator))
        text, image = torch.stack(shares).unbind(1)
        drawn = without_text(batch, text < flow.text_dropout, self.cache.null_prompt())
        drawn = without_image(drawn, image < flow.image_dropout)
        return drawn, torch.stack(noise), torch.cat(sigma)

    def _weights(self, batch: LatentBatch, transformer: nn.Module) -> Tensor:
        """(B, L). A transformer that has no channels for its condition gets that in place of the latents, and what it
        says there is not used."""
        patch = self.backbone.patch_size(transformer.config)
        noisy = torch.ones_like(batch.latents[:, :1])
        if batch.condition is not None and not self.backbone.condition_channels(transformer.config):
            noisy = 1 - batch.condition[:, :1]
        return patchify(noisy, patch, "cthw").mean(-1).flatten(1)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode inside, and as it was afterwards."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
