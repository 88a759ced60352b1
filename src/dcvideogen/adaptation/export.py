"""The end of an adaptation: a transformer as it is used, and what was trained, in the forms that others load.

    transformer/                  merged, in save_pretrained layout with adaptation.json
    adapter/                      LoRA, embedder and head alone, for the base (see adapter_folder.py)
    lora/diffusers.safetensors    the LoRA's keys for `load_lora_weights`
    lora/comfyui.safetensors      and for ComfyUI (Wan only)
    README.md                     the card

With two experts, transformer/ and transformer_2/ stand side by side, and so do the folders inside adapter/ and lora/.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from dcvideogen.adaptation.adapter_folder import AdapterRecord, ends_of, write_adapter
from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.card import CardFacts, render_card
from dcvideogen.adaptation.extraction import Extraction, changed_names, extract_lora, extracted_settings
from dcvideogen.adaptation.folder import AdaptationInfo, save_transformer
from dcvideogen.adaptation.lora import lora_of, lora_settings_of, merged_copy
from dcvideogen.adaptation.lora_files import write_comfyui, write_diffusers
from dcvideogen.adaptation.lora_weights import LoraWeights, describe
from dcvideogen.data.settings import Frozen
from dcvideogen.files import write_json, write_text

ORIGINAL_NAMES = "WanTransformer3DModel"  # whose ComfyUI names wan_names.py knows


class ExportSettings(Frozen):
    """dtype: of all files. full_rank: after full fine-tuning, the rank of the LoRA that is extracted for adapter/ and
    lora/; None: only the transformer is written. full_targets: its layers, a key of the family's `lora_targets`."""

    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    full_rank: int | None = Field(default=None, gt=0)
    full_targets: str = "attention+ffn"


def export_adaptation(
    tuned: nn.Module,
    backbone: Backbone,
    info: AdaptationInfo,
    folder: Path,
    settings: ExportSettings,
    facts: CardFacts,
    *,
    base: nn.Module | None = None,
    expert: str = "transformer",
    experts: tuple[str, ...] = ("transformer",),
) -> None:
    """Writes the export of one transformer into `folder`, each part replacing what is there at once.

    tuned: as it was trained, with peft's layers (LoRA) or plain (full fine-tuning, or the ends alone); it stays as it
    is. base: the base's transformer, which full fine-tuning is compared with; not needed with LoRA layers. Without
    LoRA layers and without base there is no adapter. expert, experts: which of the pipeline's transformers it is; the
    card, written last, is about all of them. In memory: `tuned`, its merged copy in `settings.dtype`, and `base`.
    UserError: what extraction refuses; a full disk.
    """
    if expert not in experts:
        raise ValueError(f"expert {expert!r} came; {', '.join(experts)} are there")
    dtype = getattr(torch, settings.dtype)
    inner = expert if len(experts) > 1 else "."
    adapter_folder, lora_folder = folder / "adapter" / inner, folder / "lora" / inner
    merged = merged_copy(tuned, dtype)
    save_transformer(merged, folder / expert, info)
    for stale in (adapter_folder, lora_folder):
        shutil.rmtree(stale, ignore_errors=True)

    parts = {f"{name}/": "the whole transformer, merged" for name in experts}
    lora, whole, trained, extraction = lora_of(tuned), ends_of(merged, backbone), None, None
    changed = [] if lora or base is None else changed_names(base, tuned, backbone)
    if lora:
        trained = lora_settings_of(tuned, backbone)
    elif changed and settings.full_rank:
        rank, targets = settings.full_rank, settings.full_targets
        extraction = extract_lora(base, tuned, backbone, rank=rank, targets=targets)
        lora, trained = extraction.lora, extracted_settings(targets, rank)
        whole |= extraction.whole
    if lora or (base is not None and not changed):
        record = AdapterRecord(adaptation=info, patch_size=backbone.patch_size(tuned.config), lora=trained)
        write_adapter(adapter_folder, merged, record, lora, whole, dtype)
        parts["adapter/"] = "what changed, alone, to be put onto the base"
    if lora:
        parts |= write_lora_files(lora, merged, lora_folder, dtype, extraction)
    write_text(folder / "README.md", render_card(facts, info, parts, describe(lora) if lora else None, experts))


def write_lora_files(
    lora: LoraWeights, transformer: nn.Module, folder: Path, dtype: torch.dtype, extraction: Extraction | None
) -> dict[str, str]:
    """The LoRA in the forms of others, with an extraction's report; returns what the card says of each file.

    In diffusers' form alpha is folded into the weights, so that it is the same LoRA for readers without metadata.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_diffusers({name: pair.folded() for name, pair in lora.items()}, folder / "diffusers.safetensors", dtype)
    parts = {"lora/diffusers.safetensors": "the LoRA for diffusers' `load_lora_weights`"}
    if type(transformer).__name__ == ORIGINAL_NAMES:
        write_comfyui(lora, folder / "comfyui.safetensors", dtype)
        parts["lora/comfyui.safetensors"] = "the LoRA with ComfyUI's keys"
    if extraction is not None:
        write_json(folder / "extraction.json", extraction.report())
        kept = f"{100 * extraction.total_energy:.1f} %"
        parts["lora/extraction.json"] = f"the LoRA was extracted and holds {kept} of the change; more per layer"
    return parts
