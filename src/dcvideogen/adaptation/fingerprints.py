"""Names for files and model folders by what is in them; a digest is computed once per file and remembered."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from dcvideogen.errors import UserError
from dcvideogen.files import write_text

_PIECE = 1 << 20
# Written into configurations by who saved them: says nothing about the model.
_CONFIG_NOISE = ("_name_or_path", "_diffusers_version", "transformers_version", "torch_dtype", "dtype")


class Fingerprints:
    """Digests of file contents. `memo`: the file in which they are kept, with sizes and dates, from run to run."""

    def __init__(self, memo: Path) -> None:
        self.memo = memo
        try:
            self._known = json.loads(memo.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._known = {}
        self._changed = False

    def file(self, path: Path, offset: int | None = None, size: int | None = None) -> str:
        """Of a file, or of `size` bytes from `offset` on; UserError when it cannot be read."""
        try:
            stat = path.stat()
            name = f"{path.resolve()} {offset} {stat.st_size} {stat.st_mtime_ns}"
            if name not in self._known:
                self._known[name] = _sha256(path, offset or 0, stat.st_size if size is None else size)
                self._changed = True
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); mend or remove it") from error
        return self._known[name]

    def folder(self, folder: Path) -> str:
        """Of a model or tokenizer folder: configuration and weights, or all its files where there are no weights.

        Raises UserError when there is none.
        """
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; a diffusers pipeline folder holds one; give a complete one")
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        weights = [path for path in files if path.suffix == ".safetensors"]
        parts = [(path.name, self.file(path)) for path in weights or files if path.name != "config.json"]
        config = folder / "config.json"
        if config.is_file():
            parts.append(("config.json", json.dumps(read_config(folder, for_digest=True), sort_keys=True)))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def save(self) -> None:
        if self._changed:
            write_text(self.memo, json.dumps(self._known))
            self._changed = False


def read_config(folder: Path, *, for_digest: bool = False) -> dict:
    """config.json of a model folder; UserError when it is missing or none."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("no object")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a complete pipeline folder") from error
    except ValueError as error:
        raise UserError(f"{path}: no JSON object ({error}); get the folder again") from error
    return {key: value for key, value in config.items() if not for_digest or key not in _CONFIG_NOISE}


def _sha256(path: Path, offset: int, size: int) -> str:
    digest, left = hashlib.sha256(), size
    with path.open("rb") as file:
        file.seek(offset)
        while left and (piece := file.read(min(left, _PIECE))):
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()
