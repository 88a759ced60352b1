"""How a transformer is trained by flow matching, as it stands in recipes."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from dcvideogen.data.settings import Frozen
from dcvideogen.flow import Distribution


class FlowSettings(Frozen):
    """distribution, shift: of the noise levels, see `flow.sample_sigma`; a larger shift means more noise.

    text_dropout: how often the null prompt takes the place of the text, for guidance; the paper has 0.1.
    image_dropout: how often an image-to-video model is not given its image (its condition and image tokens are zeros).
    sigma_range: only noise levels between these are drawn: one expert's of several.
    """

    distribution: Distribution = "uniform"
    shift: float = Field(default=1.0, gt=0)
    text_dropout: float = Field(default=0.1, ge=0, le=1)
    image_dropout: float = Field(default=0.0, ge=0, le=1)
    sigma_range: tuple[float, float] = (0.0, 1.0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.sigma_range
        if not 0 <= low < high <= 1:
            raise ValueError(f"sigma_range {list(self.sigma_range)} came; two rising numbers from 0 to 1 are allowed")
        return self
