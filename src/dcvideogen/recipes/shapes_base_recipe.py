"""The recipe of the shapes world's base model."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from dcvideogen.adaptation.cache_settings import CacheSettings
from dcvideogen.adaptation.flow_settings import FlowSettings
from dcvideogen.adaptation.lora import LoraSettings
from dcvideogen.data.settings import Frozen
from dcvideogen.training.settings import FitSettings


class VaeSettings(Frozen):
    """batch_size, num_frames (1 + 4 n), size: of the crops, in frames and pixels. clip_size: of the clips that they
    come from, and of those that are measured on. decoder_only: see `VaeTask`."""

    batch_size: int = Field(gt=0)
    num_frames: int = Field(gt=0)
    size: int = Field(gt=0)
    clip_size: int = Field(default=128, gt=0)
    decoder_only: bool
    train: FitSettings


class TransformerStage(Frozen):
    """size: of the clips in pixels. batch_size: clips per step."""

    size: int = Field(gt=0)
    flow: FlowSettings
    batch_size: int = Field(gt=0)
    train: FitSettings


class TransformerSettings(Frozen):
    """num_layers, num_attention_heads, attention_head_dim, ffn_dim: as in diffusers' WanTransformer3DModel.

    stages: small clips first, as large models are trained: a quarter of the tokens teach most of what there is to know.
    lora: train that, the embedder and the head alone, so that what was learned is a small file; None: all weights.
    """

    num_layers: int = Field(default=7, gt=0)
    num_attention_heads: int = Field(default=6, gt=0)
    attention_head_dim: int = Field(default=32, gt=0)
    ffn_dim: int = Field(default=640, gt=0)
    lora: LoraSettings | None = None
    stages: tuple[TransformerStage, ...] = Field(min_length=1)


class ShapesBaseRecipe(Frozen):
    """A complete run of `dcvideogen shapes train-base`. clips: to train on, see `dcvideogen shapes render`.

    start: a pipeline's folder, or the name of a bundled one, whose transformer is trained further, in its own latents;
        `text` and `vae`, which make the other parts, are left out then. None: all parts from random weights. With
        cache.image_to_video it learns to begin with an image.
    text_batch_size: captions per step. cache: its `base`, `source` and `buckets` are filled in by the run.
    """

    clips: Path
    start: Path | None = None
    text: FitSettings | None = None
    text_batch_size: int = Field(default=64, gt=0)
    vae: tuple[VaeSettings, ...] = ()
    cache: CacheSettings
    transformer: TransformerSettings

    @model_validator(mode="after")
    def _check(self) -> Self:
        made = self.text is not None and bool(self.vae)
        if self.start is None and not made:
            raise ValueError("without start, text and vae are needed: they make the text encoder and the autoencoder")
        if self.start is not None and (self.text is not None or self.vae):
            raise ValueError("start came beside text or vae; what is started from has both, leave them out")
        return self
