"""The report of the study of image to video: what is kept of the image by the base and by each arm, and all numbers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adaptation_study_report import table
from adaptation_study_results import number
from image_to_video_arms import ARMS
from study_runs import write_json

from dcvideogen.files import write_text

# Retention "within" the base's, and dB "within" what the autoencoder itself can do.
SAME, NEAR = 0.02, 1.0
SCORES = (("retention", 3), ("color", 3), ("shape", 3), ("size", 3), ("background", 3), ("motion", 3), ("joint", 3))
PSNR, POSSIBLE = "first_frame_psnr", "autoencoder_psnr"


@dataclass(frozen=True)
class Results:
    """runs[arm][seed]: results.json. base: base.json, or None. settings: study.json."""

    runs: dict[str, dict[int, dict[str, Any]]]
    base: dict[str, float] | None
    settings: dict[str, Any]

    @property
    def rows(self) -> list[tuple[str, str, list[dict[str, float]]]]:
        """(arm, image guidance, scores of each seed), in the order of the arms."""
        return [
            (name, guidance, [run["scores"][guidance] for run in self.runs[name].values()])
            for name in ARMS
            if name in self.runs
            for guidance in next(iter(self.runs[name].values()))["scores"]
        ]


def read_results(folder: Path) -> Results:
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for path in sorted(folder.glob("runs/*-seed*/results.json")):
        name, seed = path.parent.name.rsplit("-seed", 1)
        runs.setdefault(name, {})[int(seed)] = json.loads(path.read_text())
    base = folder / "base.json"
    settings = json.loads((folder / "study.json").read_text())
    return Results(runs, json.loads(base.read_text()) if base.exists() else None, settings)


def write_report(folder: Path, target: Path, hardware: str) -> None:
    """target.md and target.json, from what is done."""
    results = read_results(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    written = asdict(results)
    for name in ("base", "clips"):  # where they lay is of no use to others
        written["settings"][name] = Path(written["settings"][name]).name
    write_json(target.with_suffix(".json"), written)
    write_text(target.with_suffix(".md"), report(results, hardware))


def report(results: Results, hardware: str) -> str:
    settings = results.settings
    seeds = sorted({seed for runs in results.runs.values() for seed in runs})
    parts = [
        f"# Image to video in the shapes world, {hardware}",
        "Written by benchmarks/image_to_video_study.py from its runs. "
        f"Seeds {', '.join(map(str, seeds)) or 'none yet'}; both ends by least squares, then "
        f"{settings['checkpoints'][-1]} steps of {settings['batch_size']} clips, {settings['optimizer']} at "
        f"{settings['rate']:g}, LoRA rank {settings['rank']}, alpha {settings['alpha']:g}, shift "
        f"{settings['shift']:g}, averaged weights. {settings['captions']} held-out captions x "
        f"{settings['videos']}, each with the first frame of a real clip that no training saw; "
        f"{settings['sampling_steps']} Euler steps, guidance {settings['guidance']:g}. "
        "Retention is the mean of color, shape, size and background, which the image shows; motion is in the text "
        "alone. Mean (range over seeds).",
        score_table(results),
        frame_table(results),
    ]
    if rows := targets(results):
        parts.append("## Targets\n\n" + table(("", "retention", "first frame"), rows))
    return "\n\n".join(parts) + "\n"


def label(arm: str, guidance: str) -> str:
    told = f", image guidance {guidance}" if len(ARMS[arm].image_guidances) > 1 else ""
    return f"({ARMS[arm].letter}) {ARMS[arm].title}{told}"


def score_table(results: Results) -> str:
    rows = [("base model", *(f"{results.base[name]:.{digits}f}" for name, digits in SCORES))] if results.base else []
    for arm, guidance, scores in results.rows:
        cells = (number([one[name] for one in scores], digits) for name, digits in SCORES)
        rows.append((label(arm, guidance), *cells))
    return "## What is seen\n\n" + table(("", *(name for name, _ in SCORES)), rows)


def frame_table(results: Results) -> str:
    """The first frame against the picture, and what the autoencoder alone makes of it."""
    head = ("", "first frame, dB", "autoencoder, dB", "lost, dB", "held-out loss", "training, min")
    rows = [("base model", *frames([results.base]), "", "")] if results.base else []
    for arm, guidance, scores in results.rows:
        runs = results.runs[arm].values()
        loss, minutes = number([run["loss"] for run in runs], 4), number([run["seconds"] / 60 for run in runs], 1)
        rows.append((label(arm, guidance), *frames(scores), loss, minutes))
    told = "The loss of (e) is over the latents that it generates."
    return f"## The first frame\n\n{table(head, rows)}\n\n{told}"


def frames(scores: list[dict[str, float]]) -> tuple[str, str, str]:
    lost = [one[POSSIBLE] - one[PSNR] for one in scores]
    return number([one[PSNR] for one in scores], 2), number([one[POSSIBLE] for one in scores], 2), number(lost, 2)


def targets(results: Results) -> list[tuple[str, str, str]]:
    """By the means over the seeds."""
    if not results.base:
        return []

    def mean(scores: list[dict[str, float]], name: str) -> float:
        return sum(one[name] for one in scores) / len(scores)

    rows = []
    for arm, guidance, scores in results.rows:
        gain = mean(scores, "retention") - results.base["retention"]
        lost = mean(scores, POSSIBLE) - mean(scores, PSNR)
        rows.append((
            label(arm, guidance),
            f"{'met' if gain >= -SAME else 'missed'}: {gain:+.3f} to the base's",
            f"{'met' if lost <= NEAR else 'missed'}: {lost:.2f} dB under the autoencoder's",
        ))  # fmt: skip
    return rows
