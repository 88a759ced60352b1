"""The authors' published folders as the parts of our pipelines, the `.pt` autoencoder converted on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dcvideogen.adaptation.backbone_wan import TEXT_TOKENS, WAN
from dcvideogen.adaptation.fingerprints import read_config
from dcvideogen.adaptation.folder import AdaptationInfo, SamplingDefaults, Trained, load_base
from dcvideogen.adaptation.image_encoder import ImageEncoder
from dcvideogen.adaptation.text import load_text_encoder
from dcvideogen.autoencoder.loading import load_autoencoder
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.errors import UserError
from dcvideogen.pipelines.published_folder import (
    PublishedFolder,
    Task,
    check_channels,
    find_published,
    naming,
    only_checkpoint,
)
from dcvideogen.pipelines.scheduler import load_scheduler, shift_field
from dcvideogen.weights import resolve_pipeline

__all__ = ["NULL_PROMPT", "PublishedFolder", "Task", "find_published", "load_published"]

TEXT, IMAGE = ("text_encoder", "tokenizer"), ("image_encoder", "image_processor")
# Wan's own negative prompt: what stood for no text when the authors adapted, as in their code.
NULL_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)
# (height, width, frames) of the videos in the paper's tables of the 14B models, 16 frames per second.
TRAINED_SIZES = ((480, 832, 80), (720, 1280, 80))
UNKNOWN_BASE = "unknown"  # the folders do not say which weights the transformer was made of


def load_published(
    found: PublishedFolder,
    task: Task,
    *,
    dtype: torch.dtype = torch.float32,
    text_from: str | Path | None = None,
    autoencoder: str | Path | None = None,
) -> tuple[dict[str, Any], AdaptationInfo]:
    """(parts by the names that our pipelines give them, what adaptation.json would say), in eval mode on the CPU.

    Parts: tokenizer, text_encoder, transformer, autoencoder, scheduler; for i2v image_encoder and image_processor too,
    None where the transformer sees no CLIP tokens. text_from: a pipeline's folder, or a bundled one's name, for the
    encoders that this folder lacks, such as the base's; its text encoder is taken even where there is one. autoencoder:
    another than the folder's own: a `.pt` file, a folder with one, or a model folder or name of ours.
    UserError: a task that the folder does not offer, parts that are missing, broken, or of other sizes.
    """
    if task not in found.transformers:
        raise UserError(f"{found.folder} is for {' and '.join(found.tasks)}; {task} came; ask for what it is for")
    config, name = found.configs[task], found.transformers[task]
    other = None if text_from is None else resolve_pipeline(text_from)
    text = _folder_with(TEXT, [other or found.folder], found)
    _check_width(text / "text_encoder", "d_model", config, "text_dim")
    with_image = task == "i2v" and config.get("image_dim") is not None
    if with_image:
        image = _folder_with(IMAGE, [found.folder, other], found)
        _check_width(image / "image_encoder", "hidden_size", config, "image_dim")
    scheduler = load_scheduler(found.folder / "scheduler")
    own = _load_autoencoder(found, autoencoder, dtype)
    check_channels(found.folder / name, config, own.config.latent_channels, str(autoencoder or found.checkpoint))

    transformer, _ = load_base(found.folder, name, dtype)
    cpu = torch.device("cpu")
    encoder = load_text_encoder(text, max_sequence_length=TEXT_TOKENS, device=cpu, dtype=dtype)
    parts = {
        "tokenizer": encoder.tokenizer,
        "text_encoder": encoder.model,
        "transformer": transformer.requires_grad_(False),
        "autoencoder": own,
        "scheduler": scheduler,
    }
    if task == "i2v":
        clip = ImageEncoder(image, cpu, dtype) if with_image else None
        parts["image_encoder"], parts["image_processor"] = clip and clip.model, clip and clip.processor
    return parts, _info(own, scheduler)


def _info(autoencoder: AutoencoderDCV, scheduler: Any) -> AdaptationInfo:
    shift = scheduler.config.get(shift_field(scheduler.config))
    return AdaptationInfo(
        latent_space_id=autoencoder.config.latent_space_id,
        latent_channels=autoencoder.config.latent_channels,
        spatial_ratio=autoencoder.geometry.spatial_ratio,
        temporal_ratio=autoencoder.geometry.temporal_ratio,
        positions="integer",
        base=UNKNOWN_BASE,
        family=WAN.family,
        sampling=SamplingDefaults() if shift is None else SamplingDefaults(shift=shift),
        trained=Trained(null_prompt=NULL_PROMPT, max_sequence_length=TEXT_TOKENS, sizes=TRAINED_SIZES),
    )


def _folder_with(parts: tuple[str, str], folders: list[Path | None], found: PublishedFolder) -> Path:
    """The first folder that has both parts."""
    looked = [folder for folder in folders if folder is not None]
    for folder in looked:
        if all((folder / part).is_dir() for part in parts):
            return folder
    missing = next(part for part in parts if not (looked[-1] / part).is_dir())
    raise UserError(
        f"no {missing}/ in {' or '.join(map(str, looked))}; give text_from a pipeline's folder with {parts[0]}/ and "
        f"{parts[1]}/, such as that of the base of {found.folder.name}"
    )


def _check_width(folder: Path, field: str, transformer: dict[str, Any], its_field: str) -> None:
    """Before gigabytes are loaded: whether an encoder gives tokens as wide as the transformer takes."""
    gives, takes = read_config(folder).get(field), transformer.get(its_field)
    if gives is not None and gives != takes:
        raise UserError(
            f"{folder} gives tokens of {gives} numbers, and the transformer takes {takes}; give the {folder.name} of "
            "the model that it was made of"
        )


def _load_autoencoder(found: PublishedFolder, chosen: str | Path | None, dtype: torch.dtype) -> AutoencoderDCV:
    checkpoint = found.checkpoint
    if chosen is not None:
        path = Path(chosen)
        checkpoint = only_checkpoint(path) if path.is_dir() else path if path.suffix == ".pt" else None
        if checkpoint is None:
            return load_autoencoder(chosen, dtype=dtype).requires_grad_(False)
    if checkpoint is None:
        raise UserError(
            f"{found.folder} has no .pt file with the autoencoder; name one, such as that of dc-ae-v-1.0-f32t4c32, or "
            "get the folder again"
        )
    with naming(checkpoint):
        # Its latent space is named by the weights as they are stored, so that every dtype has the same.
        model = AutoencoderDCV.from_official_checkpoint(checkpoint).to(dtype).requires_grad_(False)
    model.register_to_config(_name_or_path=checkpoint.name)  # which latents files tell of
    return model
