"""Transformers as folders: what is needed to adapt a base, and what an adapted one must be told again on loading."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from torch import nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.backbones import backbone_named, backbone_of
from dcvideogen.adaptation.positions import Positions, set_positions
from dcvideogen.conditioning import FirstLatent, ImageCondition
from dcvideogen.data.settings import Frozen
from dcvideogen.errors import UserError
from dcvideogen.files import whole_folder

INFO = "adaptation.json"
EXPERTS = ("transformer", "transformer_2")  # of high and of low noise


class SamplingDefaults(Frozen):
    """How videos are asked of an adapted transformer unless the user says otherwise.

    steps: noise levels; guidance: how far away from the null prompt; shift: of the noise levels towards noise. The
    defaults are those of Wan 2.1 (arXiv 2503.20314); its 1.3B and its 480p guide say 3 for the last two.
    image_guidance: how far away from no image, for models that were trained without theirs now and then; 1: not at all.
    """

    steps: int = Field(default=50, gt=0)
    guidance: float = Field(default=5.0, ge=0)
    shift: float = Field(default=5.0, gt=0)
    image_guidance: float = Field(default=1.0, ge=0)


class Trained(Frozen):
    """What an adapted transformer has seen. null_prompt: the text that stood for no text; max_sequence_length: tokens.

    sizes: (height, width, frames), of each stage; an area rather than a shape where there were buckets.
    """

    null_prompt: str = ""
    max_sequence_length: int = Field(default=512, gt=0)
    fps: float = Field(default=16.0, gt=0)
    sizes: tuple[tuple[int, int, int], ...] = ()


class AdaptationInfo(Frozen):
    """What an adapted transformer's weights do not say.

    latent_space_id: of the autoencoder that it works with. spatial_ratio, temporal_ratio: pixels and frames per latent
    of that one. positions, position_ratio: see positions.py. base: `fingerprint` of the transformer it was made of.
    image_condition: how an image-to-video transformer is told its image, see `conditioning.condition_latents`.
    first_latent: "given": where the image is, the transformer is shown its clean latents in place of noisy ones, and
    these come out as they are, see `conditioning.with_given`.
    """

    latent_space_id: str
    latent_channels: int = Field(gt=0)
    spatial_ratio: int = Field(gt=0)
    temporal_ratio: int = Field(gt=0)
    positions: Positions = "integer"
    position_ratio: tuple[float, float, float] = (1, 1, 1)
    image_condition: ImageCondition = "zeros"
    first_latent: FirstLatent = "generated"
    base: str
    family: str
    sampling: SamplingDefaults = SamplingDefaults()
    trained: Trained = Trained()


def save_transformer(transformer: nn.Module, folder: Path, info: AdaptationInfo | None) -> None:
    """Writes a folder in save_pretrained layout with an adaptation.json, replacing what is there at once.

    info: None for a transformer in the latents that it always had, which needs no adaptation.json.
    UserError: a full disk.
    """
    from safetensors import SafetensorError

    try:
        with whole_folder(folder) as temporary:
            transformer.save_pretrained(temporary)
            if info is not None:
                (temporary / INFO).write_text(info.model_dump_json(indent=1) + "\n", encoding="utf-8")
    except SafetensorError as error:  # its name for a full disk
        raise UserError(f"cannot write {folder}: {error}; free some space or choose another place") from error


def load_transformer(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, AdaptationInfo | None]:
    """An adapted transformer (or a plain one: None) in eval mode on the CPU, with its positions."""
    backbone = backbone_of(_read_config(folder))
    info = _read_info(folder / INFO) if (folder / INFO).exists() else None
    transformer = _load(folder, backbone, dtype)
    if info is not None:
        set_positions(transformer, backbone_named(info.family), info.positions, info.position_ratio)
    return transformer, info


def load_base(
    folder: Path, subfolder: str = "transformer", dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, Backbone]:
    """The transformer of a base pipeline's folder, in eval mode on the CPU, and its family.

    UserError: no such subfolder, no config.json, an unknown family, weights that are missing or broken.
    """
    if not (folder / subfolder).is_dir():
        raise UserError(f"{folder} has no {subfolder}/; a base is a pipeline's folder in diffusers' layout")
    backbone = backbone_of(_read_config(folder / subfolder))
    return _load(folder / subfolder, backbone, dtype), backbone


def expert_names(folder: Path) -> tuple[str, ...]:
    """Subfolders with transformers: one, or the two that share the noise levels in Wan 2.2 A14B."""
    return tuple(name for name in EXPERTS if (folder / name).is_dir()) or EXPERTS[:1]


def expert_sigmas(folder: Path) -> dict[str, tuple[float, float]]:
    """Subfolder -> the noise levels that it is asked for, from boundary_ratio in model_index.json.

    UserError: two transformers, and no boundary between 0 and 1.
    """
    names = expert_names(folder)
    if len(names) == 1:
        return {names[0]: (0.0, 1.0)}
    index = _read_json(folder / "model_index.json")
    boundary = index.get("boundary_ratio")
    if not isinstance(boundary, int | float) or not 0 < boundary < 1:
        raise UserError(
            f"{folder} has two transformers and boundary_ratio {boundary} in model_index.json; "
            "a number between 0 and 1 is needed"
        )
    return {names[0]: (float(boundary), 1.0), names[1]: (0.0, float(boundary))}


def fingerprint(transformer: nn.Module) -> str:
    """A name for a transformer: a digest of its config and of its weights as bf16, so that a copy in bf16 has the same.

    Positions are no part of it.
    """
    digest = hashlib.sha256()
    config = {name: value for name, value in transformer.config.items() if not name.startswith("_")}
    digest.update(json.dumps(config, sort_keys=True, default=list).encode())
    for name, tensor in sorted(transformer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().to("cpu", torch.bfloat16).contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _load(folder: Path, backbone: Backbone, dtype: torch.dtype) -> nn.Module:
    import diffusers
    from safetensors import SafetensorError

    transformer_class = getattr(diffusers, backbone.class_name)
    try:
        transformer, found = transformer_class.from_pretrained(
            folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, SafetensorError, RuntimeError, TypeError) as error:
        raise UserError(f"the weights in {folder} cannot be loaded: {' '.join(str(error).split())}") from error
    for kind in ("missing_keys", "unexpected_keys"):
        if found[kind]:
            raise UserError(
                f"the weights in {folder} have {kind.replace('_', ' ')}, the first is {sorted(found[kind])[0]!r}"
            )
    return transformer.eval()


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json; a transformer is a folder written by save_pretrained")
    return _read_json(folder / "config.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError("another kind of value")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a JSON object: {error}") from error
    return content


def _read_info(path: Path) -> AdaptationInfo:
    try:
        return AdaptationInfo(**_read_json(path))
    except ValidationError as error:
        problem = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
