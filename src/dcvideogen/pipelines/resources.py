"""Seconds per stage and peak memory of what a command does."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
GIB = 1024**3


class Stopwatch:
    """Seconds per stage. A stage that runs inside another one stops the outer one's clock meanwhile."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stages: list[str] = []
        self._since = self._start = time.perf_counter()

    @property
    def total_s(self) -> float:
        return time.perf_counter() - self._start

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._book()
        self._stages.append(name)
        try:
            yield
        finally:
            self._book()
            self._stages.pop()

    def iterate(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the time that making each takes counts for the stage."""
        iterator, end = iter(items), object()
        while True:
            with self.stage(name):
                item = next(iterator, end)
            if item is end:
                return
            yield item

    def _book(self) -> None:
        now = time.perf_counter()
        if self._stages:
            self.seconds[self._stages[-1]] = self.seconds.get(self._stages[-1], 0.0) + now - self._since
        self._since = now


class PeakMemory:
    """The most memory in use since this object was made: of the GPU's tensors, else of the whole process."""

    def __init__(self, device: "torch.device") -> None:
        self._device = device
        self._resettable = False
        if device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(device)
        elif sys.platform == "linux":
            try:
                Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
                self._resettable = True
            except OSError:
                pass

    def report(self) -> dict[str, object]:
        """`gib` and `of`, in words."""
        if self._device.type == "cuda":
            import torch

            peak = torch.cuda.max_memory_allocated(self._device)
            return {"gib": peak / GIB, "of": "tensors on the GPU, weights included"}
        if self._resettable:
            status = Path("/proc/self/status").read_text()
            kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
            return {"gib": kib * 1024 / GIB, "of": "the whole process, weights and libraries included"}
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return {"gib": peak / GIB, "of": "the whole process since its start"}
