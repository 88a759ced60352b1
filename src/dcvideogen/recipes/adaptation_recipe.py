"""The recipe of `dcvideogen adapt`: one file that moves a video diffusion transformer to another autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dcvideogen.adaptation.align_settings import AlignSettings
from dcvideogen.adaptation.cache_settings import BucketSettings, CacheSettings
from dcvideogen.adaptation.export import ExportSettings
from dcvideogen.adaptation.flow_settings import FlowSettings
from dcvideogen.adaptation.folder import SamplingDefaults
from dcvideogen.adaptation.head_settings import HeadSettings
from dcvideogen.adaptation.lora import LoraSettings
from dcvideogen.conditioning import FirstLatent
from dcvideogen.data.settings import Frozen
from dcvideogen.training.settings import FitSettings
from dcvideogen.weights import resolve_pipeline

CACHE, ALIGN, HEAD, EXPORT = "cache", "align", "head", "export"
RESERVED = (CACHE, ALIGN, HEAD, EXPORT)
# Written once, at the top of a recipe, and part of the cache's settings.
SHARED = ("base", "autoencoder")


class StageData(Frozen):
    """Clips of a stage that are not those of the recipe's `cache`: they get a cache of their own, `cache-STAGE`.

    What is None is as there.
    """

    source: Path | None = None
    buckets: BucketSettings | None = None
    num_frames: int | None = Field(default=None, gt=0)


class TuneStage(Frozen):
    """Training of the whole transformer at one size, by flow matching.

    name: of its folder. data: None: the recipe's `cache`. flow: how noise is drawn, and how often text is dropped.
    batch_size: clips per step, over all processes together, all of one size.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    data: StageData | None = None
    flow: FlowSettings = FlowSettings()
    batch_size: int = Field(gt=0)
    train: FitSettings


class AdaptationRecipe(Frozen):
    """A complete run of `dcvideogen adapt`: cache, align, head, the stages one after another, export.

    base: the folder of a diffusers pipeline (or a bundled one's name) whose transformer is moved; one with two experts
    (`transformer_2`) has both moved, each in its own range of noise. autoencoder: the one to move to, a folder or a
    bundled name. patch_size: of the new transformer, (frames, rows, columns) of latents per token. positions:
    "integer" counts the new tokens as the base model counts its own (the authors' way); "base_grid" puts each at the
    centre of the base tokens that it replaces. first_latent: "given" for an image-to-video model whose first latent is
    the image's own, and is not generated. seed: of embedder, head and LoRA before they are fitted.
    dtype: of the weights that a stage does not train; those that it trains are fp32.
    lora: of all stages; None: all weights are trained. stages: the first one is called "lora" in the paper's scheme,
    and those that follow repeat it at larger sizes. sampling: what the export recommends to those who generate.
    """

    base: Path
    autoencoder: str
    patch_size: tuple[int, int, int] = (1, 1, 1)
    positions: Literal["integer", "base_grid"] = "integer"
    first_latent: FirstLatent = "generated"
    seed: int = 0
    dtype: Literal["fp32", "bf16"] = "bf16"
    cache: CacheSettings
    align: AlignSettings = AlignSettings()
    head: HeadSettings = HeadSettings()
    lora: LoraSettings | None = LoraSettings()
    stages: tuple[TuneStage, ...] = ()
    sampling: SamplingDefaults = SamplingDefaults()
    export: ExportSettings = ExportSettings()

    @model_validator(mode="before")
    @classmethod
    def _share(cls, values: Any) -> Any:
        """Gives the cache what stands at the top."""
        cache = values.get(CACHE) if isinstance(values, dict) else None
        if not isinstance(cache, dict):
            return values
        for name in SHARED:
            if name in cache and name in values and str(cache[name]) != str(values[name]):
                raise ValueError(f"cache.{name} is {cache[name]} and {name} is {values[name]}; leave the first one out")
        return {**values, CACHE: {**{name: values[name] for name in SHARED if name in values}, **cache}}

    @field_validator("base")
    @classmethod
    def _find_bundled(cls, base: Path) -> Path:
        return resolve_pipeline(base)

    @field_validator("patch_size")
    @classmethod
    def _at_least_one(cls, size: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(size) < 1:
            raise ValueError(f"{list(size)} came; numbers of at least 1 are allowed")
        return size

    @model_validator(mode="after")
    def _check(self) -> Self:
        loops = {} if self.lora is None else {f"stages.{stage.name}.train": stage.train for stage in self.stages}
        loops |= {} if self.head.sgd is None else {"head.sgd": self.head.sgd}
        for name, loop in loops.items():
            if self.dtype == "bf16" and loop.precision == "fp32":
                raise ValueError(f"{name}.precision is fp32 and dtype bf16; set the first to bf16, or dtype to fp32")
        if self.first_latent == "given" and not (self.cache.image_to_video and self.cache.image_condition == "alone"):
            raise ValueError(
                "first_latent is given, which needs the image's own latent; set cache.image_to_video to true and "
                "cache.image_condition to alone"
            )
        if self.first_latent == "given" and self.sampling.image_guidance > 1:
            raise ValueError("sampling.image_guidance came with a first latent that is given; leave it out")
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1 or name in RESERVED or name.startswith(f"{CACHE}-"):
                raise ValueError(
                    f"a stage is called {name!r}; names must differ, not be {', '.join(RESERVED)}, and not begin with "
                    f"{CACHE}-"
                )
        return self

    def cache_of(self, stage: TuneStage) -> tuple[str, CacheSettings]:
        """The name of the cache that a stage is trained on, and its settings; base latents are for the alignment alone,
        so a stage's own cache has none."""
        if stage.data is None:
            return CACHE, self.cache
        changes = {name: value for name, value in stage.data if value is not None}
        changes |= {"alignment_clips": 0, "alignment_held_out": 0}
        return f"{CACHE}-{stage.name}", self.cache.model_copy(update=changes)
