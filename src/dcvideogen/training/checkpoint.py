"""Checkpoints that are whole or not there: temporary folder, fsync, marker of completeness, rename."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from dcvideogen.errors import UserError

MARKER = "COMPLETE"
STATE = "state.pt"
PREFIX = "step-"


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep: int) -> Path:
    """Writes `state` (tensors, numbers, strings, lists, dicts) as folder/step-00000123; the newest `keep` stay.

    A kill at any moment leaves either the whole checkpoint or none. A full disk raises UserError and leaves the
    earlier checkpoints as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{PREFIX}{step:08d}"
    temporary = folder / f".{target.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        with (temporary / STATE).open("wb") as file:
            torch.save(state, file)
            _flush(file)
        with (temporary / MARKER).open("w") as file:
            file.write(f"{step}\n")
            _flush(file)
        _flush_folder(temporary)
        if target.exists():  # left by a run that was stopped here before
            shutil.rmtree(target)
        temporary.rename(target)
        _flush_folder(folder)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"the checkpoint of step {step} could not be written to {folder} ({error}); earlier ones are untouched; "
            "free some space and run the same command again"
        ) from error
    for old in find_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def find_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in `folder`, oldest first; half-written ones are not among them."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / MARKER).is_file())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote, on the CPU; nothing in the file is executed."""
    return torch.load(path / STATE, map_location="cpu", weights_only=True)


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
