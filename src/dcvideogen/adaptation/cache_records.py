"""What a cache says about itself: the latents' spaces, the clips, and those that were left out."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from dcvideogen.data.index import Record, parse_record

FORMAT = "dcvideogen.cache/1"
METADATA = "dcvideogen.cache"  # where a shard says whose it is, as JSON
Bucket = tuple[int, int, int]


@dataclass(frozen=True)
class CacheInfo:
    """What the tensors of a cache are.

    latent_space_id, latent_channels, spatial_ratio, temporal_ratio: of `latents`; pixels and frames per latent.
    base_*: of `base_latents`, and of the base model's autoencoder in any case; base_space_id names its weights.
    time_offset: frames of a clip that the base autoencoder did not see, at its start. image_to_video: there are
    condition latents. max_sequence_length: tokens of a padded text. text_encoder, image_encoder: fingerprints (None:
    the base has no image encoder, or it was not asked).
    """

    latent_space_id: str
    latent_channels: int
    spatial_ratio: int
    temporal_ratio: int
    base_space_id: str
    base_latent_channels: int
    base_spatial_ratio: int
    base_temporal_ratio: int
    time_offset: int
    image_to_video: bool
    max_sequence_length: int
    text_encoder: str
    image_encoder: str | None = None


@dataclass(frozen=True)
class Clip:
    """key: changes with content, part, size and caption. name: of the file, for messages. bucket: (frames, height,
    width) in pixels. held_out: never trained on. aligned: it has base latents."""

    key: str
    name: str
    caption: str
    bucket: Bucket
    held_out: bool
    aligned: bool


@dataclass(frozen=True)
class PlannedClip:
    """A clip that is to be encoded: `first_frame` counts from the start of the record's part, at the cache's rate;
    `fps`: the rate to resample to, None for the file's own."""

    clip: Clip
    record: Record
    first_frame: int
    fps: float | None

    def line(self) -> str:
        fields = {"clip": dataclasses.asdict(self.clip), "record": json.loads(self.record.line())}
        return json.dumps({**fields, "first_frame": self.first_frame, "fps": self.fps})


def parse_planned(text: str) -> PlannedClip:
    values = json.loads(text)
    return PlannedClip(
        clip_of(values["clip"]), parse_record(json.dumps(values["record"])), values["first_frame"], values["fps"]
    )


def clip_of(values: dict[str, Any]) -> Clip:
    return Clip(**{**values, "bucket": tuple(values["bucket"])})


@dataclass(frozen=True)
class Skipped:
    """A file or clip that is not in the cache, and why: the reasons of `dcvideogen data check`, and the cache's own."""

    name: str
    reason: str
    detail: str
