"""From a folder or a name to a pipeline: our own folders, a base with an adapter, the authors' published folders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from dcvideogen.adaptation.adapter_folder import RECORD, load_adapter, read_record
from dcvideogen.adaptation.fingerprints import read_config
from dcvideogen.adaptation.folder import AdaptationInfo, expert_names, expert_sigmas, fingerprint, load_base
from dcvideogen.adaptation.image_encoder import ImageEncoder
from dcvideogen.adaptation.text import load_text_encoder
from dcvideogen.autoencoder.loading import load_autoencoder
from dcvideogen.errors import UserError
from dcvideogen.pipelines.image_to_video import DCVideoGenImageToVideoPipeline
from dcvideogen.pipelines.parts import Task, tasks_of
from dcvideogen.pipelines.published import find_published, load_published
from dcvideogen.pipelines.scheduler import load_scheduler
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline
from dcvideogen.weights import bundled_adapters, bundled_models, bundled_pipelines, resolve_pipeline

INDEX, ADAPTER = "model_index.json", "adapter"
PIPELINES = {one.__name__: one for one in (DCVideoGenPipeline, DCVideoGenImageToVideoPipeline)}
TASKS = {"t2v": "text to video", "i2v": "image to video"}


def load_pipeline(
    model: str | Path,
    *,
    task: Task | None = None,
    adapter: str | Path | None = None,
    autoencoder: str | Path | None = None,
    text_from: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> DCVideoGenPipeline:
    """The pipeline, its parts in eval mode on the CPU in `dtype`; for image to video where its transformer is for that.

    model: a folder that a pipeline's `save_pretrained` wrote; a base pipeline's folder, with an adapter; an adapter's
    folder whose base came with this package; one of the authors' folders; or a bundled name. task: "t2v" or "i2v", of
    an authors' folder that has both. adapter: the adapter/ of an export. autoencoder: the one that the transformer was
    adapted to, a folder or a name; None: the model's own, or a bundled one of its latent space. text_from: a pipeline's
    folder with the text encoder that an authors' folder lacks.
    UserError: none of these, parts of different latent spaces, broken files, a task that the model is not for.
    """
    folder = find_model(model)
    published = find_published(folder) if adapter is None else None
    if is_own(folder) and adapter is None and autoencoder is None:
        index = read_index(folder)
        if index.get("adaptation"):  # else the pipeline says what is wrong
            channels = read_config(folder / "transformer").get("in_channels", 0)
            info = AdaptationInfo(**index["adaptation"])
            check_task(model, tasks_of(channels, info.latent_channels, info.first_latent), task)
        pipeline = PIPELINES[index["_class_name"]].from_pretrained(folder, torch_dtype=dtype)
    elif published is not None:
        wanted = task or published.tasks[0]
        parts, info = load_published(published, wanted, dtype=dtype, text_from=text_from, autoencoder=autoencoder)
        pipeline = pipeline_of(parts, info)
    else:
        if adapter is None and adapter_in(folder) is not None:
            adapter = adapter_in(folder)
            folder = base_of(adapter)
        if adapter is None and not (folder / "transformer").is_dir():
            raise UserError(f"{folder} is no model: it has no transformer/, no {INDEX} of ours and no {RECORD}")
        if adapter is None:
            raise UserError(
                f"{folder} holds a base model, which works in its own latents; give an adapter that was made for it"
            )
        pipeline = load_adapted(folder, Path(adapter), autoencoder, dtype)
    check_task(model, pipeline.tasks, task)
    lay_out(pipeline, torch.device("cpu"))
    return pipeline


def check_task(model: str | Path, tasks: tuple[Task, ...], task: Task | None) -> None:
    if task is not None and task not in tasks:
        hint = "; give it an image" if task == "t2v" else ""
        found = " and ".join(TASKS[one] for one in tasks)
        raise UserError(f"{model} is a model for {found}, and {TASKS[task]} was asked for{hint}")


def lay_out(pipeline: DCVideoGenPipeline, device: torch.device) -> None:
    """Lays the autoencoder's weights out as is fastest on a device; see `load_autoencoder`."""
    on_cpu = device.type == "cpu"
    pipeline.autoencoder.to(memory_format=torch.channels_last_3d if on_cpu else torch.contiguous_format)


def pipeline_of(parts: dict[str, Any], info: AdaptationInfo, boundary_ratio: float | None = None) -> DCVideoGenPipeline:
    """Of the class that the transformer's input channels tell."""
    takes_image = "i2v" in tasks_of(parts["transformer"].config.in_channels, info.latent_channels, info.first_latent)
    pipeline_class = DCVideoGenImageToVideoPipeline if takes_image else DCVideoGenPipeline
    return pipeline_class(**parts, boundary_ratio=boundary_ratio, adaptation=info.model_dump(mode="json"))


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Inside, diffusers and transformers load parts and weights without their own bars: for programs that show theirs.

    The hub's bars for downloads are gone inside, too.
    """
    import transformers

    shown = [one for one in (diffusers.utils.logging, transformers.utils.logging) if one.is_progress_bar_enabled()]
    for one in shown:
        one.disable_progress_bar()
    try:
        yield
    finally:
        for one in shown:
            one.enable_progress_bar()


def find_model(model: str | Path) -> Path:
    """An existing folder, else that of a bundled model; UserError with the names there are."""
    path = Path(model)
    known = {**bundled_pipelines(), **bundled_adapters()}
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{path} is a file; a model is a folder, or one of the bundled {', '.join(known)}")
    if str(model) not in known:
        raise UserError(f"no model {str(model)!r}: neither a folder nor one of the bundled {', '.join(known)}")
    return known[str(model)]


def is_own(folder: Path) -> bool:
    """Whether a pipeline of ours wrote the folder."""
    return read_index(folder).get("_class_name") in PIPELINES


def read_index(folder: Path) -> dict[str, Any]:
    """model_index.json; empty where there is none."""
    path = folder / INDEX
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); get the folder again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no JSON object; get the folder again")
    return content


def adapter_in(folder: Path) -> Path | None:
    """The adapter's folder that `folder` is, or that is in it; with two experts, that of both."""
    for place in (folder, folder / ADAPTER):
        if any((place / name / RECORD).is_file() for name in (".", "transformer")):
            return place
    return None


def base_of(adapter: Path) -> Path:
    """The bundled base that an adapter was made on."""
    wanted = read_record(adapter).adaptation.base
    for folder in bundled_pipelines().values():
        if fingerprint(load_base(folder)[0]) == wanted:
            return folder
    raise UserError(
        f"{adapter} is an adapter for the base {wanted}, which is not bundled; give the base's folder as the model"
    )


def load_adapted(base: Path, adapter: Path, autoencoder: str | Path | None, dtype: torch.dtype) -> DCVideoGenPipeline:
    """A base pipeline's folder with an adapter put onto each of its transformers."""
    base, place = resolve_pipeline(base), adapter_in(adapter)
    if place is None:
        raise UserError(f"{adapter} is no adapter: it has no {RECORD}; give the adapter/ of an export")
    experts = expert_names(base)
    parts: dict[str, Any] = {}
    info: AdaptationInfo | None = None
    for name in experts:
        original, backbone = load_base(base, name, dtype)
        if backbone.class_name != "WanTransformer3DModel":
            raise UserError(f"{base} has a {backbone.class_name}; pipelines for WanTransformer3DModel are there")
        parts[name], info = load_adapter(original, backbone, place / (name if len(experts) > 1 else "."))
    cpu = torch.device("cpu")
    text = load_text_encoder(base, max_sequence_length=info.trained.max_sequence_length, device=cpu, dtype=dtype)
    parts |= {
        "tokenizer": text.tokenizer,
        "text_encoder": text.model,
        "autoencoder": find_autoencoder(autoencoder, info, dtype),
        "scheduler": load_scheduler(base / "scheduler", info.sampling.shift),
    }
    if parts["transformer"].config.image_dim is not None:
        clip = ImageEncoder(base, cpu, dtype)
        parts |= {"image_encoder": clip.model, "image_processor": clip.processor}
    return pipeline_of(parts, info, expert_sigmas(base)[experts[0]][0] if len(experts) > 1 else None)


def find_autoencoder(autoencoder: str | Path | None, info: AdaptationInfo, dtype: torch.dtype) -> nn.Module:
    """The one that came, or the bundled one of the transformer's latent space."""
    if autoencoder is None:
        spaces = {read_config(folder).get("latent_space_id"): name for name, folder in bundled_models().items()}
        if info.latent_space_id not in spaces:
            raise UserError(
                f"no bundled autoencoder has the latent space {info.latent_space_id}, which the transformer works in; "
                "name the one that it was adapted to"
            )
        autoencoder = spaces[info.latent_space_id]
    return load_autoencoder(autoencoder, dtype=dtype)
