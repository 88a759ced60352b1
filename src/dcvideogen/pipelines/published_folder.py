"""Which folder is one of those that the authors of DC-VideoGen (arXiv 2509.25182) published, and what is in it.

Two layouts, of a pipeline of diffusers without its model_index.json, and with the autoencoder as one `.pt` file:

    dc-ai/DC-Gen-Wan2.1-T2V-14B, ...-I2V-14B    transformer/ text_encoder/ tokenizer/ scheduler/ dc-ae-v-....pt
    nvidia/DC-VideoGen-Wan2.1-14B (older)       transformer_t2v/ and transformer_i2v/ in place of transformer/

Nothing is loaded here: names and shapes are read, and the tensors of the `.pt` stay on the disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcvideogen.adaptation.backbone_wan import WAN
from dcvideogen.adaptation.fingerprints import read_config
from dcvideogen.adaptation.folder import INFO
from dcvideogen.autoencoder.official import infer_config, load_state_dict
from dcvideogen.conditioning import MASK_CHANNELS
from dcvideogen.errors import UserError
from dcvideogen.pipelines.parts import Task, tasks_of

# Subfolder with a transformer -> what its name says it does.
SUBFOLDERS: dict[str, Task | None] = {"transformer": None, "transformer_t2v": "t2v", "transformer_i2v": "i2v"}
# What pipelines of diffusers, and ours, have besides transformers.
AUTOENCODER_SUBFOLDERS = ("vae", "autoencoder")


@dataclass(frozen=True)
class PublishedFolder:
    """What `find_published` found.

    transformers: task -> subfolder. configs: task -> that transformer's config.json. checkpoint: the autoencoder's
    `.pt` file. autoencoder_config: the sizes that its tensors say, fields of AutoencoderDCV. Both are None where the
    folder has no such file.
    """

    folder: Path
    transformers: dict[Task, str]
    configs: dict[Task, dict[str, Any]]
    checkpoint: Path | None
    autoencoder_config: dict[str, Any] | None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What can be asked of it: t2v, i2v or both."""
        return tuple(self.transformers)


def find_published(folder: str | Path) -> PublishedFolder | None:
    """None for anything else: no folder, a pipeline with model_index.json's parts, a folder of ours.

    UserError for a published folder that is broken: no transformer, one of another class or for other latents than the
    autoencoder's, several `.pt` files, one that cannot be read as plain tensors.
    """
    folder = Path(folder)
    if not _is_published(folder):
        return None
    checkpoint = only_checkpoint(folder)
    fields = None
    if checkpoint is not None:
        with naming(checkpoint):
            fields = infer_config(load_state_dict(checkpoint))
    transformers: dict[Task, str] = {}
    configs: dict[Task, dict[str, Any]] = {}
    for name, said in SUBFOLDERS.items():
        if not (folder / name).is_dir():
            continue
        config = read_config(folder / name)
        task = _task_of(folder / name, config)
        if said not in (None, task):
            raise UserError(f"{folder / name} holds a transformer for {task}; its name says {said}; get it again")
        if task in transformers:
            raise UserError(f"{folder} has two transformers for {task}, {transformers[task]} and {name}; remove one")
        transformers[task], configs[task] = name, config
        if fields is not None:
            check_channels(folder / name, config, fields["latent_channels"], checkpoint.name)
    if not transformers:
        raise UserError(
            f"{folder} holds the autoencoder {checkpoint.name} and no transformer; give a folder with a transformer/ "
            "too; `dcvideogen convert` makes a model folder of the autoencoder alone"
        )
    return PublishedFolder(folder, transformers, configs, checkpoint, fields)


def only_checkpoint(folder: Path) -> Path | None:
    """The `.pt` file of a folder; None where there is none, UserError where there are several."""
    found = sorted(path for path in folder.glob("*.pt") if path.is_file() and not path.name.startswith("."))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{folder} has {len(found)} .pt files ({names}); one, the autoencoder's, is allowed")
    return found[0] if found else None


def check_channels(where: Path, config: dict[str, Any], latent_channels: int, autoencoder: str) -> None:
    """UserError unless a transformer's latents have as many channels as an autoencoder's."""
    own = WAN.latent_channels(config)
    if own != latent_channels:
        raise UserError(
            f"{where} generates latents of {own} channels, and the autoencoder {autoencoder} has {latent_channels}; "
            "give the autoencoder that the transformer was adapted to"
        )


@contextmanager
def naming(checkpoint: Path) -> Iterator[None]:
    """Errors about a checkpoint that do not say which file they are about do."""
    try:
        yield
    except UserError as error:
        if str(checkpoint) in str(error):
            raise
        raise UserError(f"{checkpoint}: {error}") from error


def _is_published(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    if any((folder / name).is_dir() for name in SUBFOLDERS if name != "transformer"):
        return True
    parts = (*AUTOENCODER_SUBFOLDERS, "config.json", f"transformer/{INFO}")
    if any((folder / name).exists() for name in parts):
        return False
    return any(folder.glob("[!.]*.pt")) or _is_transformer_without_patches(folder / "transformer")


def _is_transformer_without_patches(folder: Path) -> bool:
    """Wan's class with a token per latent, which only an adapted one has: a folder that lost its `.pt`."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return config["_class_name"] == WAN.class_name and list(config["patch_size"]) == [1, 1, 1]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _task_of(folder: Path, config: dict[str, Any]) -> Task:
    """By its channels: of the latents alone, or with those of a mask and of an image's latents behind them."""
    if config.get("_class_name") != WAN.class_name:
        raise UserError(f"{folder} holds a {config.get('_class_name')}; a published folder has a {WAN.class_name}")
    channels, latent = config.get("in_channels"), config.get("out_channels")
    if not isinstance(channels, int) or not isinstance(latent, int) or latent < 1:
        raise UserError(f"{folder / 'config.json'} says in_channels {channels} and out_channels {latent}; get it again")
    tasks = tasks_of(channels, latent)
    if not tasks:
        raise UserError(
            f"{folder} takes {channels} channels for latents of {latent}; {latent} (text to video) or "
            f"{latent + MASK_CHANNELS + latent} (image to video) are allowed"
        )
    return tasks[0]
