"""Module names of Wan's transformer in its original code, which ComfyUI keeps, and in diffusers.

The inverse of diffusers' `loaders/lora_conversion_utils._convert_non_diffusers_wan_lora_to_diffusers`; tested by a
round trip through it.
"""

from __future__ import annotations

import re

# diffusers -> original, of a block's linear layers
IN_BLOCK = {
    "attn1.to_q": "self_attn.q", "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v", "attn1.to_out.0": "self_attn.o",
    "attn2.to_q": "cross_attn.q", "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v", "attn2.to_out.0": "cross_attn.o",
    "attn2.add_k_proj": "cross_attn.k_img", "attn2.add_v_proj": "cross_attn.v_img",
    "ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2",
}  # fmt: skip
OUTSIDE = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "proj_out": "head.head",
}
BLOCK = re.compile(r"(blocks\.\d+\.)(.+)")


def original_name(diffusers: str) -> str:
    """ "blocks.0.attn1.to_q" -> "blocks.0.self_attn.q"; ValueError for what is no linear layer of Wan."""
    name = _rename(diffusers, IN_BLOCK, OUTSIDE)
    if name is None:
        raise ValueError(f"{diffusers} is no linear layer of a Wan transformer")
    return name


def diffusers_name(original: str) -> str | None:
    """ "blocks.0.self_attn.q" -> "blocks.0.attn1.to_q"; None for what is no linear layer of Wan."""
    return _rename(original, {v: k for k, v in IN_BLOCK.items()}, {v: k for k, v in OUTSIDE.items()})


def _rename(name: str, in_block: dict[str, str], outside: dict[str, str]) -> str | None:
    match = BLOCK.fullmatch(name)
    if match is None:
        return outside.get(name)
    inner = in_block.get(match[2])
    return None if inner is None else match[1] + inner
