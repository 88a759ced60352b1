"""VBench-I2V's pictures: crops of several shapes, each shape in a folder of its own."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from dcvideogen.errors import UserError
from dcvideogen.evaluation.vbench_prompts import VBenchPrompt

# Those that VBench-I2V comes with; its crop_to_diff_ratio.py makes others.
RATIOS = ("1-1", "8-5", "7-4", "16-9")
DEFAULT_RATIO = "16-9"
MISSING_SHOWN = 3


def crops_folder(images: Path, ratio: str | None, height: int | None, width: int | None) -> tuple[Path, str]:
    """The folder of the crops, and its ratio "W-H".

    images: VBench-I2V's data/crop, with a folder per ratio. ratio: None: the one of the folder that is nearest to the
    video's, or 16-9 if its height and width were not asked for.
    UserError: no such folder, no crops in it, a ratio that it does not have.
    """
    if not images.is_dir():
        raise UserError(f"--images {images}: no such folder; give VBench-I2V's data/crop, with a folder per ratio")
    there = sorted(path.name for path in images.iterdir() if path.is_dir() and _shape(path.name))
    if not there:
        raise UserError(
            f"--images {images}: no folder of crops ({', '.join(RATIOS)}) in it; give VBench-I2V's data/crop"
        )
    if ratio is None and height is not None and width is not None:
        ratio = min(there, key=lambda name: abs(math.log(_shape(name) * height / width)))
    ratio = ratio or DEFAULT_RATIO
    if ratio not in there:
        raise UserError(f"--ratio {ratio}: no such folder in {images}; {', '.join(there)} are there")
    return images / ratio, ratio


def find_images(prompts: Sequence[VBenchPrompt], folder: Path) -> dict[str, Path]:
    """The picture of every prompt, by the prompt. UserError, with the first few names: some are not in the folder."""
    found = {prompt.prompt: folder / prompt.image for prompt in prompts if prompt.image is not None}
    missing = list(dict.fromkeys(path.name for path in found.values() if not path.is_file()))
    if missing:
        more = f" and {len(missing) - MISSING_SHOWN} others" if len(missing) > MISSING_SHOWN else ""
        raise UserError(
            f"{folder}: no {', '.join(missing[:MISSING_SHOWN])}{more}; every prompt needs its picture; download all"
        )
    return found


def _shape(name: str) -> float:
    """Width over height of a folder's name; 0: it is of no crops."""
    match = re.fullmatch(r"([1-9]\d*)-([1-9]\d*)", name)
    return int(match[1]) / int(match[2]) if match else 0.0
