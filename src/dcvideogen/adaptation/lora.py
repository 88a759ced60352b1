"""LoRA layers in a transformer in training: peft's, put in, read out and merged.

The embedder and the head are trained fully beside them (arXiv 2509.25182, stage 2). They are no `modules_to_save` of
peft, which diffusers cannot load again: they stay what they are, and files hold them beside the LoRA.
"""

from __future__ import annotations

import copy
import math
from fnmatch import fnmatchcase
from typing import Any

import torch
from pydantic import Field
from torch import nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.lora_targets import named_linears
from dcvideogen.adaptation.lora_weights import LoraPair, LoraWeights, add_pair, check_fits
from dcvideogen.data.settings import Frozen
from dcvideogen.errors import UserError

ADAPTER = "default"  # peft's name of the one adapter
LORA_PATTERNS = ("*.lora_A.*", "*.lora_B.*")


class LoraSettings(Frozen):
    """targets: which linear layers, a key of the family's `lora_targets` (`attention+ffn`, `self_attention+ffn`, ...).

    rank: of the factors. alpha: their product is multiplied by alpha/rank; the paper has rank 256 and alpha 512.
    """

    targets: str = "attention+ffn"
    rank: int = Field(default=256, gt=0)
    alpha: float = Field(default=512, gt=0)


def end_patterns(backbone: Backbone) -> tuple[str, ...]:
    """fnmatch patterns of the parameters at both ends: embedder, head and the head's modulation."""
    return (f"{backbone.embedder}.*", f"{backbone.head}.*", *backbone.head_modulation)


def target_modules(transformer: nn.Module, backbone: Backbone, targets: str) -> list[str]:
    """Full names of the linear layers of a target set; UserError with the sets that the family has."""
    if targets not in backbone.lora_targets:
        known = ", ".join(backbone.lora_targets)
        raise UserError(f"LoRA targets {targets!r} came; {backbone.family} has {known}")
    ends = (backbone.embedder, backbone.head)  # trained fully
    endings = backbone.lora_targets[targets]
    names = [name for name in named_linears(transformer, endings) if name not in ends]
    if not names:
        raise UserError(f"the transformer has no linear layer of the LoRA targets {targets!r} ({', '.join(endings)})")
    return names


def add_lora(transformer: nn.Module, backbone: Backbone, settings: LoraSettings, seed: int = 0) -> tuple[str, ...]:
    """Puts fresh LoRA layers in, in place, and returns the fnmatch patterns of all parameters that the stage trains.

    The output stays bit-identical: up is zero. What is trained (LoRA, embedder, head, its modulation) becomes fp32
    and wants gradients; all else keeps its dtype, bf16 say, and is frozen. Down is drawn from `seed` alone, the same
    on every device, as peft does it (uniform, Kaiming with a = sqrt(5)).
    """
    names = target_modules(transformer, backbone, settings.targets)
    generator = torch.Generator().manual_seed(seed)
    modules = dict(transformer.named_modules())
    lora = {}
    for name in names:
        width_out, width_in = modules[name].weight.shape
        # On `meta`, where only shapes and counts matter, nothing is drawn.
        device = "meta" if modules[name].weight.is_meta else "cpu"
        down = torch.empty(settings.rank, width_in, device=device)
        if device != "meta":
            nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        up = torch.zeros(width_out, settings.rank, device=device)
        lora[name] = LoraPair(down, up, settings.alpha)
    put_lora(transformer, lora)
    return train_lora(transformer, backbone)


def train_lora(transformer: nn.Module, backbone: Backbone) -> tuple[str, ...]:
    """Makes the LoRA layers and both ends fp32 and trainable, freezes the rest; returns `add_lora`'s patterns."""
    patterns = (*LORA_PATTERNS, *end_patterns(backbone))
    for name, parameter in transformer.named_parameters():
        trained = any(fnmatchcase(name, pattern) for pattern in patterns)
        parameter.requires_grad_(trained)
        if trained:
            parameter.data = parameter.data.float()
    return patterns


def put_lora(transformer: nn.Module, lora: LoraWeights) -> None:
    """Puts peft's layers with these weights in, in place, on the devices of the layers that they sit on."""
    from peft import LoraConfig, inject_adapter_in_model

    check_fits(transformer, lora)
    ranks = {name: pair.rank for name, pair in lora.items()}
    alphas = {name: pair.alpha for name, pair in lora.items()}
    config = LoraConfig(
        r=next(iter(ranks.values())),
        lora_alpha=next(iter(alphas.values())),
        target_modules=list(lora),
        rank_pattern={f"^{name}": rank for name, rank in ranks.items()},
        alpha_pattern={f"^{name}": alpha for name, alpha in alphas.items()},
    )
    # On `meta` first: peft's own random start would cost time and the caller's random state.
    inject_adapter_in_model(config, transformer, ADAPTER, low_cpu_mem_usage=True)
    transformer._hf_peft_config_loaded = True  # diffusers' sign that there is one
    for name, layer in lora_layers(transformer).items():
        device = layer.get_base_layer().weight.device
        layer.lora_A[ADAPTER].weight = nn.Parameter(lora[name].down.to(device))
        layer.lora_B[ADAPTER].weight = nn.Parameter(lora[name].up.to(device))


def lora_layers(transformer: nn.Module) -> dict[str, Any]:
    """peft's layers in the transformer by the name of the linear layer in each; empty for a plain transformer."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in transformer.named_modules() if isinstance(module, LoraLayer)}


def lora_of(transformer: nn.Module) -> dict[str, LoraPair]:
    """The LoRA that the transformer has in it, sharing its memory; empty for a plain transformer."""
    return {name: _pair(layer) for name, layer in lora_layers(transformer).items()}


@torch.no_grad()
def merge_lora(transformer: nn.Module) -> nn.Module:
    """Adds the LoRA to the weights and takes its layers out, in place: a plain transformer of unchanged key names.

    One layer at a time: besides the transformer and its LoRA, one layer's difference (fp32) is in memory.
    """
    for name, layer in lora_layers(transformer).items():
        add_pair(layer.get_base_layer().weight, _pair(layer))
        _replace(transformer, name, layer.get_base_layer())
    return _forget_peft(transformer)


@torch.no_grad()
def merged_copy(transformer: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The merged transformer in `dtype`, on the CPU, beside the one in training, which stays as it is.

    What is merged is the LoRA rounded to `dtype`, as a file of that dtype holds it; the sum is rounded once. Layers
    that diffusers keeps in fp32 for this class stay fp32. In memory: the transformer, and this copy.
    """
    shared = {id(tensor): tensor for tensor in (*transformer.parameters(), *transformer.buffers())}
    copied = copy.deepcopy(transformer, shared)  # modules are copied, tensors are these
    for name, layer in lora_layers(transformer).items():
        weight = layer.get_base_layer().weight
        _replace(copied, name, copied.get_submodule(name).get_base_layer())
        merged = (weight.float() + _pair(layer).to(dtype).delta()).to("cpu", stored_dtype(copied, name, dtype))
        copied.get_submodule(name).weight = nn.Parameter(merged, requires_grad=False)
    for name, parameter in list(copied.named_parameters()):
        cast = parameter.detach().to("cpu", stored_dtype(copied, name, dtype))
        module, _, own = name.rpartition(".")
        setattr(copied.get_submodule(module), own, nn.Parameter(cast, requires_grad=False))
    for module in copied.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.cpu())
    return _forget_peft(copied)


def stored_dtype(transformer: nn.Module, name: str, dtype: torch.dtype) -> torch.dtype:
    """Of a parameter in a file of `dtype`: fp32 where diffusers loads it so whatever is asked for."""
    kept = getattr(transformer, "_keep_in_fp32_modules", None) or ()
    return torch.float32 if any(part in name.split(".") for part in kept) else dtype


def _pair(layer: Any) -> LoraPair:
    down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    return LoraPair(down.detach(), up.detach(), layer.scaling[ADAPTER] * down.shape[0])


def _replace(transformer: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(transformer.get_submodule(parent), own, module)


def _forget_peft(transformer: nn.Module) -> nn.Module:
    if hasattr(transformer, "peft_config"):
        del transformer.peft_config
    transformer._hf_peft_config_loaded = False
    return transformer


def lora_settings_of(transformer: nn.Module, backbone: Backbone) -> LoraSettings:
    """The settings that LoRA layers were made with, from where they are: the smallest target set that has them all."""
    pairs = lora_of(transformer)
    sets = {
        key: endings
        for key, endings in backbone.lora_targets.items()
        if all(f".{name}".endswith(tuple(f".{ending}" for ending in endings)) for name in pairs)
    }
    ranks, alphas = [pair.rank for pair in pairs.values()], [pair.alpha for pair in pairs.values()]
    return LoraSettings(targets=min(sets, key=lambda key: len(sets[key])), rank=max(ranks), alpha=max(alphas))
