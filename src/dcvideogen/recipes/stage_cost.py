"""What the stages of an adaptation train and compute, counted on one clip with the recipe's real sizes."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dcvideogen.adaptation.adapter_folder import ends_of
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.cache_settings import CacheSettings
from dcvideogen.adaptation.lora import add_lora
from dcvideogen.adaptation.transformer_cost import Cost, cost_of
from dcvideogen.recipes.adaptation_models import Grid, Models, sizes_of
from dcvideogen.recipes.adaptation_recipe import AdaptationRecipe

IMAGE_TOKENS = 257  # of CLIP ViT-H/14, which is what Wan models are shown


@dataclass(frozen=True)
class Size:
    """A transformer's parameters: all of its own, and what a stage trains beside or among them."""

    total: int
    trained: int
    lora: int
    cost: Cost


class StageCosts:
    """Of the first expert; the others have the same sizes. Networks are made once, on the meta device."""

    def __init__(self, recipe: AdaptationRecipe, models: Models) -> None:
        self.recipe, self.models = recipe, models
        self.expert = next(iter(models.configs))

    @functools.cached_property
    def all_trainable(self) -> nn.Module:
        """With what the recipe's stages train, through LoRA or in full."""
        network = copy.deepcopy(self.models.new_on_meta(self.expert))
        if self.recipe.lora is None:
            return network.requires_grad_(True)
        add_lora(network, self.models.backbone, self.recipe.lora)
        return network

    @functools.cached_property
    def ends_trainable(self) -> nn.Module:
        network = copy.deepcopy(self.models.new_on_meta(self.expert))
        for parameter in ends_of(network, self.models.backbone):
            network.get_parameter(parameter).requires_grad_(True)
        return network

    def of(self, network: nn.Module, settings: CacheSettings) -> Size:
        """A transformer on meta, on one clip."""
        total = count(self.models.new_on_meta(self.expert))
        batch = batch_on_meta(self.models, self.expert, settings, self.size_of(settings))

        def velocity(transformer: nn.Module) -> Tensor:
            sigma = torch.empty(1, device="meta")
            return self.models.backbone.velocity(transformer, batch.latents, sigma, batch)

        return Size(total, count(network, trained=True), count(network) - total, cost_of(network, velocity))

    def size_of(self, settings: CacheSettings) -> tuple[int, int]:
        """The bucket with the most tokens."""
        return max(
            sizes_of(settings, self.models), key=lambda size: product(self.models.tokens(settings.num_frames, size))
        )


def batch_on_meta(models: Models, expert: str, settings: CacheSettings, size: tuple[int, int]) -> LatentBatch:
    """A clip as a stage sees it, without numbers."""
    config, grid = models.configs[expert], models.space.grid(settings.num_frames, size)
    new = models.backbone.with_latents(
        config, latent_channels=models.space.channels, patch_size=models.patch_size, condition=models.image_to_video
    )
    channels = models.backbone.condition_channels(new)
    width, pooled = config.get("image_dim"), config.get("pooled_projection_dim")
    text = settings.max_sequence_length
    with torch.device("meta"):
        return LatentBatch(
            latents=torch.empty(1, models.space.channels, *grid),
            prompt_embeds=torch.empty(1, text, models.text_width),
            prompt_mask=torch.empty(1, text, dtype=torch.bool),
            names=("clip",),
            condition=torch.empty(1, channels, *grid) if channels else None,
            image_embeds=torch.empty(1, IMAGE_TOKENS, width) if width else None,
            pooled_embeds=torch.empty(1, pooled) if pooled else None,
        )


def count(network: nn.Module, *, trained: bool = False) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trained)


def product(grid: Grid) -> int:
    return math.prod(grid)
