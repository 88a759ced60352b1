"""Who may import what: layers only look down, and each heavy library has its room."""

import ast
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "dcvideogen"
FILES = sorted(SOURCE.rglob("*.py"))

# Lower layers first; a module may import its own package and anything of a lower layer, siblings not.
LAYERS = {
    "errors": -1, "version": -1,
    "files": -1,
    "conditioning": 0, "flow": 0, "geometry": 0, "shapes_world": 0, "video": 0, "weights": 0,
    "autoencoder": 1, "data": 1, "evaluation": 1,
    "training": 2,
    "adaptation": 3,
    "pipelines": 4,
    "recipes": 5, "serving": 5,
    "cli": 6,
}  # fmt: skip
FENCES = {
    # Uploads are read by a process that has no memory and no time for torch, which `video` imports.
    "av": ("video", "serving/upload_clip.py"),
    "accelerate": ("training",),
    "diffusers": ("adaptation/", "autoencoder/model.py", "evaluation/peers.py", "pipelines/", "recipes/shapes_base"),
    "peft": ("adaptation/lora.py",),
    # Text and image encoders.
    "transformers": ("adaptation/image_encoder.py", "adaptation/text.py", "pipelines/", "recipes/shapes_base"),
    "imageio_ffmpeg": ("evaluation/vmaf.py",),
    "fastapi": ("serving/",),
    "starlette": ("serving/",),
    "uvicorn": ("cli/serve.py",),
}


def room(path: Path) -> str:
    """The top-level module or package of a file."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Names of all modules that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_only_look_down(path):
    own = room(path)
    if own == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "dcvideogen" and len(parts) > 1 and parts[1] not in (own, "__version__"):
            assert parts[1] in LAYERS, f"{name} has no layer: add it to LAYERS"
            assert LAYERS[parts[1]] < LAYERS[own], f"{path.name} imports {name}, which is not below it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_inside_functions_name_what_exists(path):
    """They are only tried when the function runs."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("dcvideogen"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                named = f"{node.module}.{alias.name}"
                assert hasattr(module, alias.name) or importlib.util.find_spec(named), named


@pytest.mark.parametrize("library", FENCES)
def test_heavy_libraries_stay_in_their_rooms(library):
    for path in FILES:
        if any(name.split(".")[0] == library for name in imports(path)):
            where = str(path.relative_to(SOURCE))
            assert where.startswith(FENCES[library]), f"{where} imports {library}"


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, dcvideogen; print(sorted({'torch', 'diffusers', 'numpy', 'av'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
