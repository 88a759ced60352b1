"""What is cached, and how: the settings of `dcvideogen cache` and of a recipe's first stage."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dcvideogen.conditioning import ImageCondition
from dcvideogen.data.settings import CheckSettings, Frozen, Pixels
from dcvideogen.weights import resolve_pipeline

Dtype = Literal["fp32", "bf16"]
StoredDtype = Literal["fp32", "fp16", "bf16"]
# How and where it is made, not what: a cache with others of these is the same one.
NOT_IN_KEY = ("source", "autoencoder", "base", "check", "device", "rows_per_step")


class BucketSettings(Frozen):
    """The sizes that clips are brought to (shorter side resized, centre cropped), see `buckets.bucket_sizes`.

    height, width: pixels; their product is the area of all sizes. multiple: of the sides; None: the smallest number
    that the spatial ratios of both autoencoders divide. min_aspect, max_aspect: height / width.
    """

    height: Pixels = 480
    width: Pixels = 832
    multiple: Pixels | None = None
    min_aspect: float = Field(default=0.5, gt=0)
    max_aspect: float = Field(default=2.0, gt=0)


class CacheSettings(Frozen):
    """A cache of latents and text embeddings.

    source: a folder of videos, a manifest (.jsonl, .csv with path, caption, start, end), or a tar shard. check: what a
    file must be; None: the index of `dcvideogen data check` where the source has one, else its rules without the one
    against videos that stand still (a caption may well say so).
    autoencoder: ours, a folder or a bundled name; None: the base model's own autoencoder gives the latents, to train
    in its space. base: a diffusers pipeline folder (or a bundled one's name) with text_encoder, tokenizer, vae, and for
    image-to-video image_encoder and image_processor if the model has them.

    num_frames: of a clip, a multiple of both temporal ratios. fps: to which videos are resampled; None: all frames, at
    any rate. clips_per_video: at most so many, one behind the other. split_at_cuts: no clip goes across a scene cut.
    buckets: sizes. require_captions: files without a caption are left out; otherwise theirs is empty.
    held_out: clips that are never trained on, a number or a share; all clips of one file together, by a hash of it.
    alignment_clips, alignment_held_out: so many training and held-out clips get base latents too.
    match_time_windows: the base autoencoder begins `time_windows.time_offset` frames later, so that latent k of both
    covers the same frames; False: both begin at frame 0, as the authors' code does, with windows 3 frames apart.
    null_prompt: the text that stands for no text (the authors': Wan's negative prompt). max_sequence_length: tokens.
    image_to_video: cache the latents of the first image, and its embedding where the base has an image encoder.
    image_condition: how our autoencoder makes the former, see `conditioning.condition_latents`; the base's own makes
    them as it always did.
    dtype: in which our autoencoder and the text and image encoders run (the base autoencoder runs in fp32, as its
    latents are targets). stored_dtype: of what is written. clips_per_shard: of one file of the cache.
    device: cpu, cuda, cuda:1, or auto. rows_per_step: see AutoencoderDCV.encode.
    """

    source: Path
    check: CheckSettings | None = None
    autoencoder: str | None = None
    base: Path

    num_frames: int = Field(default=80, gt=0)
    fps: float | None = Field(default=16.0, gt=0)
    clips_per_video: int = Field(default=1, gt=0)
    split_at_cuts: bool = True
    buckets: BucketSettings = BucketSettings()
    require_captions: bool = True

    held_out: Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)] = 0.02
    alignment_clips: int = Field(default=256, ge=0)
    alignment_held_out: int = Field(default=32, ge=0)
    match_time_windows: bool = True

    null_prompt: str = ""
    max_sequence_length: int = Field(default=512, gt=0)
    image_to_video: bool = False
    image_condition: ImageCondition = "zeros"

    dtype: Dtype = "fp32"
    stored_dtype: StoredDtype = "fp16"
    clips_per_shard: int = Field(default=64, gt=0)
    device: str = "auto"
    rows_per_step: int | None = Field(default=None, gt=0)

    @field_validator("base")
    @classmethod
    def _find_bundled(cls, base: Path) -> Path:
        return resolve_pipeline(base)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.image_condition != "zeros" and not (self.image_to_video and self.autoencoder):
            raise ValueError(
                f"image_condition {self.image_condition} came without image_to_video or an autoencoder of ours; give "
                "both, or leave it at zeros"
            )
        return self

    def content(self) -> dict[str, Any]:
        """The settings that change what is in a cache, as plain values."""
        # A setting that came later is none where it changes nothing, so that caches keep their keys.
        later = {"image_condition"} if self.image_condition == "zeros" else set()
        return self.model_dump(mode="json", exclude={*NOT_IN_KEY, *later})


def digest(content: Any, length: int = 12) -> str:
    """Of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:length]
