"""What became of the weights that a training started from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class StartReport:
    """Where a new model's tensors came from.

    source: what was read. copied: our tensors that hold the source's numbers (of a 2-D kernel: in one of their planes,
    the rest zero). changed: our tensor -> how it was made where it is no copy. left_out: tensor of the source -> why
    nothing was made of it. notes: what else differs.
    """

    source: str
    copied: tuple[str, ...] = ()
    changed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """The report for people: tensors that share a fate share a line."""
        number = len(self.copied) + len(self.changed)
        yield f"start: {self.source}" + (f", {len(self.copied)} of {number} tensors copied" if number else "")
        for what, fates in (("", self.changed), ("left out: ", self.left_out)):
            for fate in dict.fromkeys(fates.values()):
                names = [name for name, value in fates.items() if value == fate]
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                yield f"start: {what}{', '.join(names[:3])}{more}: {fate}"
        yield from (f"start: {note}" for note in self.notes)
