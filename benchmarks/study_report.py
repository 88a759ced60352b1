"""Tables, plots and raw numbers of the study of time."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import torch
from study_plots import drawings
from study_runs import (
    MULTIPLES,
    NEAR,
    Runs,
    Value,
    by_position,
    frames_of,
    gain_by_frame,
    jump_ratio,
    near_edges,
    psnr_at,
    read_runs,
    write_text,
)

LATENT_FRAMES = 4  # frames of a latent


def cell(runs: Runs, name: str, group: str, value: Value, digits: int = 2) -> str:
    """Mean over seeds, with half the distance between the lowest and the highest."""
    values = [v for seed in runs.results[name] if (v := runs.mean(name, seed, group, value)) is not None]
    if not values:
        return "-"
    spread = f" ± {(max(values) - min(values)) / 2:.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def against(runs: Runs, name: str, other: str, group: str, value: Value) -> str:
    """Differences to another configuration, one per seed that both have: the same start, the same batches."""
    told = []
    for seed in sorted(set(runs.results[name]) & set(runs.results.get(other, {}))):
        a, b = (runs.mean(one, seed, group, value) for one in (name, other))
        if a is not None and b is not None:
            told.append(f"{a - b:+.2f}")
    return " / ".join(told) or "-"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def write_report(folder: Path, target: Path, plots: Path, hardware: str) -> None:
    """Writes target.md, target.json and the plots, of what is done in `folder`; does nothing when nothing is."""
    runs = read_runs(folder)
    if not runs.names:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    plots.mkdir(parents=True, exist_ok=True)
    write_text(target.with_suffix(".md"), "\n".join(report_lines(runs, hardware)) + "\n")
    raw = {"hardware": hardware, "torch": torch.__version__, "settings": runs.settings, "runs": raw_numbers(runs)}
    write_text(target.with_suffix(".json"), json.dumps(raw, separators=(",", ":")) + "\n")
    for name, drawing in drawings(runs).items():
        write_text(plots / f"{target.name}_{name}.svg", drawing)


def report_lines(runs: Runs, hardware: str) -> list[str]:
    s, length = runs.settings, runs.settings["num_frames"]
    everything = list(runs.results)
    seeds = {name: ", ".join(map(str, sorted(runs.results[name]))) for name in everything}
    columns = [(group, multiple) for group in ("slow", "fast") for multiple in MULTIPLES]
    speed = {name: f"{statistics.fmean(values):.2f}" for name, values in runs.seconds.items()}
    lines = [
        f"# What the link through time gives, {hardware}",
        "",
        f"Made by `benchmarks/autoencoder_study.py`, torch {torch.__version__}: {s['steps']} steps of "
        f"{s['batch_size']} clips of {length} frames at {s['size']} pixels, learning rate {s['learning_rate']:g}, "
        f"{s['precision']}, start: {s['start']}. Same start and same batches for all configurations of a seed. Trained "
        f"on {len(s['training'])} clips, tested on others. Slow: {', '.join(s['slow'])}. Fast: {', '.join(s['fast'])}. "
        "Mean over clips and seeds; ± is half the distance between the seeds. PSNR of 8-bit frames, averaged per "
        "frame. Seconds per step: median, on a machine that did other work at the same time.",
        "",
        "## PSNR in dB by length, in training lengths",
        "",
        *table(
            ["configuration", *(f"{group} {multiple}" for group, multiple in columns), "seeds", "s per step"],
            [
                [name, *(cell(runs, name, g, psnr_at(m)) for g, m in columns), seeds[name], speed.get(name, "-")]
                for name in everything
            ],
        ),
        "",
        "## Difference to causal in dB, seed by seed",
        "",
        *table(
            ["configuration", *(f"{group} {multiple}" for group, multiple in columns)],
            [
                [name, *(against(runs, name, "causal", g, psnr_at(m)) for g, m in columns)]
                for name in runs.names
                if name != "causal"
            ],
        ),
        "",
        f"## Long clips: whole, or cut into pieces of {length} frames by themselves",
        "",
        f"Near an edge: the {2 * NEAR} frames around every multiple of {length}. Jump: how much the error changes "
        "there from one frame to the next, over what it does at other latents' edges; the start, which has no link "
        "through time, says what of it lies in the clips.",
        "",
        *long_clip_table(runs),
        "",
        "## Edges of the configuration's own chunks, whole clip",
        "",
        *table(
            ["configuration", "jump slow", "at the start", "jump fast", "at the start"],
            [
                [name, *(jump for group in ("slow", "fast") for jump in own_jumps(runs, name, group))]
                for name in runs.names
                if name.startswith("chunk")
            ],
        ),
        "",
        "## Where in the clip: gain over the start in dB" if "start" in runs.results else "## Where in the clip: dB",
        "",
        f"Chunks after the first, by latent frame in the chunk; for modes without chunks, of stretches of {length}.",
        "",
        *position_table(runs),
    ]
    return lines


def own_jumps(runs: Runs, name: str, group: str) -> tuple[str, str]:
    """At the configuration's chunk edges: its own, and what the start does at the same frames."""
    frames = str(runs.chunk_frames(name))
    start = "-" if "start" not in runs.results else cell(runs, "start", group, lambda e: e["jumps"].get(frames))
    return cell(runs, name, group, jump_ratio("5x")), start


def long_clip_table(runs: Runs) -> list[str]:
    length = runs.settings["num_frames"]
    rows = []
    for name in runs.results:
        for group in ("slow", "fast"):
            row = [name, group, *(cell(runs, name, group, psnr_at(key)) for key in ("whole", "cut"))]
            row += [cell(runs, name, group, near_edges(key, length)) for key in ("whole", "cut")]
            rows.append(row + [cell(runs, name, group, jump_ratio(key)) for key in ("whole", "cut")])
    head = ["configuration", "clips", "whole", "cut", "near an edge, whole", "cut", "jump, whole", "cut"]
    return table(head, rows)


def position_table(runs: Runs) -> list[str]:
    rows = []
    for name in runs.names:
        gains = gain_by_frame(runs, name, "whole")
        profile = by_position(gains, runs.chunk_frames(name))
        later = profile[LATENT_FRAMES:]
        chunk = [profile[:LATENT_FRAMES], later[:-LATENT_FRAMES], later[-LATENT_FRAMES:]]
        parts = [gains[:4], gains[4:8], gains[8:], *chunk]
        rows.append([name, *(f"{statistics.fmean(part):.2f}" if part else "-" for part in parts)])
    head = ["configuration", "clip's frames 0-3", "4-7", "8 and later", "chunk's first latent", "inner", "last"]
    return table(head, rows)


def raw_numbers(runs: Runs) -> dict[str, Any]:
    """Everything the report is made of, per run and clip; per-frame PSNR to 0.01 dB."""
    return {
        f"{name}-seed{seed}": {
            clip: {
                **{key: psnr_at(key)(entry) for key in (*MULTIPLES, "cut")},
                "ssim": {key: entry[key]["ssim"] for key in ("whole", "cut")},
                "edges": {key: entry[key]["edges"] for key in ("whole", "cut")},
                "own_chunk_edges": jump_ratio("5x")(entry),
                "per_frame": {key: [round(v, 2) for v in frames_of(entry[key])] for key in ("whole", "cut")},
            }
            for clip, entry in clips.items()
        }
        for name, of_seeds in runs.results.items()
        for seed, clips in of_seeds.items()
    }
