"""What a cache will take, in bytes and seconds, before it is made: counted where it can be, measured on one clip."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from dcvideogen.adaptation.cache_encode import DTYPES, ClipEncoder, find_device
from dcvideogen.adaptation.cache_plan import Plan, make_plan
from dcvideogen.adaptation.cache_records import CacheInfo, Clip
from dcvideogen.adaptation.cache_settings import CacheSettings
from dcvideogen.adaptation.cache_shards import is_whole, read_clips
from dcvideogen.adaptation.text import load_text_encoder
from dcvideogen.adaptation.time_windows import TimeLayout
from dcvideogen.errors import UserError

GIB = 2**30
_SAMPLE_TEXTS = 16


@dataclass(frozen=True)
class CacheEstimate:
    """clips: to encode, of `all_clips`. seconds: of one process, for what is missing; seconds_per_clip, _aligned:
    measured on one clip, without and with base latents, decoding included. bytes: of the whole cache.
    """

    plan: Plan
    clips: int
    all_clips: int
    missing_shards: int
    bytes: int
    seconds: float
    seconds_per_clip: float
    seconds_per_aligned: float
    seconds_per_text: float


def estimate(settings: CacheSettings, folder: Path) -> CacheEstimate:
    """Plans the cache in `folder` and encodes one clip and some texts; UserError as build_cache, or if it breaks."""
    plan = make_plan(settings, folder)
    place = folder / plan.key
    missing = [
        shard for index, shard in enumerate(plan.shards) if not is_whole(place / shard.file_name(index), plan.key)
    ]
    left = [item.clip for s in missing if s.kind == "clips" for item in plan.clips[s.start : s.stop]]
    texts = sum(s.stop - s.start for s in missing if s.kind == "texts")
    plain, with_base, image_bytes = _measure_clip(settings, plan)
    per_text, text_bytes = _measure_texts(settings, plan)
    aligned = sum(clip.aligned for clip in left)
    total = sum(clip_bytes(settings, plan.info, item.clip) + image_bytes for item in plan.clips)
    return CacheEstimate(
        plan=plan,
        clips=len(left),
        all_clips=len(plan.clips),
        missing_shards=len(missing),
        bytes=total + round(text_bytes * len(plan.texts)),
        seconds=plain * (len(left) - aligned) + with_base * aligned + per_text * texts,
        seconds_per_clip=plain,
        seconds_per_aligned=with_base,
        seconds_per_text=per_text,
    )


def clip_bytes(settings: CacheSettings, info: CacheInfo, clip: Clip) -> int:
    """Of the latents of a clip as they are stored, those of conditions included; image embeddings are not."""
    frames, height, width = clip.bucket
    base_frames = TimeLayout(info.base_temporal_ratio, lone_first=True).num_latents(frames - info.time_offset)
    base_grid = base_frames * (height // info.base_spatial_ratio) * (width // info.base_spatial_ratio)
    base = info.base_latent_channels * base_grid
    own = info.latent_channels * (frames // info.temporal_ratio) * (height // info.spatial_ratio)
    own *= width // info.spatial_ratio
    if settings.autoencoder is None:
        own = base
    numbers = own + base * clip.aligned
    return numbers * (2 if info.image_to_video else 1) * DTYPES[settings.stored_dtype].itemsize


def check_space(settings: CacheSettings, plan: Plan, place: Path) -> None:
    """UserError when the latents that are missing do not fit on the disk."""
    needed = sum(
        clip_bytes(settings, plan.info, item.clip)
        for index, shard in enumerate(plan.shards)
        if shard.kind == "clips" and not (place / shard.file_name(index)).exists()
        for item in plan.clips[shard.start : shard.stop]
    )
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"the cache needs {needed / GIB:.3g} GiB more in {place}, where {free / GIB:.3g} GiB are free; free some "
            "space, or give another output folder"
        )


def _measure_clip(settings: CacheSettings, plan: Plan) -> tuple[float, float, int]:
    """(seconds of a clip, of one with base latents, bytes of its image embeddings)."""
    encoder = ClipEncoder(settings, plan.info)
    began = time.monotonic()
    clips, video, broken = next(read_clips(settings, plan.clips[:1]))
    decoding = time.monotonic() - began
    if not clips:
        raise UserError(f"{plan.clips[0].clip.name}: {next(iter(broken.values()))[1]}; mend or remove it")
    encoder.encode(video, torch.tensor([settings.autoencoder is not None]))  # loads the networks, and warms them up
    seconds = []
    for aligned in (False, True):
        began = time.monotonic()
        encoded = encoder.encode(video, torch.tensor([aligned and settings.autoencoder is not None]))
        seconds.append(decoding + time.monotonic() - began)
    images = encoded.get("image_embeds")
    size = 0 if images is None else images.numel() * DTYPES[settings.stored_dtype].itemsize
    return seconds[0], max(seconds), size


def _measure_texts(settings: CacheSettings, plan: Plan) -> tuple[float, float]:
    """(seconds of a text, mean bytes of its embeddings)."""
    encoder = load_text_encoder(
        settings.base,
        max_sequence_length=settings.max_sequence_length,
        device=find_device(settings.device),
        dtype=DTYPES[settings.dtype],
    )
    texts = plan.texts[:_SAMPLE_TEXTS]
    began = time.monotonic()
    embeds = encoder.encode(texts)
    seconds = time.monotonic() - began
    size = sum(text.numel() for text in embeds) * DTYPES[settings.stored_dtype].itemsize
    return seconds / len(texts), size / len(texts)
