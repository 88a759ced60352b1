"""What is to be generated: one video per job, with all that it depends on, and where it goes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcvideogen.errors import UserError

# Formats that one file holds; a name without a suffix is a folder of pictures.
SUFFIXES = (".mp4", ".mkv", "")
LATENTS_SUFFIX = ".latents.safetensors"
MAX_PROMPT = 10_000


@dataclass(frozen=True)
class Job:
    """One video. number: of the video among those of its seed; its noise depends on both alone (`video_generator`)."""

    prompt: str
    seed: int
    number: int
    output: Path

    @property
    def latents(self) -> Path:
        """Where its latents are kept until the video is written."""
        return self.output.with_name(self.output.stem + LATENTS_SUFFIX)

    def settings(self, shared: Mapping[str, Any]) -> dict[str, Any]:
        """All that the video depends on, as plain values."""
        return {"prompt": self.prompt, "seed": self.seed, "number": self.number, **shared}


def plan_jobs(prompts: Sequence[str], videos: int, seed: int, output: Path, *, many: bool) -> list[Job]:
    """One video per prompt and number. output: the file of the only one, or the folder (`many`) of them all."""
    if not many:
        return [Job(prompts[0], seed, 0, output)]
    width = max(4, len(str(len(prompts) - 1)))
    jobs = []
    for row, prompt in enumerate(prompts):
        for number in range(videos):
            name = f"{row:0{width}d}" + (f"-{number}" if videos > 1 else "")
            jobs.append(Job(prompt, seed, row * videos + number, output / f"{name}.mp4"))
    return jobs


def read_prompts(path: Path) -> list[str]:
    """Of a text file with a prompt per line (empty lines left out), or of a .jsonl with a "prompt" or "caption" each.

    UserError: no such file, no text, no prompt in it.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: {'a folder' if path.is_dir() else 'no such file'}; give a text file with a prompt per line"
        )
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text ({error}); give a text file with a prompt per line") from error
    if path.suffix == ".jsonl":
        lines = [_prompt_of(path, number, line) for number, line in enumerate(lines, start=1)]
    if not lines:
        raise UserError(f"{path} holds no prompt; a prompt per line is needed")
    for line in lines:
        check_prompt(line)
    return lines


def check_prompt(prompt: str) -> None:
    """Raises UserError for a prompt that is empty or a whole book."""
    if not prompt.strip():
        raise UserError("the prompt is empty; say in words what should be seen")
    if len(prompt) > MAX_PROMPT:
        raise UserError(f"the prompt has {len(prompt)} characters; at most {MAX_PROMPT} are allowed")


def _prompt_of(path: Path, number: int, line: str) -> str:
    try:
        row = json.loads(line)
        prompt = row["prompt"] if "prompt" in row else row["caption"]
        if not isinstance(prompt, str):
            raise TypeError("it is no text")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path}, line {number}: no "prompt" or "caption" ({error}); give JSON objects with one'
        ) from error
    return prompt
