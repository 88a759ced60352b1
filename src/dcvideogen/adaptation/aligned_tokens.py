"""What the two patch embedders are given for the same piece of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dcvideogen.adaptation.align_settings import AlignSettings
from dcvideogen.adaptation.backbone import Backbone, Config
from dcvideogen.adaptation.least_squares import AffineMap
from dcvideogen.adaptation.pooling import Grid, first_whole_token, pool_ratio, pool_tokens
from dcvideogen.errors import UserError

if TYPE_CHECKING:
    from dcvideogen.adaptation.cache import LatentCache


@dataclass(frozen=True)
class AlignedTokens:
    """Rows (..., P) of the new embedder's inputs and (..., Pb) of the base embedder's, pooled to the same tokens.

    An embedder is affine, so the base embedder of a pooled input is the pooled embedding: with these and the base
    weights the target is exact, and nothing here is as wide as the transformer.

    inputs, pooled: of the tokens that are past the frames left out. condition_inputs, condition_pooled: those of the
    frames left out, with latents of zero on both sides (None without a condition).
    base: (B, t, h, w, Pb) the base inputs before pooling, of the tokens of `pooled`. ratio: base tokens per new token.
    """

    inputs: Tensor
    pooled: Tensor
    base: Tensor
    ratio: Grid
    condition_inputs: Tensor | None = None
    condition_pooled: Tensor | None = None

    def all(self) -> tuple[Tensor, Tensor]:
        """Inputs and pooled inputs, of frames and condition together."""
        if self.condition_inputs is None:
            return self.inputs, self.pooled
        return (
            torch.cat([self.inputs, self.condition_inputs], dim=1),
            torch.cat([self.pooled, self.condition_pooled], dim=1),
        )


@dataclass(frozen=True)
class Pairing:
    """base_config, new_config: of the two transformers; backbone: of their family."""

    backbone: Backbone
    base_config: Config
    new_config: Config
    settings: AlignSettings

    def tokens(self, cache: LatentCache, indices: Sequence[int], device: torch.device) -> AlignedTokens:
        """Of clips of one shape, each row (clips, tokens, numbers).

        Raises UserError for token grids that do not divide, clips with no token past the frames left out, and numbers
        that are not finite.
        """
        pairs = cache.pairs(indices)
        latents, base_latents = pairs.latents.to(device).float(), pairs.base_latents.to(device).float()
        # A transformer without channels for it gets it in place of latents, which its embedder takes like any others.
        told = self.backbone.condition_channels(self.base_config) > 0
        condition, base_condition = (pairs.condition, pairs.base_condition) if told else (None, None)
        if condition is not None:
            condition, base_condition = condition.to(device).float(), base_condition.to(device).float()
        inputs = self._inputs(latents, condition, self.new_config)
        base = self._inputs(base_latents, base_condition, self.base_config)
        names = ", ".join(cache.clips[index].name for index in indices)
        if not (inputs.sum() + base.sum()).isfinite():  # one pass, where isfinite() of all makes two
            raise UserError(f"latents of {names} hold numbers that are not finite; remove the clip and cache it again")
        ratio = pool_ratio(base.shape[1:4], inputs.shape[1:4])
        patches = (self.backbone.patch_size(config) for config in (self.base_config, self.new_config))
        first = first_whole_token(self.settings.skip_latent_frames, ratio, *patches)
        if first >= inputs.shape[1]:
            raise UserError(
                f"{names}: {latents.shape[2]} latent frames came, and none is left after the first "
                f"{self.settings.skip_latent_frames}; align on longer clips"
            )
        rows = [inputs[:, first:], pool_tokens(base, ratio)[:, first:]]
        if condition is not None and self.settings.condition_tokens and first > 0:
            still = self._inputs(torch.zeros_like(latents), condition, self.new_config)
            base_still = self._inputs(torch.zeros_like(base_latents), base_condition, self.base_config)
            rows += [still[:, :first], pool_tokens(base_still, ratio)[:, :first]]
        inputs, pooled, *condition = (part.flatten(1, 3) for part in rows)
        return AlignedTokens(inputs, pooled, base[:, first * ratio[0] :], ratio, *condition)

    def mask_prior(self, base: AffineMap) -> Tensor | None:
        """(D, P) weights of the new embedder that are zero but for the mask channels; None for a model without a mask.

        Past the first frame the mask is 0, so no data say what its weights should be; but what the base embedder adds
        to a token where a mask channel is 1 is known exactly, the sum of that channel's weights over the base patch.
        The new embedder adds the same where the channel is 1, in equal shares over its own patch.
        """
        count = self._mask_channels(self.new_config)
        if count <= 0:
            return None
        device = base.weight.device
        nothing, *masks = torch.cat([torch.zeros(1, count), torch.eye(count)]).double().to(device)
        zero, base_zero = self._one_patch(nothing, self.new_config), self._one_patch(nothing, self.base_config)
        prior = base.weight.new_zeros(len(base.weight), len(zero))
        for mask in masks:
            columns = self._one_patch(mask, self.new_config) != zero
            added = base.weight @ (self._one_patch(mask, self.base_config) - base_zero)
            prior[:, columns] = (added / columns.sum())[:, None]
        return prior

    def _mask_channels(self, config: Config) -> int:
        """The condition's channels before its latents."""
        return self.backbone.condition_channels(config) - self.backbone.latent_channels(config)

    def _one_patch(self, mask: Tensor, config: Config) -> Tensor:
        """(P,) the embedder's inputs for one patch of zeros with a mask (channels,)."""
        latents = mask.new_zeros(1, self.backbone.latent_channels(config), *self.backbone.patch_size(config))
        condition = torch.cat([mask.view(1, -1, 1, 1, 1).expand(-1, -1, *latents.shape[2:]), latents], dim=1)
        return self._inputs(latents, condition, config).flatten()

    def _inputs(self, latents: Tensor, condition: Tensor | None, config: Config) -> Tensor:
        """(B, t, h, w, P)"""
        return self.backbone.embedder_inputs(self.backbone.model_input(latents, condition), config)
