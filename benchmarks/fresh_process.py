"""Measuring memory: each case in a process of its own, which nothing before it has filled."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def arguments(doc: str, hardware: str, measure: Callable[..., dict]) -> argparse.Namespace:
    """Of the command line: output and hardware. In a process that `run_case` began it measures, prints and ends."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--hardware", default=hardware)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(*json.loads(given.case))))
        sys.exit()
    return given


def run_case(script: str, case: Sequence[object]) -> dict:
    """What `measure` of a script gives for a case, as JSON can hold both. SystemExit with what went wrong."""
    command = [sys.executable, script, "--case", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def resident_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (high-water mark) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def reset_peak() -> None:
    """Sets the high-water mark to what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
