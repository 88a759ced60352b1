"""How a run goes on: the settings of the loop, as they stand in recipes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class FitSettings(BaseModel):
    """How `fit` runs; part of every recipe, under the name `train`.

    optimizer: "adamw", or "muon" (training/muon.py; one process, or "ddp"), which takes a network from random weights
        further in the same steps; the learning rate means the same.
    learning_rate, warmup_steps: a straight rise, then a cosine to 0 at `steps`.
    clip_norm: the norm to which gradients are shortened, per optimiser.
    ema_decay: of the averaged weights, which are the ones that are measured and exported.
    precision: "bf16" computes under autocast; weights, averages and optimiser state are fp32 either way.
    accumulate: backward passes per step; the step's batch is cut into this many parts per process.
    gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
    compile_backend: run encoder and decoder through torch.compile with this backend, such as "inductor"; None: not.
    distributed: "ddp" keeps everything on every process, "fsdp2" a share of it; no difference on one process.
    shard_above: "fsdp2" shares networks with more parameters than this; smaller ones (a discriminator, whose penalty
        needs second derivatives, which FSDP2 has not) are kept as under "ddp".
    loaders: threads that make batches ahead; what they make does not depend on their number.
    log_every, validate_every, checkpoint_every, export_every: steps; the last step does all of them.
    keep_checkpoints: how many of the newest stay. max_nonfinite: how many steps may be skipped by the NaN guard.
    tensorboard: True writes TensorBoard files, None does where the package is installed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(gt=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["bf16", "fp32"] = "bf16"
    accumulate: int = Field(default=1, gt=0)
    gradient_checkpointing: bool = False
    compile_backend: str | None = None
    distributed: Literal["ddp", "fsdp2"] = "ddp"
    shard_above: int = Field(default=10_000_000, ge=0)
    loaders: int = Field(default=2, gt=0)
    seed: int = 0
    log_every: int = Field(default=10, gt=0)
    validate_every: int = Field(default=500, gt=0)
    checkpoint_every: int = Field(default=500, gt=0)
    export_every: int = Field(default=500, gt=0)
    keep_checkpoints: int = Field(default=2, gt=0)
    max_nonfinite: int = Field(default=20, ge=0)
    tensorboard: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.optimizer == "muon" and self.distributed == "fsdp2":
            raise ValueError(
                'optimizer "muon" came with distributed "fsdp2"; it needs whole matrices: "ddp" is allowed'
            )
        return self
