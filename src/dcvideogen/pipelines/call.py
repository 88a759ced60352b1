"""What a call of a pipeline is given and what it gives: arguments, checked, and frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from dcvideogen.errors import UserError

OUTPUT_TYPES = ("np", "pt", "pil", "latent")
CALLBACK_TENSORS = ("latents", "prompt_embeds", "negative_prompt_embeds")
Callback = Callable[[DiffusionPipeline, int, Tensor, dict[str, Tensor]], dict[str, Tensor]]


@dataclass
class VideoOutput(BaseOutput):
    """frames: of B videos: "np" (B, T, H, W, 3) and "pt" (B, T, 3, H, W) in [0, 1], "pil" B lists of T pictures,
    "latent" normalised latents (B, C, t, h, w)."""

    frames: Any


def check_inputs(
    prompt: str | Sequence[str] | None,
    prompt_embeds: Tensor | None,
    negative_prompt: str | Sequence[str] | None,
    negative_prompt_embeds: Tensor | None,
    num_inference_steps: int,
    output_type: str,
    callback_tensors: Sequence[str],
) -> None:
    """Raises UserError for what cannot be meant, before anything is computed."""
    if (prompt is None) == (prompt_embeds is None):
        raise UserError("one of prompt and prompt_embeds is needed, and only one")
    if negative_prompt is not None and negative_prompt_embeds is not None:
        raise UserError("negative_prompt and negative_prompt_embeds came; one of them is allowed")
    if num_inference_steps < 1:
        raise UserError(f"num_inference_steps {num_inference_steps} came; 1 or more is allowed")
    if output_type not in OUTPUT_TYPES:
        raise UserError(f"output_type {output_type!r} came; {', '.join(OUTPUT_TYPES)} are allowed")
    unknown = [name for name in callback_tensors if name not in CALLBACK_TENSORS]
    if unknown:
        raise UserError(f"callback tensor {unknown[0]!r} came; {', '.join(CALLBACK_TENSORS)} are allowed")
