"""The options of the study of adaptation, and the protocol that they stand for by default."""

from __future__ import annotations

import argparse
from pathlib import Path

from adaptation_study_arms import ARMS


def number_or_share(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def parse(command: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="AE-Adapt-V in the shapes world, against all that one could do instead"
    )
    add = parser.add_argument
    add("--base", type=Path, required=True, help="folder of the base pipeline")
    add("--autoencoder", required=True, help="folder of our autoencoder, or its name")
    add("--clips", type=Path, required=True, help="manifest.jsonl of `dcvideogen shapes render`")
    add("-o", "--output", type=Path, required=True)
    add("--cache", type=Path, help="of `dcvideogen adapt shapes-dc`, to go on with; by default OUTPUT/cache")
    add("--report", type=Path, help="where to write the .md, .json and .svg, without the suffix")
    add("--hardware", default="one CPU core per run")
    add("--base-steps", type=int, default=2400, help="steps that the base was trained for, for the report")
    add("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="ARM")
    add("--seeds", type=int, nargs="+", default=[0, 1])
    add("--checkpoints", type=int, nargs="+", default=[0, 50, 100, 200, 400, 700, 1000], help="the last is the end")
    add("--sweep", type=float, nargs="+", metavar="RATE")
    add("--sweep-steps", type=int, default=100)
    add("--plan", action="store_true", help="print what would run, and do nothing else")
    add("--stop-at", type=int, help="stop the first unfinished run behind this checkpoint")
    add("--optimizer", choices=("adamw", "muon"), default="muon")
    for name, value in {
        "batch-size": 16, "rank": 32, "alpha": 64.0, "ema-decay": 0.99, "shift": 3.0, "guidance": 3.0,
        "sampling-steps": 20, "captions": 32, "final-captions": 64, "final-seeds": 2, "size": 128, "num-frames": 32,
        "max-sequence-length": 64, "alignment-clips": 256, "alignment-held-out": 32, "sgd-align-steps": 20_000,
        "sgd-head-steps": 6000, "sgd-head-batch": 32, "sgd-every": 250,
    }.items():  # fmt: skip
        add(f"--{name}", type=type(value), default=value)
    add("--held-out", type=number_or_share, default=64)
    return parser.parse_args(command)
