"""VBench's prompt lists: which videos it looks for, and what they are called.

VBench's evaluation opens `{prompt}-{index}.mp4` in one flat folder, with the prompt as it stands in its list, whatever
the model was told. It wants 5 videos of every prompt, and 25 of those of temporal flickering, of which it takes the
first 5 that stand still (prompts/README.md of VBench). VBench-I2V wants 5 of every picture and prompt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dcvideogen.errors import UserError
from dcvideogen.evaluation.vbench_scores import ALL_DIMENSIONS, check_dimensions

SAMPLES, FLICKERING_SAMPLES = 5, 25
FLICKERING = "temporal_flickering"
# Of a file's name there may be 255 bytes. Besides the prompt it has "-24.latents.safetensors", while it is written also
# a dot, the number of the process and ".partial".
MAX_NAME_BYTES = 215
LISTS = "VBench_full_info.json, vbench2_i2v_full_info.json or a .txt with a prompt per line"


@dataclass(frozen=True)
class VBenchPrompt:
    """row: in the list, from 0. prompt: as in the list; it names the files. text: what the model is told. dimensions:
    empty where the list does not say. image: name of the first picture's file, in VBench-I2V."""

    row: int
    prompt: str
    text: str
    dimensions: tuple[str, ...] = ()
    image: str | None = None

    @property
    def samples(self) -> int:
        return FLICKERING_SAMPLES if FLICKERING in self.dimensions and self.image is None else SAMPLES

    def file_name(self, index: int) -> str:
        return f"{self.prompt}-{index}.mp4"

    def number(self, index: int) -> int:
        """Of the video among those of the list; the same whatever part of the list is made."""
        return self.row * FLICKERING_SAMPLES + index


def read_prompt_list(path: Path, augmented: Path | None = None) -> list[VBenchPrompt]:
    """Of VBench's JSON, or of a text file with a prompt per line, whose dimension is known if its name is one.

    augmented: a text file whose lines the model is told in place of those of the list. A prompt that comes twice is
    taken once, at its first place, for the dimensions of both: their files have the same names.
    UserError: no such list, none, an augmented one of another length.
    """
    _check_file(path)
    prompts = _from_json(path) if path.suffix == ".json" else _from_text(path)
    if augmented is not None:
        _check_file(augmented)
        texts = _lines(augmented)
        if len(texts) != len(prompts):
            raise UserError(
                f"{augmented} has {len(texts)} prompts and {path} {len(prompts)}; a line for each of the list is needed"
            )
        prompts = [replace(prompt, text=text) for prompt, text in zip(prompts, texts, strict=True)]
    return _merged(prompts)


def with_dimensions(prompts: list[VBenchPrompt], dimensions: list[str], where: str) -> list[VBenchPrompt]:
    """Those that VBench needs for one of the dimensions. where: the option that named them, and the list."""
    check_dimensions(dimensions, where)
    if not any(prompt.dimensions for prompt in prompts):
        raise UserError(f"{where}: the list does not say of which dimensions its prompts are; give VBench's JSON")
    chosen = [prompt for prompt in prompts if set(dimensions) & set(prompt.dimensions)]
    if not chosen:
        raise UserError(f"{where}: the list has no prompt of {', '.join(dimensions)}; give the list that has")
    return chosen


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: {'a folder' if path.is_dir() else 'no such list'}; give {LISTS}")


def _from_json(path: Path) -> list[VBenchPrompt]:
    try:
        rows = json.loads(_text(path))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); give {LISTS}") from error
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path} is no prompt list: a list of objects with prompt_en is needed; give {LISTS}")
    prompts = [_from_row(path, number, row) for number, row in enumerate(rows)]
    if any((prompt.image is None) != (prompts[0].image is None) for prompt in prompts):
        raise UserError(f"{path}: some prompts have an image_name and some have none; give {LISTS}")
    return prompts


def _from_row(path: Path, number: int, row: Any) -> VBenchPrompt:
    where = f"{path}, prompt {number + 1}"
    if not isinstance(row, dict) or not isinstance(row.get("prompt_en"), str):
        raise UserError(f"{where}: an object with a text as prompt_en is needed; give {LISTS}")
    dimensions, image = row.get("dimension"), row.get("image_name")
    if not isinstance(dimensions, list) or not all(isinstance(name, str) for name in dimensions):
        raise UserError(f"{where}: a list of names as dimension is needed; give {LISTS}")
    check_dimensions(dimensions, where)
    if image is not None and (not isinstance(image, str) or Path(image).name != image):
        raise UserError(f"{where}: image_name {image!r} came; the name of a file without a folder is allowed")
    return _checked(where, VBenchPrompt(number, row["prompt_en"], row["prompt_en"], tuple(dimensions), image))


def _from_text(path: Path) -> list[VBenchPrompt]:
    dimensions = (path.stem,) if path.stem in ALL_DIMENSIONS else ()
    return [
        _checked(f"{path}, line {row + 1}", VBenchPrompt(row, text, text, dimensions))
        for row, text in enumerate(_lines(path))
    ]


def _checked(where: str, prompt: VBenchPrompt) -> VBenchPrompt:
    name = prompt.prompt
    if not name.strip() or "/" in name or not name.isprintable() or len(name.encode()) > MAX_NAME_BYTES:
        raise UserError(
            f"{where}: {name[:60]!r} cannot name a file; 1 to {MAX_NAME_BYTES} bytes without / and control characters "
            "are allowed (an augmented list goes to --augmented)"
        )
    return prompt


def _lines(path: Path) -> list[str]:
    # As VBench reads them: a line ends where the file says so, not at the rarer separators of str.splitlines.
    lines = [line.strip() for line in _text(path).rstrip().split("\n")]
    if lines == [""]:
        raise UserError(f"{path} holds no prompt; a prompt per line is needed")
    if "" in lines:
        raise UserError(f"{path}, line {lines.index('') + 1}: empty; a prompt per line is needed")
    return lines


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text ({error}); give {LISTS}") from error


def _merged(prompts: list[VBenchPrompt]) -> list[VBenchPrompt]:
    merged: dict[str, VBenchPrompt] = {}
    for prompt in prompts:
        first = merged.setdefault(prompt.prompt, prompt)
        if first.image != prompt.image:
            raise UserError(f"{prompt.prompt!r} came with {first.image} and {prompt.image}; their videos share a name")
        both = tuple(dict.fromkeys((*first.dimensions, *prompt.dimensions)))
        merged[prompt.prompt] = replace(first, dimensions=both)
    return list(merged.values())
