"""The models of an adaptation recipe as far as their configurations tell: nothing is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.backbones import backbone_of
from dcvideogen.adaptation.base_autoencoder import base_sizes
from dcvideogen.adaptation.buckets import Size, bucket_sizes
from dcvideogen.adaptation.cache_settings import CacheSettings
from dcvideogen.adaptation.fingerprints import read_config
from dcvideogen.adaptation.folder import expert_names, expert_sigmas
from dcvideogen.adaptation.on_meta import transformer_on_meta
from dcvideogen.adaptation.positions import Ratio, position_ratio
from dcvideogen.adaptation.surgery import move_transformer
from dcvideogen.adaptation.time_windows import TimeLayout, time_offset
from dcvideogen.autoencoder.loading import check_model_folder
from dcvideogen.errors import UserError
from dcvideogen.recipes.adaptation_recipe import AdaptationRecipe
from dcvideogen.weights import resolve_model

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Space:
    """Latents of an autoencoder: channels, pixels per latent along height and width, and how it cuts time."""

    channels: int
    spatial_ratio: int
    layout: TimeLayout

    def grid(self, num_frames: int, size: Size) -> Grid:
        """(t, h, w); both sides must be multiples of the spatial ratio."""
        return self.layout.num_latents(num_frames), size[0] // self.spatial_ratio, size[1] // self.spatial_ratio


@dataclass(frozen=True)
class Models:
    """configs: of the base's transformers, by their subfolder; sigmas: the noise levels that each is asked for.

    base_space: of the base's own autoencoder; space: of the new one, `autoencoder` its configuration. backbone: the
    transformers' family. text_width: numbers per text token. patch_size: of the new transformer.
    notes: what was taken for granted where a folder is not there.
    """

    backbone: Backbone
    configs: dict[str, dict[str, Any]]
    sigmas: dict[str, tuple[float, float]]
    base_space: Space
    autoencoder: dict[str, Any]
    text_width: int
    patch_size: Grid
    notes: tuple[str, ...] = ()
    _built: dict[Any, nn.Module] = field(default_factory=dict, repr=False, compare=False)

    @property
    def space(self) -> Space:
        return space_of(self.autoencoder)

    @property
    def image_to_video(self) -> bool:
        return self.backbone.condition_channels(next(iter(self.configs.values()))) > 0

    @property
    def base_patch(self) -> Grid:
        return self.backbone.patch_size(next(iter(self.configs.values())))

    def base_on_meta(self, expert: str) -> nn.Module:
        """Built once, which takes seconds; to be left as it is."""
        key = ("base", repr(self.configs[expert]))
        if key not in self._built:
            self._built[key] = transformer_on_meta(self.configs[expert]).requires_grad_(False)
        return self._built[key]

    def new_on_meta(self, expert: str) -> nn.Module:
        """The same of the new transformer."""
        key = ("new", repr(self.configs[expert]))
        if key not in self._built:
            channels = self.space.channels
            base = self.base_on_meta(expert)
            self._built[key] = move_transformer(
                base, self.backbone, latent_channels=channels, patch_size=self.patch_size, seed=0
            ).requires_grad_(False)
        return self._built[key]

    def position_ratio(self) -> Ratio:
        """Base tokens per new token along frames, height and width."""
        ratios = [(space.layout.ratio, space.spatial_ratio) for space in (self.base_space, self.space)]
        return position_ratio(self.base_patch, ratios[0], self.patch_size, ratios[1])

    def base_frames(self, num_frames: int) -> int:
        """Frames of a clip that the base autoencoder sees when latents are paired by their windows in time."""
        return num_frames - time_offset(self.base_space.layout, self.space.layout)

    def tokens(self, num_frames: int, size: Size) -> Grid:
        """Of the new transformer for a clip of `size` = (height, width) pixels."""
        return cut(self.space.grid(num_frames, size), self.patch_size)

    def base_tokens(self, num_frames: int, size: Size) -> Grid:
        """Of the base for the same clip, with the frames that it can take: 1 + a multiple of its ratio."""
        layout = self.base_space.layout
        frames = num_frames + 1 if layout.lone_first and num_frames % layout.ratio == 0 else num_frames
        return cut(self.base_space.grid(frames, size), self.base_patch)


def cut(grid: Grid, patch: Grid) -> Grid:
    """Tokens of a latent grid; what does not fill a patch is left out (`check_sizes` refuses it)."""
    return tuple(size // step for size, step in zip(grid, patch, strict=True))


def models_of(recipe: AdaptationRecipe, autoencoder: dict[str, Any] | None = None) -> Models:
    """From the folders that a recipe names; `autoencoder` instead of the configuration in its folder. Raises UserError
    for a base without a transformer or a configuration, an unknown family, and an autoencoder that is none."""
    base = recipe.base
    if not base.is_dir():
        raise UserError(f"base {base}: no such folder; give the folder of a diffusers pipeline, --set base=FOLDER")
    configs = {}
    for name in expert_names(base):
        if not (base / name).is_dir():
            raise UserError(f"{base} has no {name}/; a base is a pipeline's folder in diffusers' layout")
        configs[name] = read_config(base / name)
    backbone = backbone_of(next(iter(configs.values())))
    return Models(
        backbone,
        configs,
        expert_sigmas(base),
        Space(*base_sizes(base / "vae")),
        own_fields(recipe.autoencoder) if autoencoder is None else autoencoder,
        text_width(read_config(base / "text_encoder")),
        recipe.patch_size,
    )


def own_fields(name: str) -> dict[str, Any]:
    """The configuration of one of our autoencoders; UserError when there is none."""
    folder = resolve_model(name)
    check_model_folder(folder)
    return {key: value for key, value in read_config(folder).items() if not key.startswith("_")}


def text_width(config: dict[str, Any]) -> int:
    """Of a text encoder's config.json: T5 calls it d_model, others hidden_size."""
    width = config.get("d_model") or config.get("hidden_size")
    if not isinstance(width, int):
        raise UserError("the base's text_encoder/config.json states no d_model or hidden_size; get the folder again")
    return width


def space_of(fields: dict[str, Any]) -> Space:
    """Of the configuration of one of our autoencoders."""
    spatial, temporal = (math.prod(fields[key]) for key in ("spatial_factors", "temporal_factors"))
    return Space(fields["latent_channels"], spatial, TimeLayout(temporal, lone_first=False))


def sizes_of(settings: CacheSettings, models: Models) -> tuple[Size, ...]:
    """(height, width) of all buckets of a cache."""
    wanted = settings.buckets
    multiple = wanted.multiple or math.lcm(models.space.spatial_ratio, models.base_space.spatial_ratio)
    return bucket_sizes(
        wanted.height, wanted.width, multiple, min_aspect=wanted.min_aspect, max_aspect=wanted.max_aspect
    )


def check_sizes(name: str, settings: CacheSettings, models: Models) -> None:
    """Raises UserError where latents of the buckets of cache `name` do not fill whole patches, or where the base's
    tokens cannot be pooled to the new ones."""
    height, width = (models.patch_size[axis] * models.space.spatial_ratio for axis in (1, 2))
    frames = models.patch_size[0] * models.space.layout.ratio
    base_height, base_width = (models.base_patch[axis] * models.base_space.spatial_ratio for axis in (1, 2))
    if settings.num_frames % frames:
        raise UserError(
            f"{name}.num_frames {settings.num_frames} came; multiples of {frames} are allowed, for latents of "
            f"{models.space.layout.ratio} frames in patches of {models.patch_size[0]}"
        )
    both = math.lcm(models.space.spatial_ratio, models.base_space.spatial_ratio)
    if settings.buckets.multiple is not None and settings.buckets.multiple % both:
        raise UserError(
            f"{name}.buckets.multiple {settings.buckets.multiple} came; multiples of {both} are allowed, for latents "
            f"of {models.space.spatial_ratio} and of {models.base_space.spatial_ratio} pixels"
        )
    for size in sizes_of(settings, models):
        if size[0] % height or size[1] % width:
            raise UserError(
                f"{name}: clips of {size[0]}x{size[1]} pixels do not fill whole patches of {height}x{width} pixels; "
                f"set {name}.buckets.multiple to a multiple of {math.lcm(height, width)}"
            )
    base_frames = models.base_patch[0] * models.base_space.layout.ratio
    new, base = (frames, height, width), (base_frames, base_height, base_width)
    if settings.alignment_clips and any(own % other for own, other in zip(new, base, strict=True)):
        raise UserError(
            f"a new token covers {frames} frames of {height}x{width} pixels and a base token {base_frames} frames of "
            f"{base_height}x{base_width}; only whole base tokens can be pooled to a new one: choose another patch_size "
            "or autoencoder"
        )
