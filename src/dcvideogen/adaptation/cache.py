"""The cache of a dataset as stages read it: latents, base latents, texts and image conditions, clip by clip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.cache_build import CACHE_INDEX, CacheReport, build_cache
from dcvideogen.adaptation.cache_data import CacheData
from dcvideogen.adaptation.cache_plan import CURRENT, PLAN, read_plan
from dcvideogen.adaptation.cache_records import FORMAT, Bucket, CacheInfo, Clip, Skipped, clip_of
from dcvideogen.adaptation.cache_settings import BucketSettings, CacheSettings
from dcvideogen.adaptation.cache_store import ShardStore
from dcvideogen.adaptation.text import pad_embeds
from dcvideogen.conditioning import condition
from dcvideogen.errors import UserError

__all__ = [
    "BucketSettings", "CacheData", "CacheInfo", "CacheReport", "CacheSettings", "Clip", "LatentCache",
    "PairBatch", "Skipped", "build_cache", "open_cache",
]  # fmt: skip


@dataclass(frozen=True)
class PairBatch:
    """The same clips in both latent spaces, fp32.

    latents (B, C, t, h, w), base_latents (B, Cb, tb, hb, wb), both normalised. With equal temporal ratios latent k >= 1
    of both covers the same frames; k = 0 does not, and is for the reader to leave out. condition, base_condition: the
    input channels behind them (mask, then condition latents), for image-to-video.
    """

    latents: Tensor
    base_latents: Tensor
    condition: Tensor | None
    base_condition: Tensor | None


class Store(Protocol):
    """Where the tensors are."""

    def clip(self, index: int, name: str) -> Tensor | None:
        """A tensor of a clip, without its batch dimension; None where the clip has none of this name."""
        ...

    def text(self, index: int) -> Tensor:
        """The embeddings (L, D) of a text, without padding; the null prompt is text 0."""
        ...


class LatentCache:
    """Clips of a dataset in latents. Threads may share it.

    clips: what is known of them; indices count in it. settings: those of CacheSettings that say what is in it, as plain
    values (none of a cache in memory).
    """

    def __init__(
        self,
        key: str,
        info: CacheInfo,
        clips: Sequence[Clip],
        texts: Sequence[str],
        store: Store,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.key, self.info, self.clips, self.settings = key, info, list(clips), settings or {}
        self._texts, self._store = {text: index for index, text in enumerate(texts)}, store
        self._null = texts[0]

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """(frames, height, width) of the clips, in pixels, each once."""
        return tuple(sorted({clip.bucket for clip in self.clips}))

    def indices(self, held_out: bool, aligned: bool | None = None, bucket: Bucket | None = None) -> list[int]:
        """Of the clips that are held out or not; with base latents, without, or either (None); of one bucket or all."""
        return [
            index
            for index, clip in enumerate(self.clips)
            if clip.held_out == held_out
            and (aligned is None or clip.aligned == aligned)
            and (bucket is None or clip.bucket == bucket)
        ]

    def batch(self, indices: Sequence[int], first: int = 0) -> LatentBatch:
        """Clips of one bucket, fp32, texts padded with zeros to info.max_sequence_length. ValueError for a mixture."""
        clips = self._of_one_bucket(indices)
        embeds, mask = self.prompts([clip.caption for clip in clips])
        latents = self._condition(indices, "condition")
        return LatentBatch(
            latents=self._stack(indices, "latents"),
            prompt_embeds=embeds,
            prompt_mask=mask,
            names=tuple(clip.name for clip in clips),
            condition=latents,
            image_embeds=self._stack(indices, "image_embeds") if self.info.image_encoder is not None else None,
            first=first,
        )

    def pairs(self, indices: Sequence[int]) -> PairBatch:
        """Clips of one bucket that have base latents, in both spaces; ValueError for others."""
        clips = self._of_one_bucket(indices)
        for clip in clips:
            if not clip.aligned:
                raise ValueError(f"{clip.name} has no base latents; those of indices(..., aligned=True) have")
        return PairBatch(
            self._stack(indices, "latents"),
            self._stack(indices, "base_latents"),
            self._condition(indices, "condition"),
            self._condition(indices, "base_condition"),
        )

    def prompts(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts of this cache -> embeddings (B, L, D) fp32 and mask (B, L); UserError for one that is not in it."""
        unknown = [caption for caption in captions if caption not in self._texts]
        if unknown:
            raise UserError(f"no embeddings of the text {unknown[0]!r} are cached; captions of its clips are allowed")
        texts = [self._store.text(self._texts[caption]).float() for caption in captions]
        return pad_embeds(texts, self.info.max_sequence_length)

    def null_prompt(self) -> tuple[Tensor, Tensor]:
        """Embeddings (L, D) and mask (L,) of the text that stands for none."""
        embeds, mask = self.prompts([self._null])
        return embeds[0], mask[0]

    def _of_one_bucket(self, indices: Sequence[int]) -> list[Clip]:
        clips = [self.clips[index] for index in indices]
        if len({clip.bucket for clip in clips}) != 1:
            raise ValueError(f"clips of {len({clip.bucket for clip in clips})} buckets in a batch; one is allowed")
        return clips

    def _condition(self, indices: Sequence[int], name: str) -> Tensor | None:
        return condition(self._stack(indices, name)) if self.info.image_to_video else None

    def _stack(self, indices: Sequence[int], name: str) -> Tensor:
        return torch.stack([self._store.clip(index, name) for index in indices]).float()


def open_cache(folder: Path, *, latent_space_id: str | None = None) -> LatentCache:
    """The cache in OUT/KEY, or in OUT the one that was built there last.

    Raises UserError when there is none, when it is not complete, broken, or of another latent space than
    `latent_space_id`, naming both.
    """
    folder = _find(Path(folder))
    try:
        index = json.loads((folder / CACHE_INDEX).read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise UserError(f"{folder} is a cache of format {index['format']}; {FORMAT} is read; make it anew")
        info, clips = CacheInfo(**index["info"]), [clip_of(values) for _, _, values in index["clips"]]
        places = [(file, row) for file, row, _ in index["clips"]]
        store = ShardStore(folder, index["key"], places, [clip.aligned for clip in clips], index["text_shards"])
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / CACHE_INDEX} is not readable ({error}); run `dcvideogen cache` again: it writes it anew"
        ) from error
    if latent_space_id is not None and latent_space_id != info.latent_space_id:
        raise UserError(
            f"{folder} holds latents of the space {info.latent_space_id}; {latent_space_id} is needed; cache the "
            "dataset with the autoencoder of that space"
        )
    return LatentCache(index["key"], info, clips, index["texts"], store, index["settings"])


def _find(folder: Path) -> Path:
    if (folder / CURRENT).is_file():
        folder = folder / (folder / CURRENT).read_text(encoding="utf-8").strip()
    if (folder / CACHE_INDEX).is_file():
        return folder
    begun = [folder] if (folder / PLAN).is_file() else [path.parent for path in sorted(folder.glob(f"*/{PLAN}"))]
    if begun:
        shards = read_plan(begun[-1]).shards
        there = sum((begun[-1] / shard.file_name(index)).is_file() for index, shard in enumerate(shards))
        raise UserError(
            f"{begun[-1]} is a cache that is not complete ({there} of {len(shards)} shards); run `dcvideogen cache` "
            "again: it goes on"
        )
    raise UserError(f"{folder} holds no cache; `dcvideogen cache` makes one")
