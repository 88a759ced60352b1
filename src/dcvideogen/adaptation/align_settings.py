"""How the new patch embedder is fitted (stage 1a)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dcvideogen.data.settings import Frozen
from dcvideogen.training.settings import FitSettings

Ridge = Annotated[float, Field(ge=0)]
RIDGES = (0.0, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


class AlignSettings(Frozen):
    """Stage 1a: the new patch embedder against the pooled output of the base model's.

    solver: "least_squares" is the optimum in one pass; "sgd" is the paper's way to the same loss, by `sgd`.
    ridges: candidates, as shares of the mean variance of an input; chosen on `ridge_share` of the training clips, which
    then join the others for the solution itself.
    skip_latent_frames: at the start of every clip that are left out. The base autoencoder's latent 0 holds one pixel
    frame and the new one's a whole group, so 1 of them do not match.
    condition_tokens: image-to-video: the tokens of the frames left out count with latents of zero on both sides, as
    pairs of what the two models are given of the condition image; nothing else tells how it is to be embedded.
    batch_size: clips at once. max_clips: at most so many training clips; None: all.
    sgd_batch_size: clips per step of the paper's way; `sgd`: its steps (those of the authors' code).
    """

    solver: Literal["least_squares", "sgd"] = "least_squares"
    ridges: tuple[Ridge, ...] = Field(default=RIDGES, min_length=1)
    ridge_share: float = Field(default=0.1, gt=0, lt=1)
    skip_latent_frames: int = Field(default=1, ge=0)
    condition_tokens: bool = True
    batch_size: int = Field(default=4, gt=0)
    max_clips: int | None = Field(default=None, ge=2)
    sgd_batch_size: int = Field(default=4, gt=0)
    sgd: FitSettings = FitSettings(
        steps=20_000, learning_rate=2e-4, betas=(0.9, 0.9), ema_decay=0.0, precision="fp32", log_every=100
    )
    seed: int = 0
