"""Options that several commands share, and their checks, made before anything heavy is imported."""

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dcvideogen.errors import UserError

if TYPE_CHECKING:
    import torch

MODEL_HELP = "A model folder, or the name of a bundled model (`dcvideogen models`)."
Height = Annotated[int | None, typer.Option(help="Resize the shorter side and crop the centre; needs --width.")]
Width = Annotated[int | None, typer.Option(help="See --height.")]
NumFrames = Annotated[int | None, typer.Option(help="At most so many frames; all by default.")]
Fps = Annotated[str | None, typer.Option(help="Resample to this rate by time stamp: 24, 23.976 or 24000/1001.")]
RowsPerStep = Annotated[
    int | None, typer.Option(help="Run the network so many pixel rows at a time: same result, less memory, slower.")
]
OffloadState = Annotated[bool, typer.Option("--offload-state", help="Keep the frames between chunks in host memory.")]
Dtype = Annotated[str, typer.Option(help="auto (bf16 on a GPU, fp32 on a CPU), fp32 or bf16.")]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda or cuda:N.")]
OnError = Annotated[str, typer.Option(help="raise, or keep: use what can be read of a damaged file.")]
Crf = Annotated[int, typer.Option(help="Quality of H.264 files, 0 (best) to 51.")]

DTYPES = {"auto": None, "fp32": "float32", "bf16": "bfloat16"}
ON_ERROR = ("raise", "keep")


def check_size(height: int | None, width: int | None) -> None:
    if (height is None) != (width is None):
        raise UserError("only one of --height and --width came; both or neither are allowed")
    for name, value in (("--height", height), ("--width", width)):
        check_at_least_one(name, value)


def check_at_least_one(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UserError(f"{name} {value} came; 1 or more is allowed")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{name} {value} came; {', '.join(allowed)} are allowed")


def check_crf(crf: int) -> None:
    if not 0 <= crf <= 51:
        raise UserError(f"--crf {crf} came; 0 (best) to 51 is allowed; 18 looks like the original")


def parse_fps(text: str | None) -> Fraction | None:
    """ "24", "23.976" or "24000/1001" -> Fraction above 0."""
    if text is None:
        return None
    try:
        fps = Fraction(text)
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if fps <= 0:
        raise UserError(f"--fps {text} came; a number above 0 is allowed, such as 24, 23.976 or 24000/1001")
    return fps


def check_run(rows_per_step: int | None, dtype: str, device: str) -> None:
    """The options that say how the network is run."""
    check_at_least_one("--rows-per-step", rows_per_step)
    check_choice("--dtype", dtype, tuple(DTYPES))
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (":" in device and not (kind == "cuda" and index.isdigit())):
        raise UserError(f"--device {device} came; auto, cpu, cuda, cuda:N are allowed")


def check_inputs_exist(paths: list[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file; give a video file, an image, or a folder of images")


def check_new_folder(output: Path) -> None:
    if output.exists() and (output.is_file() or any(output.iterdir())):
        raise UserError(f"-o {output} exists and is not an empty folder; choose a new one or remove it")


def choose_device(device: str) -> "torch.device":
    """The device to use; UserError when it is a GPU that is not there."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda" if count else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= count:
        raise UserError(f"--device {device} came; {count} GPUs are there; --device cpu always works")
    return chosen


def choose_dtype(dtype: str) -> "torch.dtype | None":
    """The dtype to load a model in; None leaves it to the device."""
    import torch

    name = DTYPES[dtype]
    return None if name is None else getattr(torch, name)


def check_latents_output(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise UserError(f"-o {path.name} came; a name that ends in .safetensors is allowed")
    if path.is_dir():
        raise UserError(f"-o {path} is a folder; the name of a file is allowed, existing or new")
