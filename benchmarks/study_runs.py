"""The runs of the study of time on disk, and the numbers that are read off those that are done."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcvideogen.errors import UserError
from dcvideogen.files import write_text

Entry = dict[str, Any]  # what study_measure found for one clip
Value = Callable[[Entry], float | None]
MULTIPLES = ("1x", "2x", "5x")  # lengths of the tests, in training lengths
NEAR = 2  # frames on each side of a piece's edge


def write_json(path: Path, value: object) -> None:
    """Numbers that are not finite too: a run that diverges is a result."""
    write_text(path, json.dumps(value))


def check_settings(folder: Path, settings: dict) -> None:
    """Runs of other settings in the same folder would be taken for these."""
    path = folder / "study.json"
    if path.exists() and (begun := json.loads(path.read_text())) != settings:
        changed = ", ".join(f"{name} {begun.get(name)!r}" for name in settings if begun.get(name) != settings[name])
        raise UserError(f"{folder} was begun with other settings: {changed}; use them or another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def unfinished(folder: Path) -> Path | None:
    """The folder of a run, made where it is missing; None when the run is done."""
    folder.mkdir(parents=True, exist_ok=True)
    return None if (folder / "results.json").exists() else folder


@dataclass(frozen=True)
class Runs:
    """What is done: results[name][seed][clip]; `settings` as in study.json."""

    settings: dict[str, Any]
    results: dict[str, dict[int, dict[str, Any]]]
    seconds: dict[str, list[float]]

    @property
    def names(self) -> list[str]:
        """Configurations, the start left out."""
        return [name for name in self.results if name != "start"]

    def mean(self, name: str, seed: int, group: str, value: Value) -> float | None:
        """Mean over the clips of "slow" or "fast" of value(entry of the clip), of those that have one."""
        entries = (self.results[name][seed][clip] for clip in self.settings[group])
        values = [v for v in map(value, entries) if v is not None]
        return statistics.fmean(values) if values else None

    def chunk_frames(self, name: str) -> int:
        last = name.rsplit("-", 1)[-1]
        return int(last) if last.isdigit() else self.settings["num_frames"]


def read_runs(folder: Path) -> Runs:
    results: dict[str, dict[int, dict[str, Any]]] = {}
    seconds: dict[str, list[float]] = {}

    def place(path: Path) -> tuple[Any, ...]:
        name = path.parent.name.rsplit("-seed", 1)[0]
        tail = name.rsplit("-", 1)[-1]
        return (["start", "causal"].index(name) if name in ("start", "causal") else 2 + (name == "non-causal"),
                int(tail) if tail.isdigit() else 0, path)  # fmt: skip

    for path in sorted(folder.glob("*-seed*/results.json"), key=place):
        name, seed = path.parent.name.rsplit("-seed", 1)
        results.setdefault(name, {})[int(seed)] = json.loads(path.read_text())
        journal = path.parent / "metrics.jsonl"
        if journal.exists():
            lines = [json.loads(line) for line in journal.read_text().splitlines()]
            taken = [line["seconds_per_step"] for line in lines if "seconds_per_step" in line]
            seconds.setdefault(name, []).append(statistics.median(taken))
    return Runs(json.loads((folder / "study.json").read_text()), results, seconds)


def frames_of(report: Entry) -> list[float]:
    """PSNR per frame; a frame that is exact counts as 100 dB."""
    return [100.0 if value is None else value for value in report["psnr"]]


def psnr_at(key: str) -> Value:
    """PSNR of the windows of a length, every frame of the clip counting once however many windows hold it.

    Else the middle of the clip, which more of the overlapping windows hold, would pass for an effect of the length.
    """

    def value(entry: Entry) -> float | None:
        reports = entry.get(key)
        if not reports:
            return None
        reports = reports if isinstance(reports, list) else [reports]
        total, length = len(entry["whole"]["psnr"]), len(reports[0]["psnr"])
        values: list[list[float]] = [[] for _ in range(total)]
        for index, report in enumerate(reports):
            start = (total - length) * index // max(1, len(reports) - 1)
            for frame, decibels in enumerate(frames_of(report), start):
                values[frame].append(decibels)
        return statistics.fmean(statistics.fmean(of_frame) for of_frame in values)

    return value


def near_edges(key: str, num_frames: int) -> Value:
    """PSNR of the frames within two of the edge between two pieces of `num_frames`."""

    def value(entry: Entry) -> float | None:
        frames = frames_of(entry[key])
        edges = range(num_frames, len(frames), num_frames)
        near = [frames[edge + offset] for edge in edges for offset in range(-NEAR, NEAR)]
        return statistics.fmean(near) if near else None

    return value


def jump_ratio(key: str) -> Value:
    def value(entry: Entry) -> float | None:
        reports = entry.get(key)
        if not reports:
            return None
        return (reports[0] if isinstance(reports, list) else reports)["edges"]["ratio"]

    return value


def gain_by_frame(runs: Runs, name: str, key: str, groups: tuple[str, ...] = ("slow", "fast")) -> list[float]:
    """Per frame, the PSNR above that of the same seed's start (above 0 dB where there is none), over clips and seeds,
    as far as the shortest clip goes.

    The pictures' own difficulty, which differs from frame to frame by more than any of this, falls out.
    """
    rows = []
    for seed, clips in runs.results[name].items():
        start = runs.results.get("start", {}).get(seed)
        for clip in (clip for group in groups for clip in runs.settings[group]):
            frames = frames_of(clips[clip][key])
            base = frames_of(start[clip][key]) if start else [0.0] * len(frames)
            rows.append([a - b for a, b in zip(frames, base, strict=True)])
    return [statistics.fmean(values) for values in zip(*rows, strict=False)]


def by_position(gains: list[float], chunk_frames: int) -> list[float]:
    """Mean gain per frame position in a chunk, over all full chunks but the first; empty where there is no other."""
    starts = range(chunk_frames, len(gains) - chunk_frames + 1, chunk_frames)
    chunks = [gains[start : start + chunk_frames] for start in starts]
    return [statistics.fmean(values) for values in zip(*chunks, strict=True)]
