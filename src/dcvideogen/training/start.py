"""The model before the first step: fresh, from a transform, or from weights that exist already."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from dcvideogen.autoencoder.loading import load_autoencoder
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.autoencoder.presets import PRESETS, check_preset, make_autoencoder
from dcvideogen.errors import UserError
from dcvideogen.training.inflation import inflate
from dcvideogen.training.linear_start import start_from_dct
from dcvideogen.training.new_latents import change_latents
from dcvideogen.training.start_report import StartReport

OFFICIAL_CHUNKS = (
    "official weights saw full chunks alone, so partial_chunk is fill: shorter clips are filled up by repetition; "
    "partial_chunk: shorter trains them as they are"
)
# num_clips, num_frames, size -> clips (num_clips, 3, num_frames, size, size) in [-1, 1] of the training data.
Sample = Callable[[int, int, int], Tensor]


class StartSettings(BaseModel):
    """Part of every autoencoder recipe, under the name `start`.

    weights: where they come from.
        random: fresh ones; needs `preset`.
        dct: the linear start of training/linear_start.py, measured on `sample_clips` clips; needs `preset`.
        model: a model folder or the name of a bundled model, given as `model` (or, where that is missing, as `preset`).
        official: one of the authors' `.pt` files, given as `path`; its latents are multiplied by `scaling_factor`,
            which is known for the published sizes.
        image: the folder of a 2-D image autoencoder, diffusers' `AutoencoderDC`, given as `path`; see
            training/inflation.py.
    preset: the sizes of the new model. For model, official and image it may be missing: the sizes are then those of
        the weights. A model or an official file must agree with it but for the latents.
    latent_channels, posterior, temporal_mode, chunk_frames, partial_chunk: override what preset or weights say. New
        latent channels or another posterior change the convs at the latents alone; see training/new_latents.py, which
        looks at `sample_clips` clips where channels get fewer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: Literal["random", "dct", "model", "official", "image"] = "random"
    preset: str | None = None
    model: str | None = None
    path: Path | None = None
    scaling_factor: float | None = Field(default=None, gt=0)
    sample_clips: int = Field(default=600, gt=0)
    latent_channels: int | None = Field(default=None, gt=0)
    posterior: Literal["deterministic", "gaussian"] | None = None
    temporal_mode: Literal["chunk_causal", "causal", "non_causal"] | None = None
    chunk_frames: int | None = Field(default=None, gt=0)
    partial_chunk: Literal["shorter", "fill"] | None = None

    @model_validator(mode="after")
    def _check(self) -> StartSettings:
        if self.weights in ("random", "dct") and self.preset is None:
            raise UserError(f"weights: {self.weights} needs preset; known: {', '.join(PRESETS)}")
        if self.weights == "model" and self.model is None and self.preset is None:
            raise UserError("weights: model needs model, a model folder or the name of a bundled model")
        if self.weights in ("official", "image") and self.path is None:
            wanted = "a .pt file" if self.weights == "official" else "the folder of a diffusers AutoencoderDC"
            raise UserError(f"weights: {self.weights} needs path, {wanted}")
        if self.model is not None and self.weights != "model":
            raise UserError(f"model is given, but weights is {self.weights}; use weights: model, or leave model out")
        if self.path is not None and self.weights not in ("official", "image"):
            raise UserError(
                f"path is given, but weights is {self.weights}; use weights: official or image, or leave path out"
            )
        if self.scaling_factor is not None and self.weights != "official":
            raise UserError(f"scaling_factor is for weights: official alone, and weights is {self.weights}")
        if self.preset is not None:
            check_preset(self.preset)
        return self

    def overrides(self) -> dict[str, Any]:
        """The configuration fields that are given here."""
        names = ("latent_channels", "posterior", "temporal_mode", "chunk_frames", "partial_chunk")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def make_start(settings: StartSettings, *, seed: int, sample: Sample) -> tuple[AutoencoderDCV, StartReport]:
    """(the model in fp32, ready to be trained; what became of the weights). The same seed gives the same model.

    sample: gives clips of the training data; called only where a start is measured on them.
    Raises UserError where the settings and the weights do not go together.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if settings.weights in ("random", "dct"):
            model = make_autoencoder(settings.preset, **settings.overrides())
            report = StartReport(f"fresh weights of preset {settings.preset}")
            if settings.weights == "dct":
                kept = start_from_dct(model, clips_for(model, settings, sample))
                report = StartReport(
                    f"linear start of preset {settings.preset} on {settings.sample_clips} clips; the DCT coefficients "
                    f"keep {100 * kept:.2f} % of their energy"
                )
        else:
            model, report = start_from_weights(settings, sample)
    return model.float().train(), report


def start_from_weights(settings: StartSettings, sample: Sample) -> tuple[AutoencoderDCV, StartReport]:
    """Weights that exist, brought to the latents that are asked for."""
    preset = settings.preset
    changes = {**PRESETS.get(preset, {}), **settings.overrides()}
    if settings.weights == "image":
        model, report = inflate(settings.path, changes)
    elif settings.weights == "official":
        model = AutoencoderDCV.from_official_checkpoint(settings.path, settings.scaling_factor).float()
        report = StartReport(f"official checkpoint {settings.path}", tuple(model.state_dict()))
        if "partial_chunk" not in changes:
            report = dataclasses.replace(report, notes=(OFFICIAL_CHUNKS,))
    else:
        source = settings.model or preset
        if settings.model is None:
            changes = settings.overrides()
        model = load_autoencoder(source, dtype=torch.float32).to(memory_format=torch.contiguous_format)
        report = StartReport(f"model {source}", tuple(model.state_dict()))
    model, changed = change_latents(model, changes, lambda: clips_for(model, settings, sample))
    copied = tuple(name for name in report.copied if name not in changed)
    return model, dataclasses.replace(report, copied=copied, changed={**report.changed, **changed})


def clips_for(model: AutoencoderDCV, settings: StartSettings, sample: Sample) -> Tensor:
    """Clips of two latents' length and sides: a few thousand latents."""
    geometry = model.geometry
    return sample(settings.sample_clips, 2 * geometry.temporal_ratio, 2 * geometry.spatial_ratio)
