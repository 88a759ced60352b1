"""Checkpoints that are whole or not there: temporary folder, fsync, marker of completeness, rename.

A checkpoint is a folder of tensors.safetensors (full tensors by name, however many processes shared them), state.json
and the marker. One process writes it, tensor by tensor, so that the host memory it takes is that of the largest
tensor; torch.distributed.checkpoint would write in parallel, but its index is a pickle, and what it writes can be
read by nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from dcvideogen.errors import UserError
from dcvideogen.training.tensor_file import Entry, write_tensors

MARKER = "COMPLETE"
TENSORS = "tensors.safetensors"
STATE = "state.json"
PREFIX = "step-"


def save_checkpoint(
    folder: Path, step: int, state: dict[str, Any], entries: Sequence[Entry], tensors: Iterable[Tensor], *, keep: int
) -> Path:
    """Writes folder/step-00000123; the newest `keep` stay. state: numbers, strings, lists, dicts.

    A kill at any moment leaves either the whole checkpoint or none. A full disk raises UserError and leaves the
    earlier checkpoints as they were. A complete checkpoint of this step is left as it is.
    """
    target = folder / f"{PREFIX}{step:08d}"
    if (target / MARKER).is_file():
        return target
    temporary = folder / f".{target.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write_tensors(temporary / TENSORS, entries, tensors)
        _write(temporary / STATE, json.dumps(state))
        _write(temporary / MARKER, f"{step}\n")
        _flush_folder(temporary)
        if target.exists():  # no checkpoint: it has no marker
            _remove(target)
        temporary.rename(target)
        _flush_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"the checkpoint of step {step} could not be written to {folder} ({error}); earlier ones are untouched; "
            "free some space and run the same command again"
        ) from error
    for old in find_checkpoints(folder)[:-keep]:
        _remove(old)
    return target


def find_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in `folder`, oldest first; half-written ones are not among them."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / MARKER).is_file())


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Deletes what a killed run left half-written or half-deleted in `folder`; no other run may be using it."""
    for path in folder.glob(pattern):
        shutil.rmtree(path, ignore_errors=True)


class Checkpoint:
    """A checkpoint opened for reading; tensors are read when they are asked for, and nothing in it is executed.

    UserError says when it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.state: dict[str, Any] = json.loads((path / STATE).read_text())
            self._file = safe_open(path / TENSORS, framework="pt", device="cpu")
            self.shapes = {name: tuple(self._file.get_slice(name).get_shape()) for name in self._file.keys()}  # noqa: SIM118
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(
                f"{path} cannot be read ({error}); delete that folder and run the same command again, to go on from "
                "the checkpoint before it"
            ) from error

    def tensor(self, name: str) -> Tensor:
        """The whole tensor, on the CPU."""
        return self._file.get_tensor(name)


def _remove(checkpoint: Path) -> None:
    """Deletes it so that a kill in between leaves nothing that looks complete."""
    doomed = checkpoint.with_name(f".{checkpoint.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    checkpoint.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
