"""LoRA files: diffusers' form and, for Wan, ComfyUI's, both ways.

diffusers: `transformer.<module>.lora_A.weight` (down) and `.lora_B.weight` (up), alpha in the file's metadata as
diffusers' own `save_lora_weights` puts it there; read by `pipeline.load_lora_weights`.
ComfyUI: `diffusion_model.<module of the original code>.lora_down.weight`, `.lora_up.weight`, `.alpha`.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dcvideogen.adaptation.lora_weights import LoraPair, LoraWeights, listed
from dcvideogen.adaptation.wan_names import diffusers_name, original_name
from dcvideogen.errors import UserError
from dcvideogen.files import whole_file

METADATA = "lora_adapter_metadata"  # diffusers.loaders.lora_base.LORA_ADAPTER_METADATA_KEY
DIFFUSERS, COMFYUI = "transformer.", "diffusion_model."
DOWN, UP, ALPHA = "down", "up", "alpha"
SUFFIXES = {
    ".lora_A.weight": DOWN, ".lora_B.weight": UP, ".lora_down.weight": DOWN, ".lora_up.weight": UP, ".alpha": ALPHA,
}  # fmt: skip


def write_diffusers(lora: LoraWeights, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes the form of diffusers, whole or not at all.

    alpha is in the metadata, which `load_lora_weights` reads, but not `load_lora_adapter` when given the path of the
    file, nor anyone who is given its tensors alone: fold the pairs for files that such readers get.
    """
    tensors = {}
    for name, pair in lora.items():
        tensors[f"{DIFFUSERS}{name}.lora_A.weight"] = pair.down
        tensors[f"{DIFFUSERS}{name}.lora_B.weight"] = pair.up
    config = {f"{DIFFUSERS}{key}": value for key, value in _lora_config(lora).items()}
    _save(tensors, path, dtype, {METADATA: json.dumps(config, indent=2, sort_keys=True)})


def write_comfyui(lora: LoraWeights, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes the form of ComfyUI for a Wan transformer, whole or not at all.

    Outside the blocks (time and text embeddings) the factor alpha/rank is multiplied into the up weight instead of
    written as `.alpha`: the same LoRA for ComfyUI, and diffusers, which reads this form too, refuses an alpha there.
    """
    tensors = {}
    for name, pair in lora.items():
        original = f"{COMFYUI}{original_name(name)}"
        in_block = name.startswith("blocks.")
        tensors[f"{original}.lora_down.weight"] = pair.down
        tensors[f"{original}.lora_up.weight"] = pair.up if in_block else pair.folded().up
        if in_block:
            tensors[f"{original}.alpha"] = torch.tensor(pair.alpha)
    _save(tensors, path, dtype, {"format": "pt"})


def read_lora(path: Path) -> dict[str, LoraPair]:
    """Reads either form by what its keys begin with; module names as in diffusers, weights in the file's dtype.

    Without an alpha it is the layer's rank (a factor of 1), as every reader takes it.
    UserError: no such file, broken, no LoRA, keys of another kind, a down without its up or of another rank.
    """
    tensors, metadata = _read(path)
    forms = [form for form in (DIFFUSERS, COMFYUI) if any(key.startswith(form) for key in tensors)]
    if len(forms) != 1:
        raise UserError(
            f"{path} is no LoRA of a video transformer: its keys ({listed(sorted(tensors))}) must begin with "
            f"{DIFFUSERS} (diffusers) or {COMFYUI} (ComfyUI)"
        )
    parts, unknown = _sort_keys(tensors, forms[0])
    if unknown:
        raise UserError(f"{path} has keys that are no LoRA's: {listed(sorted(unknown))}; lora_A/lora_B or "
                        f"lora_down/lora_up weights and alpha are allowed")  # fmt: skip
    config = _read_config(path, metadata) if forms[0] == DIFFUSERS else {}
    return {name: _make_pair(path, name, found, config) for name, found in sorted(parts.items())}


def _lora_config(lora: LoraWeights) -> dict[str, Any]:
    """The arguments of peft's LoraConfig for these layers; what is most frequent is the rule, the rest patterns."""
    ranks = {name: pair.rank for name, pair in lora.items()}
    alphas = {name: pair.alpha for name, pair in lora.items()}
    rank, alpha = _most_frequent(ranks.values()), _most_frequent(alphas.values())
    return {
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted(lora),
        "rank_pattern": {f"^{name}": value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {f"^{name}": value for name, value in alphas.items() if value != alpha},
    }


def _most_frequent(values) -> Any:
    values = list(values)
    return max(values, key=values.count)


def _sort_keys(tensors: dict[str, Tensor], form: str) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    parts: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for key, tensor in tensors.items():
        suffix = next((suffix for suffix in SUFFIXES if key.endswith(suffix)), None)
        module = key.removeprefix(form).removesuffix(suffix) if key.startswith(form) and suffix else None
        name = diffusers_name(module) if module and form == COMFYUI else module
        if name is None:
            unknown.append(key)
        else:
            parts.setdefault(name, {})[SUFFIXES[suffix]] = tensor
    return parts, unknown


def _make_pair(path: Path, name: str, found: dict[str, Tensor], config: dict[str, Any]) -> LoraPair:
    down, up = found.get(DOWN), found.get(UP)
    if down is None or up is None:
        raise UserError(f"{path}: {name} has no {'up' if up is None else 'down'} weight; the file is not whole")
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1]:
        came = f"down {tuple(down.shape)} and up {tuple(up.shape)}"
        raise UserError(f"{path}: {name} has {came}; (rank, in) and (out, rank) are allowed")
    rank = down.shape[0]
    alpha = found[ALPHA].item() if ALPHA in found else _configured_alpha(name, rank, config)
    return LoraPair(down, up, float(alpha))


def _configured_alpha(name: str, rank: int, config: dict[str, Any]) -> float:
    """alpha of a layer by peft's rules: the first pattern that the end of its name matches, else `lora_alpha`."""
    alpha = config.get("lora_alpha", rank)
    for pattern, value in config.get("alpha_pattern", {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            alpha = value
            break
    return alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def _read_config(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if METADATA not in metadata:
        return {}
    try:
        config = json.loads(metadata[METADATA])
        return {key.removeprefix(DIFFUSERS): value for key, value in config.items()}
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path}: its {METADATA} is no JSON object; write the file again with diffusers") from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a LoRA (.safetensors)")
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); it may be cut off: copy it again") from error


def _save(tensors: dict[str, Tensor], path: Path, dtype: torch.dtype, metadata: dict[str, str]) -> None:
    # An alpha stays fp32.
    plain = {
        key: tensor.detach().to("cpu", dtype if tensor.ndim else torch.float32).contiguous()
        for key, tensor in tensors.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(path) as temporary:
            save_file(plain, temporary, metadata=metadata)
    except SafetensorError as error:  # its name for a full disk
        raise UserError(f"cannot write {path}: {error}; free some space or choose another place") from error
    finally:
        temporary.unlink(missing_ok=True)
