"""What an alignment came to, for people and programs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from dcvideogen.files import write_json, write_text

JSON, TABLE = "align.json", "align.txt"


@dataclass(frozen=True)
class AlignReport:
    """Losses are mean squared errors per number of the pooled base embedding, of clips that were held out.

    loss: over frames and condition tokens, which is what is minimised; frames_loss, condition_loss: of each (the second
    None where there are no condition tokens). training_loss: of the training clips.
    r2: 1 - frames_loss / variance of the pooled base embedding. base_variance_kept: the share of the variance of the
    base embedding, before pooling, that the new one still tells: what pooling loses is lost for both solvers.
    channel_losses: of every embedding channel (frames). channel_r2: of each, 0 where the channel does not vary.
    ridge, ridge_losses: the chosen one, and the loss of each candidate on the clips it was chosen on ({} for sgd).
    pooled: base tokens per new token along (time, height, width). tokens, held_out_tokens: rows of the sums.
    seconds: of the pass over the cache and the solution, or of the steps. steps: of sgd; 0 for least squares.
    reference_loss, reached_step, reached_seconds: sgd: the loss it was compared with, and when the held-out loss first
    was within 1 % of it (None: not, or not asked).
    """

    solver: str
    loss: float
    frames_loss: float
    condition_loss: float | None
    training_loss: float
    r2: float
    base_variance_kept: float
    channel_losses: tuple[float, ...]
    channel_r2: tuple[float, ...]
    ridge: float | None
    ridge_losses: dict[float, float]
    pooled: tuple[int, int, int]
    clips: int
    held_out_clips: int
    tokens: int
    held_out_tokens: int
    seconds: float
    steps: int = 0
    reference_loss: float | None = None
    reached_step: int | None = None
    reached_seconds: float | None = None

    def write(self, folder: Path) -> None:
        """folder/align.json with everything, folder/align.txt to read."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / JSON, dataclasses.asdict(self))
        write_text(folder / TABLE, self.table())

    def table(self) -> str:
        order = sorted(range(len(self.channel_r2)), key=self.channel_r2.__getitem__)
        spread = [self.channel_r2[order[round(share * (len(order) - 1))]] for share in (0, 0.05, 0.5, 0.95, 1)]
        rows = [
            ("solver", self.solver if self.ridge is None else f"{self.solver}, ridge {self.ridge:g}"),
            ("held-out loss", f"{self.loss:.6g}"),
            ("  of frames", f"{self.frames_loss:.6g}"),
            ("  of the condition", "none" if self.condition_loss is None else f"{self.condition_loss:.6g}"),
            ("training loss", f"{self.training_loss:.6g}"),
            ("R2 of the pooled base embedding", f"{self.r2:.4f}"),
            ("share of the base embedding's variance kept", f"{self.base_variance_kept:.4f}"),
            ("R2 per channel: min, 5 %, median, 95 %, max", "  ".join(f"{value:.3f}" for value in spread)),
            ("worst channels", "  ".join(f"{index} ({self.channel_losses[index]:.4g})" for index in order[:5])),
            ("base tokens per new token", "x".join(map(str, self.pooled))),
            ("clips, held out", f"{self.clips}, {self.held_out_clips}"),
            ("tokens, held out", f"{self.tokens}, {self.held_out_tokens}"),
            ("seconds", f"{self.seconds:.3g}"),
        ]
        if self.steps:
            rows.append(("steps", str(self.steps)))
        if self.reference_loss is not None:
            reached = f"step {self.reached_step}, {self.reached_seconds:.3g} s" if self.reached_step else "never"
            rows.append((f"within 1 % of {self.reference_loss:.6g}", reached))
        width = max(len(name) for name, _ in rows)
        return "".join(f"{name:<{width}}  {value}\n" for name, value in rows)
