"""`dcvideogen merge`: a base's folder and an adapter or LoRA file -> a transformer's folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from dcvideogen.adaptation.adapter_folder import LORA, RECORD, load_adapter, read_record
from dcvideogen.adaptation.backbones import backbone_of
from dcvideogen.adaptation.folder import EXPERTS, AdaptationInfo, expert_names, load_transformer, save_transformer
from dcvideogen.adaptation.lora_files import read_lora
from dcvideogen.adaptation.lora_weights import describe, merge_into
from dcvideogen.errors import UserError
from dcvideogen.weights import resolve_pipeline

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}  # names of safetensors


def merge_folders(base: Path, adapter: Path, output: Path, dtype: torch.dtype | None = None) -> dict[Path, dict]:
    """Writes the merged transformer to `output`; returns facts of each folder written.

    base: a pipeline's folder or bundled name, or its transformer's folder. adapter: an adapter's folder, an export with
    one in it, or a LoRA file (diffusers' form or ComfyUI's) for the latents that the base has already. Rank and alpha
    are the file's.
    dtype: of the result; None: as the base is stored. The adapter of a base with two experts holds two; they go to
    output/transformer and output/transformer_2, one after the other.
    In memory: twice the base for an adapter (while its layers are copied), once for a LoRA file, which is merged in
    place; and the adapter, and one layer's difference.
    UserError: no base, no adapter, another base, keys or shapes that do not fit, broken files.
    """
    base, adapter = resolve_pipeline(base), _adapter_folder(adapter)
    pairs = [name for name in EXPERTS if (adapter / name / RECORD).is_file()]
    if not pairs:
        return {output: _merge_one(only_transformer(base), adapter, output, dtype)}
    missing = [name for name in pairs if not (base / name).is_dir()]
    if missing:
        raise UserError(f"{adapter} is for {' and '.join(pairs)}; {base} has no {missing[0]}/; give the base pipeline")
    return {output / name: _merge_one(base / name, adapter / name, output / name, dtype) for name in pairs}


def only_transformer(path: Path) -> Path:
    """A transformer's folder as it is, and that of a pipeline (or of a bundled name) with one; UserError with two, or
    without."""
    path = resolve_pipeline(path)
    if (path / "config.json").is_file():
        return path
    names = expert_names(path)
    if len(names) > 1:
        raise UserError(f"{path} has two transformers; give {' or '.join(str(path / name) for name in names)}")
    if not (path / names[0]).is_dir():
        what = "has neither config.json nor transformer/" if path.is_dir() else "is no folder"
        raise UserError(f"{path} {what}; give a pipeline's folder, or the transformer's inside it")
    return path / names[0]


def open_transformer(folder: Path, dtype: torch.dtype | None) -> tuple[nn.Module, AdaptationInfo | None, torch.dtype]:
    """`load_transformer` in `dtype`, or in the one that the folder is stored in."""
    dtype = dtype or _stored_dtype(folder)
    transformer, info = load_transformer(folder, dtype)
    return transformer, info, dtype


def _merge_one(base: Path, adapter: Path, output: Path, dtype: torch.dtype | None) -> dict[str, Any]:
    # What is small is read first: a file that cannot be used is found before the base is loaded.
    record = read_record(adapter) if adapter.is_dir() else None
    lora = read_lora(adapter if record is None else adapter / LORA) if record is None or record.lora else {}
    transformer, info, dtype = open_transformer(base, dtype)
    if record is None:
        merge_into(transformer, lora)
    else:
        backbone = backbone_of({"_class_name": type(transformer).__name__})
        transformer, info = load_adapter(transformer, backbone, adapter)
    save_transformer(transformer, output, info)
    return {
        "base": str(base),
        "LoRA": describe(lora) if lora else "none: embedder and head alone",
        "latent space": None if info is None else info.latent_space_id,
        "parameters": f"{sum(parameter.numel() for parameter in transformer.parameters()):,}",
        "dtype": str(dtype).removeprefix("torch."),
    }


def _adapter_folder(path: Path) -> Path:
    """An export's adapter/ for the export."""
    if path.is_dir() and not (path / RECORD).is_file() and (path / "adapter").is_dir():
        return path / "adapter"
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; give an adapter's folder or a LoRA (.safetensors)")
    return path


def _stored_dtype(folder: Path) -> torch.dtype:
    """The dtype of most numbers in a folder's first file of weights; fp32 where there is none to read."""
    files = sorted(folder.glob("*.safetensors"))
    counts: Counter[str] = Counter()
    try:
        with safe_open(files[0], "pt") as file:
            for key in file.keys():  # noqa: SIM118
                piece = file.get_slice(key)
                counts[piece.get_dtype()] += torch.Size(piece.get_shape()).numel()
    except (IndexError, SafetensorError, OSError):
        return torch.float32  # loading it says what is wrong
    return DTYPES.get(counts.most_common(1)[0][0], torch.float32)
