"""An adapter: what the adaptation changed, alone, to be put onto the base again.

adapter.json           what it is and which base it belongs to
lora.safetensors       the LoRA in diffusers' form (not there when only the ends were trained)
ends.safetensors       embedder, head, the head's modulation, and whatever else is kept whole
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.folder import AdaptationInfo, fingerprint
from dcvideogen.adaptation.lora import LoraSettings, end_patterns, put_lora, stored_dtype
from dcvideogen.adaptation.lora_files import read_lora, write_diffusers
from dcvideogen.adaptation.lora_weights import LoraPair, LoraWeights, listed, merge_into
from dcvideogen.adaptation.positions import set_positions
from dcvideogen.adaptation.surgery import move_transformer
from dcvideogen.data.settings import Frozen
from dcvideogen.errors import UserError
from dcvideogen.files import whole_folder

RECORD, LORA, ENDS = "adapter.json", "lora.safetensors", "ends.safetensors"


class AdapterRecord(Frozen):
    """adapter.json. patch_size: of the adapted transformer. lora: None when only the ends were trained.

    adds_condition: the base is for text to video, and with the adapter it is for image to video.
    """

    adaptation: AdaptationInfo
    patch_size: tuple[int, int, int]
    lora: LoraSettings | None
    adds_condition: bool = False


def ends_of(transformer: nn.Module, backbone: Backbone) -> dict[str, Tensor]:
    """The parameters of embedder, head and the head's modulation, by name."""
    patterns = end_patterns(backbone)
    return {
        name: parameter.detach()
        for name, parameter in transformer.named_parameters()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def write_adapter(
    folder: Path,
    transformer: nn.Module,
    record: AdapterRecord,
    lora: LoraWeights,
    whole: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> None:
    """Writes an adapter folder, replacing what is there at once. whole: parameters of `transformer` to keep as they
    are; the adapted transformer says which of them stay fp32."""
    ends = {
        name: tensor.to("cpu", stored_dtype(transformer, name, dtype)).contiguous() for name, tensor in whole.items()
    }
    try:
        with whole_folder(folder) as temporary:
            if record.lora is not None:
                write_diffusers(lora, temporary / LORA, dtype)
            save_file(ends, temporary / ENDS, metadata={"format": "pt"})
            (temporary / RECORD).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    except SafetensorError as error:  # its name for a full disk
        raise UserError(f"cannot write {folder}: {error}; free some space or choose another place") from error


def read_record(folder: Path) -> AdapterRecord:
    """adapter.json; UserError when there is none, or it is another thing."""
    path = folder / RECORD
    if not path.is_file():
        raise UserError(f"{folder} is no adapter: it has no {RECORD}; give the adapter/ of an export")
    try:
        return AdapterRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise UserError(f"{path} does not describe an adapter; export it again") from error


def load_adapter(
    base: nn.Module, backbone: Backbone, folder: Path, *, merged: bool = True
) -> tuple[nn.Module, AdaptationInfo]:
    """The adapted transformer, in the dtypes of `base`, which stays as it is.

    merged: the LoRA added to the weights, layer by layer; otherwise as peft's layers, to train on (see `train_lora`).
    In memory: the base, the new transformer, the adapter. The caller drops the base to be left with one.
    UserError: no adapter, broken files, another base than the one it was made on (both are named).
    """
    record = read_record(folder)
    info = record.adaptation
    check_base(base, info, folder)
    lora = read_lora(folder / LORA) if record.lora is not None else {}
    ends = _read_ends(folder / ENDS)
    adapted = move_transformer(
        base,
        backbone,
        latent_channels=info.latent_channels,
        patch_size=record.patch_size,
        seed=0,
        adds_condition=record.adds_condition,
    )
    _set_ends(adapted, backbone, ends, folder / ENDS)
    set_positions(adapted, backbone, info.positions, info.position_ratio)
    put_in(adapted, lora, merged=merged)
    return adapted, info


def put_in(transformer: nn.Module, lora: Mapping[str, LoraPair], *, merged: bool) -> None:
    if merged:
        merge_into(transformer, lora)
    elif lora:
        put_lora(transformer, lora)


def check_base(base: nn.Module, info: AdaptationInfo, what: Path) -> None:
    """UserError that names both when `what` was made on another base."""
    came = fingerprint(base)
    if came != info.base:
        raise UserError(f"{what} was made on the base {info.base}; {came} came; give the {info.family} model it is of")


def _read_ends(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path} is missing; the adapter is not whole: copy it again")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); it may be cut off: copy it again") from error


@torch.no_grad()
def _set_ends(transformer: nn.Module, backbone: Backbone, ends: Mapping[str, Tensor], path: Path) -> None:
    parameters = dict(transformer.named_parameters())
    missing = sorted(ends_of(transformer, backbone).keys() - ends.keys())
    unknown = sorted(name for name in ends if name not in parameters or parameters[name].shape != ends[name].shape)
    if missing or unknown:
        problem = f"lacks {listed(missing)}" if missing else f"has {listed(unknown)}, which the base has no place for"
        raise UserError(f"{path} {problem}; export the adapter again")
    for name, tensor in ends.items():
        parameters[name].copy_(tensor)
