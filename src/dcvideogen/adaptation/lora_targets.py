"""Which linear layers a target set names, and how many parameters a LoRA on them has."""

from __future__ import annotations

from torch import nn


def named_linears(transformer: nn.Module, targets: tuple[str, ...], without: tuple[str, ...] = ()) -> list[str]:
    """Full names of the linear layers whose names end with one of `targets`, at a dot: "attn1.to_q", "proj_out".

    without: full names to leave out, such as the embedder and the head, where those are trained fully.
    """
    endings = tuple(f".{target}" for target in targets)
    return [
        name
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and f".{name}".endswith(endings) and name not in without
    ]


def lora_parameter_count(
    transformer: nn.Module, targets: tuple[str, ...], rank: int, without: tuple[str, ...] = ()
) -> int:
    """Of down (rank, in) and up (out, rank) for each layer; on any device, `meta` too."""
    layers = (transformer.get_submodule(name) for name in named_linears(transformer, targets, without))
    return sum(rank * (layer.in_features + layer.out_features) for layer in layers)
