"""Prompts, or embeddings in their place, to what the transformer is told of the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dcvideogen.errors import UserError
from dcvideogen.pipelines.denoise import Conditions

if TYPE_CHECKING:
    from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline


def text_conditions(
    pipeline: DCVideoGenPipeline,
    prompt: str | Sequence[str] | None,
    negative: str | Sequence[str] | None,
    embeds: Tensor | None,
    negative_embeds: Tensor | None,
    *,
    guided: bool,
    repeat: int,
    length: int | None,
) -> Conditions:
    """For `repeat` videos of each prompt, one after the other; every text goes through the encoder once.

    negative: one text, or one per prompt; None: the one that stood for no text in training. guided: whether negative
    ones are needed. length: tokens of a text. Raises UserError for another number of negative texts.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt or ())
    count = len(prompts) if embeds is None else len(embeds)
    negatives: list[str] = []
    if guided and negative_embeds is None:
        negative = pipeline.adaptation.trained.null_prompt if negative is None else negative
        negatives = [negative] * count if isinstance(negative, str) else list(negative)
        if len(negatives) != count:
            raise UserError(f"{len(negatives)} negative prompts came for {count} prompts; one, or one each, is allowed")
    if texts := list(dict.fromkeys([*prompts, *negatives])):
        found = dict(zip(texts, pipeline.encode_prompt(texts, length), strict=True))
        embeds = torch.stack([found[text] for text in prompts]) if embeds is None else embeds
        negative_embeds = torch.stack([found[text] for text in negatives]) if negatives else negative_embeds
    device = pipeline._execution_device
    return Conditions(
        embeds.to(device).repeat_interleave(repeat, dim=0),
        negative_embeds.to(device).repeat_interleave(repeat, dim=0) if guided else None,
    )
