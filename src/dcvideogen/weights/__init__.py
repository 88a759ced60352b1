"""The bundled models: folders in save_pretrained layout beside this file, with their checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from dcvideogen.errors import UserError

FOLDER = Path(__file__).parent
CHECKSUMS = FOLDER / "checksums.json"
DEFAULT_AUTOENCODER = "dcae-small-f32t4c128"


def bundled_models() -> dict[str, Path]:
    """Name -> folder of every autoencoder that came with the package."""
    return {path.parent.name: path.parent for path in sorted(FOLDER.glob("*/config.json"))}


def bundled_pipelines() -> dict[str, Path]:
    """Name -> folder of every base pipeline that came with the package."""
    return {path.parent.name: path.parent for path in sorted(FOLDER.glob("*/model_index.json"))}


def bundled_adapters() -> dict[str, Path]:
    """Name -> folder of every adapter that came with the package, for one of its pipelines."""
    return {path.parent.name: path.parent for path in sorted(FOLDER.glob("*/adapter.json"))}


def resolve_pipeline(name_or_path: str | Path) -> Path:
    """The folder of a bundled pipeline of that name unless there is such a path; other paths as they are."""
    path = Path(name_or_path)
    return path if path.exists() else bundled_pipelines().get(str(name_or_path), path)


def resolve_model(name_or_path: str | Path) -> Path:
    """An existing path, else the folder of a bundled model of that name."""
    path = Path(name_or_path)
    if path.exists():
        return path
    models = bundled_models()
    if str(name_or_path) not in models:
        raise UserError(
            f"no model {str(name_or_path)!r}: neither an existing path nor one of the bundled models "
            f"({', '.join(models) or 'none'})"
        )
    return models[str(name_or_path)]


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weight_files() -> list[Path]:
    return sorted(FOLDER.rglob("*.safetensors"))


def write_checksums() -> None:
    """Records the checksums of the bundled weights; to be run when they change."""
    sums = {str(path.relative_to(FOLDER)): sha256(path) for path in weight_files()}
    CHECKSUMS.write_text(json.dumps(sums, indent=2) + "\n")


def verify_bundled() -> dict[str, bool]:
    """File name -> whether its checksum is the recorded one; missing and unrecorded files count as False."""
    recorded = json.loads(CHECKSUMS.read_text()) if CHECKSUMS.exists() else {}
    present = {str(path.relative_to(FOLDER)): sha256(path) for path in weight_files()}
    return {name: name in recorded and present.get(name) == recorded[name] for name in sorted({*recorded, *present})}
