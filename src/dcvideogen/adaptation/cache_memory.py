"""A cache without files, from tensors that are in memory: for studies and tests of what reads caches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dcvideogen.adaptation.cache import LatentCache
from dcvideogen.adaptation.cache_records import CacheInfo, Clip
from dcvideogen.adaptation.cache_settings import digest


class MemoryStore:
    """tensors: name -> one per clip, or None. texts: embeddings (L, D) each, the null prompt first."""

    def __init__(self, tensors: dict[str, Sequence[Tensor | None]], texts: Sequence[Tensor]) -> None:
        self._tensors, self._texts = tensors, texts

    def clip(self, index: int, name: str) -> Tensor | None:
        return self._tensors[name][index]

    def text(self, index: int) -> Tensor:
        return self._texts[index]


def memory_cache(
    latents: Sequence[Tensor],
    captions: Sequence[str],
    texts: dict[str, Tensor],
    *,
    null_prompt: str = "",
    base_latents: Sequence[Tensor | None] | None = None,
    condition: Sequence[Tensor] | None = None,
    base_condition: Sequence[Tensor | None] | None = None,
    image_embeds: Sequence[Tensor] | None = None,
    held_out: Sequence[bool] | None = None,
    spatial_ratios: tuple[int, int] = (32, 8),
    temporal_ratios: tuple[int, int] = (4, 4),
    latent_space_id: str = "memory",
    max_sequence_length: int = 512,
) -> LatentCache:
    """A LatentCache of clips whose normalised latents (C, t, h, w) are given, a caption and whatever else for each.

    texts: caption -> embeddings (L, D), the null prompt's among them. base_latents: None for clips that are not
    aligned. condition, base_condition: latents of condition videos, without the mask. held_out: none when left out.
    spatial_ratios, temporal_ratios: of the new and the base latents; buckets follow from the new ones.
    """
    count = len(latents)
    base = list(base_latents) if base_latents is not None else [None] * count
    first_base = next((tensor for tensor in base if tensor is not None), None)
    info = CacheInfo(
        latent_space_id=latent_space_id,
        latent_channels=latents[0].shape[0],
        spatial_ratio=spatial_ratios[0],
        temporal_ratio=temporal_ratios[0],
        base_space_id="memory-base",
        base_latent_channels=0 if first_base is None else first_base.shape[0],
        base_spatial_ratio=spatial_ratios[1],
        base_temporal_ratio=temporal_ratios[1],
        time_offset=temporal_ratios[1] - 1,
        image_to_video=condition is not None,
        max_sequence_length=max_sequence_length,
        text_encoder="memory",
        image_encoder=None if image_embeds is None else "memory",
    )
    clips = [
        Clip(
            key=digest([index, captions[index]], 16),
            name=f"clip {index}",
            caption=captions[index],
            bucket=(
                latents[index].shape[1] * temporal_ratios[0],
                latents[index].shape[2] * spatial_ratios[0],
                latents[index].shape[3] * spatial_ratios[0],
            ),
            held_out=bool(held_out[index]) if held_out is not None else False,
            aligned=base[index] is not None,
        )
        for index in range(count)
    ]
    tensors = {
        "latents": latents,
        "base_latents": base,
        "condition": condition,
        "base_condition": base_condition,
        "image_embeds": image_embeds,
    }
    given = {name: values for name, values in tensors.items() if values is not None}
    names = [null_prompt, *(caption for caption in texts if caption != null_prompt)]
    key = digest([latent_space_id, [clip.key for clip in clips]])
    return LatentCache(key, info, clips, names, MemoryStore(given, [texts[name] for name in names]))
