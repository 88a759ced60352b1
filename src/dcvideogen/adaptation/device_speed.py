"""How fast this device computes: measured in a moment, or read from what a run has written down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from dcvideogen.autoencoder.conv3d import conv3d

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# Enough rows for a GPU to be busy; a CPU is with fewer.
ROWS = {"cuda": 8192, "cpu": 512}
# Numbers in the clip of 8 frames that a conv is measured on: large enough for the loops that real clips go through.
CLIP = {"cuda": 2**25, "cpu": 2**20}
# For one measurement. A GPU has to leave its idle clock first.
SECONDS = {"cuda": 0.3, "cpu": 0.1}


def matmul_speed(width: int, precision: str, device: torch.device | None = None) -> tuple[float, str]:
    """TFLOP/s of a linear layer of a transformer of this width, and how that was found, in words.

    Forwards only: backwards is the same kind of product. device: the GPU if there is one when None. Takes SECONDS.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows, width = ROWS[device.type], min(width, 2048)
    tokens = torch.randn(rows, width, device=device, dtype=DTYPES[precision])
    weight = torch.randn(width, width, device=device, dtype=DTYPES[precision])
    speed = 2 * rows * width * width / _fastest(lambda: tokens @ weight, device) / 1e12
    return speed, f"{speed:.3g} TFLOP/s, measured on one linear layer in {precision} on {device_name(device)}"


def conv_speed(channels: int, precision: str, device: torch.device) -> tuple[float, str]:
    """The same of a 3x3x3 conv of constant width, as an autoencoder's are."""
    side = round((CLIP[device.type] / channels / 8) ** 0.5)
    clip = torch.randn(1, channels, 8, side, side, device=device, dtype=DTYPES[precision])
    weight = torch.randn(channels, channels, 3, 3, 3, device=device, dtype=DTYPES[precision])
    if device.type == "cpu":  # as load_autoencoder lays them out
        clip, weight = (one.to(memory_format=torch.channels_last_3d) for one in (clip, weight))
    operations = 2 * weight.numel() * 8 * side * side
    speed = operations / _fastest(lambda: conv3d(clip, weight, None, (1, 1, 1)), device) / 1e12
    return speed, f"{speed:.3g} TFLOP/s, measured on one conv in {precision} on {device_name(device)}"


def _fastest(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of as many runs as fit into SECONDS; at least two after the first, which warms up."""
    best, began, runs = float("inf"), time.perf_counter(), 0
    with torch.no_grad():
        while runs < 3 or time.perf_counter() - began < SECONDS[device.type]:
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best, runs = min(best, time.perf_counter() - start), runs + 1
    return best


def device_name(device: torch.device) -> str:
    """As people call it: "NVIDIA H100 PCIe", "cpu, 8 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'' if threads == 1 else 's'}"


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
