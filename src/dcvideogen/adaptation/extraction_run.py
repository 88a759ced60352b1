"""`dcvideogen extract-lora`: a base's folder and a tuned transformer's -> adapter and LoRA files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dcvideogen.adaptation.adapter_folder import AdapterRecord, check_base, ends_of, write_adapter
from dcvideogen.adaptation.backbones import backbone_of
from dcvideogen.adaptation.export import write_lora_files
from dcvideogen.adaptation.extraction import extract_lora, extracted_settings
from dcvideogen.adaptation.folder import fingerprint
from dcvideogen.adaptation.lora_weights import describe, listed
from dcvideogen.adaptation.merge_run import only_transformer, open_transformer


def extract_folders(
    base: Path,
    tuned: Path,
    output: Path,
    *,
    rank: int,
    targets: str,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    done: Callable[[int, int], None] = lambda count, total: None,
) -> dict[str, Any]:
    """Writes output/lora/ (diffusers', ComfyUI's, extraction.json) and, of an adapted transformer, output/adapter/,
    which `merge` puts onto the base again; returns facts.

    base, tuned: pipelines' folders with one transformer (base: or a bundled name), or transformers' folders. An adapted
    image-to-video transformer may be taken out of a text-to-video base, from which its own base was made: then the
    adapter is for that one. dtype: of the files; None: as the tuned one is stored. In memory: both transformers as they
    are stored, and one layer's difference in fp64.
    UserError: another base than the adapted one was made of; nothing changed in the targets; broken folders.
    """
    before, _, _ = open_transformer(only_transformer(base), None)
    after, info, stored = open_transformer(only_transformer(tuned), None)
    dtype = dtype or stored
    backbone = backbone_of({"_class_name": type(after).__name__})
    adds_condition = backbone.condition_channels(after.config) > 0 and not backbone.condition_channels(before.config)
    if info is not None and adds_condition:
        info = info.model_copy(update={"base": fingerprint(before)})
    elif info is not None:
        check_base(before, info, tuned)
    found = extract_lora(before, after, backbone, rank=rank, targets=targets, device=device, done=done)
    left_out = list(found.left_out)
    if info is not None:
        record = AdapterRecord(
            adaptation=info,
            patch_size=backbone.patch_size(after.config),
            lora=extracted_settings(targets, rank),
            adds_condition=adds_condition,
        )
        write_adapter(output / "adapter", after, record, found.lora, ends_of(after, backbone) | found.whole, dtype)
    else:  # a LoRA file has no place for anything else
        ends = ends_of(before, backbone)
        left_out += [name for name, tensor in ends_of(after, backbone).items() if not _same(ends.get(name), tensor)]
        left_out += [name for name in found.whole if name not in left_out]
    write_lora_files(found.lora, after, output / "lora", dtype, found)
    return {
        "LoRA": describe(found.lora),
        "energy kept": f"{100 * found.total_energy:.2f} % of the change in {targets}",
        "least, in a layer": f"{100 * min(found.energy.values()):.2f} % in {min(found.energy, key=found.energy.get)}",
        "beyond the rank": f"{100 * math.sqrt(max(0.0, 1 - found.total_energy)):.2g} % of the norm of the change",
        "left out": f"{listed(left_out)} changed too, and no LoRA on {targets} holds that" if left_out else None,
        "to put back": f"dcvideogen merge BASE {output / ('adapter' if info else 'lora/diffusers.safetensors')} -o OUT",
    }


def _same(before: torch.Tensor | None, after: torch.Tensor) -> bool:
    return before is not None and before.shape == after.shape and torch.equal(before.to(after.dtype), after)
