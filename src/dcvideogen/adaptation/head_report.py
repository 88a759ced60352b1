"""What the fit of the head came to, for people and programs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from dcvideogen.files import write_json, write_text

JSON, TABLE = "head.json", "head.txt"
BANDS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class FlowLoss:
    """Flow-matching loss on the held-out draws: the mean squared error of a number of the velocity.

    loss: over all draws; bands: over those with sigma between neighbours of BANDS (None where there are none).
    r2: 1 - loss / variance of the velocity.
    """

    loss: float
    bands: tuple[float | None, ...]
    r2: float


@dataclass(frozen=True)
class HeadReport:
    """before: the head as it came. solved: after least squares; trained: after sgd (None: not asked for).

    training_loss: of the solution, on the draws it was fitted to. ridge, ridge_losses: the chosen one, and the loss of
    each candidate on the clips it was chosen on. tokens, held_out_tokens: rows. seconds: of passes and solution;
    sgd_seconds: of `sgd_steps` steps.
    """

    before: FlowLoss
    solved: FlowLoss | None
    trained: FlowLoss | None
    training_loss: float | None
    ridge: float | None
    ridge_losses: dict[float, float]
    clips: int
    held_out_clips: int
    tokens: int
    held_out_tokens: int
    seconds: float
    sgd_steps: int = 0
    sgd_seconds: float = 0.0

    def write(self, folder: Path) -> None:
        """folder/head.json with everything, folder/head.txt to read."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / JSON, dataclasses.asdict(self))
        write_text(folder / TABLE, self.table())

    def table(self) -> str:
        bands = [f"sigma {low:g}-{high:g}" for low, high in pairwise(BANDS)]
        lines = ["".join(f"{cell:>15}" for cell in ("held-out loss", "all", *bands, "R2"))]
        for name, loss in (("before", self.before), ("solved", self.solved), ("trained", self.trained)):
            if loss is not None:
                cells = [f"{value:.5g}" if value is not None else "none" for value in (loss.loss, *loss.bands)]
                lines.append("".join(f"{cell:>15}" for cell in (name, *cells, f"{loss.r2:.4f}")))
        ridge = "" if self.ridge is None else f", ridge {self.ridge:g}, training loss {self.training_loss:.5g}"
        lines.append(
            f"{self.clips} clips, {self.tokens} tokens; held out {self.held_out_clips}, {self.held_out_tokens}; "
            f"{self.seconds:.3g} s{ridge}"
        )
        if self.sgd_steps:
            lines.append(f"sgd: {self.sgd_steps} steps, {self.sgd_seconds:.3g} s")
        return "\n".join(lines) + "\n"


def report_of(values: dict[str, Any]) -> HeadReport:
    """From the plain values of `dataclasses.asdict`, as JSON gives them back."""
    losses = {name: values[name] and FlowLoss(**{**values[name], "bands": tuple(values[name]["bands"])})
              for name in ("before", "solved", "trained")}  # fmt: skip
    ridges = {float(ridge): loss for ridge, loss in values["ridge_losses"].items()}
    return HeadReport(**{**values, **losses, "ridge_losses": ridges})
