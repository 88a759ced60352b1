"""How much memory may be taken: what a user says, or what a GPU or the host has to give."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from dcvideogen.errors import UserError

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
# Limits that containers and job schedulers set: (limit, use) of cgroups v2, then v1.
CGROUP_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def parse_memory(text: str) -> int | None:
    """ "8GiB", "800MiB", "7.5 GB" -> bytes; "auto" -> None. UserError for anything else."""
    if text.strip().lower() == "auto":
        return None
    units = {unit.lower(): size for unit, size in UNITS.items()}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip().lower())
    if not found or found[2] not in units or not float(found[1]):
        raise UserError(f"--memory {text!r} came; auto, or a number and a unit such as 8GiB, 800MiB or 8GB is allowed")
    return int(float(found[1]) * units[found[2]])


def available_memory(device: torch.device, root: Path = Path("/")) -> int:
    """Bytes that this process may hold in all, what it has already included: of the GPU, or else of the host.

    root: where proc/ and sys/ are.
    """
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    return free_host_memory(root) + _field(root / "proc/self/status", "VmRSS")


def free_host_memory(root: Path = Path("/")) -> int:
    """Bytes that the system can give without swapping, or what is left of this process's cgroups' limits if less.

    What a cgroup's limit counts as used includes cached files, which it would give up: they count as free.
    """
    free = _field(root / "proc/meminfo", "MemAvailable")
    for folder in _cgroups(root):
        for limit_name, use_name in CGROUP_FILES:
            limit, use = (_number(folder / name) for name in (limit_name, use_name))
            if limit is not None and use is not None:
                free = min(free, limit - use + _cached(folder / "memory.stat"))
    return max(free, 0)


def _cgroups(root: Path) -> list[Path]:
    """This process's cgroups and those above them."""
    file = root / "proc/self/cgroup"
    folders = []
    for line in file.read_text().splitlines() if file.is_file() else ():
        _number, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = root / "sys/fs/cgroup" / controllers
            own = top / path.lstrip("/")
            folders += [own, *(parent for parent in own.parents if parent == top or top in parent.parents)]
    return folders


def _number(file: Path) -> int | None:
    """None where there is no such file, and for "max"."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _cached(stat: Path) -> int:
    try:
        values = dict(line.split() for line in stat.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(values.get("inactive_file", 0)) + int(values.get("active_file", 0))


def _field(file: Path, name: str) -> int:
    """A value in kB of a file of proc/, in bytes."""
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise UserError(f"{file} has no {name}; say how much memory may be taken, such as --memory 8GiB")
