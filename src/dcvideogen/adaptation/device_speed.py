"""How fast this device computes: measured in a moment, or read from what a run has written down."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

# Enough rows for a GPU to be busy; a CPU is with fewer.
ROWS = {"cuda": 8192, "cpu": 512}
SECONDS = 0.3


def matmul_speed(width: int, precision: str) -> tuple[float, str]:
    """TFLOP/s of a linear layer of a transformer of this width on this device, and how that was found, in words.

    Forwards only: backwards is the same kind of product. Takes about SECONDS.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rows, width = ROWS[device.type], min(width, 2048)
    tokens = torch.randn(rows, width, device=device, dtype=dtype)
    weight = torch.randn(width, width, device=device, dtype=dtype)
    best, began = float("inf"), time.perf_counter()
    with torch.no_grad():
        while time.perf_counter() - began < SECONDS:
            start = time.perf_counter()
            tokens @ weight
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
    speed = 2 * rows * width * width / best / 1e12
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return speed, f"{speed:.3g} TFLOP/s, measured on one linear layer in {precision} on {where}"


def journal_seconds(folder: Path | None) -> float | None:
    """Seconds per step of a stage that has run, from the newest line of its metrics.jsonl; None without one."""
    path = None if folder is None else folder / "metrics.jsonl"
    if path is None or not path.is_file():
        return None
    found = None
    for line in path.read_text().splitlines():
        try:
            found = json.loads(line).get("seconds_per_step", found)
        except (ValueError, AttributeError):  # half a line, left by a kill
            continue
    return found
