"""What a stage minimises, as it stands in recipes under the name `loss`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LpipsSettings(Frozen):
    """The perceptual distance of evaluation/lpips.py. backbone, heads: files on disk; nothing is downloaded."""

    weight: float = Field(default=1.0, gt=0)
    network: Literal["vgg", "alex"] = "vgg"
    backbone: Path
    heads: Path


class GanSettings(Frozen):
    """The adversarial loss of a stage, hinge with the patch discriminator of training/discriminator.py.

    start: the step from which the discriminator learns and the autoencoder hears of it.
    adaptive: multiply `weight` by the ratio of the gradients of reconstruction and adversarial loss at the decoder's
        last layer, so that 1 means as strong as the reconstruction; otherwise `weight` alone.
    regulariser: "spectral" or "r1", the penalty with weight `r1`. channels: of the discriminator, one entry a layer.
    """

    weight: float = Field(default=0.5, gt=0)
    start: int = Field(default=0, ge=0)
    adaptive: bool = True
    regulariser: Literal["spectral", "r1"] = "spectral"
    r1: float = Field(default=10.0, gt=0)
    channels: tuple[int, ...] = Field(default=(32, 64, 128), min_length=1)


class LossSettings(Frozen):
    """Weights of the terms; one of weight 0 is not computed. Each is a function of training/losses.py.

    mse: squared error. charbonnier: absolute error, square below `epsilon` (0 for plain L1). gradient: differences
    between neighbours in space; temporal: in time. ms_ssim: 1 - multi-scale SSIM. kl: of a Gaussian posterior.
    lpips: a perceptual distance with weights from disk; without them ms_ssim and gradient stand in for it.
    latent_noise: the decoder is given latents plus Gaussian noise, its standard deviation drawn per clip between 0 and
        this, in units of each latent channel's own deviation in the clip.
    gan: the adversarial loss, if any.
    """

    mse: float = Field(default=1.0, ge=0)
    charbonnier: float = Field(default=0.0, ge=0)
    epsilon: float = Field(default=0.02, ge=0)
    gradient: float = Field(default=0.0, ge=0)
    temporal: float = Field(default=0.0, ge=0)
    ms_ssim: float = Field(default=0.0, ge=0)
    kl: float = Field(default=0.0, ge=0)
    latent_noise: float = Field(default=0.0, ge=0)
    lpips: LpipsSettings | None = None
    gan: GanSettings | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lpips is None and not (self.mse or self.charbonnier or self.ms_ssim):
            raise ValueError(
                "mse, charbonnier and ms_ssim are 0 and lpips is missing; one of them must say what is wanted"
            )
        return self

    def told(self) -> str:
        """ "mse 1, ms_ssim 0.1, gan 0.5 from step 1000"."""
        plain = ("mse", "charbonnier", "gradient", "temporal", "ms_ssim", "kl", "latent_noise")
        parts = [f"{name} {getattr(self, name):g}" for name in plain if getattr(self, name)]
        if self.lpips is not None:
            parts.append(f"lpips-{self.lpips.network} {self.lpips.weight:g}")
        if self.gan is not None:
            adaptive = "adaptive, " if self.gan.adaptive else ""
            parts.append(f"gan {self.gan.weight:g} ({adaptive}{self.gan.regulariser}) from step {self.gan.start}")
        return ", ".join(parts)
