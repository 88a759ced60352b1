"""How the new output projection is fitted (stage 1b)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from dcvideogen.adaptation.align_settings import RIDGES, Ridge
from dcvideogen.adaptation.flow_settings import FlowSettings
from dcvideogen.data.settings import Frozen
from dcvideogen.training.settings import FitSettings


class HeadSettings(Frozen):
    """Stage 1b: the output projection by least squares, and then, by gradient, both ends.

    solver: "least_squares" is the optimum of the flow-matching loss over the draws with all before the projection
    frozen; "none" leaves the projection as it is.
    flow: how sigma is drawn and how often text is dropped, as in the stages that follow.
    draws: of noise, sigma and text for each clip; held_out_draws: for each held-out clip, on which losses are told.
    ridges: candidates, as shares of the mean variance of a feature; chosen on `ridge_share` of the training clips,
    which then join the others for the solution itself. max_clips, max_held_out_clips: at most so many go through the
    transformer for least squares, each draws times (None: all); sgd takes all training clips of the cache.
    batch_size: clips at once through the transformer. precision: "bf16" runs it under autocast, as it does in any case
    when it has weights in bf16.
    sgd: steps on embedder, head and its modulation after that (the paper has 3000 to 4000 of 32 clips at 1e-4, its code
    6000 with clip_norm 0.1); None: none. sgd_batch_size: clips per step.
    """

    solver: Literal["least_squares", "none"] = "least_squares"
    flow: FlowSettings = FlowSettings()
    draws: int = Field(default=4, gt=0)
    held_out_draws: int = Field(default=4, gt=0)
    ridges: tuple[Ridge, ...] = Field(default=RIDGES, min_length=1)
    ridge_share: float = Field(default=0.1, gt=0, lt=1)
    max_clips: int | None = Field(default=256, ge=2)
    max_held_out_clips: int | None = Field(default=32, ge=1)
    batch_size: int = Field(default=4, gt=0)
    precision: Literal["bf16", "fp32"] = "fp32"
    sgd: FitSettings | None = None
    sgd_batch_size: int = Field(default=32, gt=0)
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sgd is not None and self.sgd.distributed != "ddp":
            raise ValueError(
                f'sgd.distributed "{self.sgd.distributed}" came for the head; "ddp" is allowed: what is trained is '
                "small, and the transformer is wanted whole afterwards"
            )
        return self
