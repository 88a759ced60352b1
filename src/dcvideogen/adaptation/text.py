"""Captions -> embeddings, by the text encoder of a base pipeline's folder."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dcvideogen.adaptation.fingerprints import Fingerprints, read_config
from dcvideogen.errors import UserError

# Encoders beside the first one say something that this module does not keep.
OTHER_ENCODERS = ("text_encoder_2", "text_encoder_3")
# Pipelines whose transformers are given all tokens, the padding too, and no mask (diffusers' CogVideoX pipelines).
PADDED_FAMILIES = ("CogVideoX",)
TEXTS_AT_ONCE = 16


class TextEncoder:
    """Embeds texts as Wan's pipeline does (and Mochi's, LTX's, Cosmos'): the last hidden state, trimmed by the mask.

    A caption is cleaned first: entities such as &amp; resolved, runs of spaces made one. `keep_padding`: for families
    that are shown the padding too.
    """

    def __init__(self, model: Any, tokenizer: Any, max_sequence_length: int, keep_padding: bool = False) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.max_sequence_length, self.keep_padding = max_sequence_length, keep_padding

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> list[Tensor]:
        """(L, D) fp32 on the CPU for each text, L at most max_sequence_length; longer texts are cut, as there."""
        cleaned = [clean(text) for text in texts]
        # Texts of like length together: the padding costs as much as the text.
        order = sorted(range(len(cleaned)), key=lambda index: len(cleaned[index]))
        found: list[Tensor | None] = [None] * len(cleaned)
        for start in range(0, len(order), TEXTS_AT_ONCE):
            places = order[start : start + TEXTS_AT_ONCE]
            for place, embeds in zip(places, self._encode([cleaned[place] for place in places]), strict=True):
                found[place] = embeds
        return found

    def _encode(self, texts: list[str]) -> list[Tensor]:
        tokens = self.tokenizer(
            texts,
            padding="max_length" if self.keep_padding else "longest",
            max_length=self.max_sequence_length,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        ids, mask = (to_weights(tensor, self.model) for tensor in (tokens.input_ids, tokens.attention_mask))
        hidden = self.model(ids, None if self.keep_padding else mask).last_hidden_state.float().cpu()
        if self.keep_padding:
            return list(hidden)
        return [row[:length] for row, length in zip(hidden, tokens.attention_mask.sum(dim=1).tolist(), strict=True)]


def to_weights(tensor: Tensor, model: nn.Module) -> Tensor:
    """An input of the model on the device of its weights; as it is where they come only while a layer runs (diffusers'
    sequential offload), because they bring the inputs to them."""
    device = next(model.parameters()).device
    return tensor if device.type == "meta" else tensor.to(device)


def clean(text: str) -> str:
    """As diffusers' Wan pipeline cleans prompts (ftfy's repair of broken encodings left out)."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip()


def pad_embeds(embeds: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor]:
    """(L_i, D) each -> (B, length, D) with zeros behind the text, and the mask (B, length), True where text is."""
    padded = torch.zeros(len(embeds), length, embeds[0].shape[1])
    mask = torch.zeros(len(embeds), length, dtype=torch.bool)
    for row, text in enumerate(embeds):
        padded[row, : len(text)], mask[row, : len(text)] = text, True
    return padded, mask


def text_fingerprint(base: Path, fingerprints: Fingerprints) -> str:
    """Changes with the text encoder's configuration and weights and with the tokenizer's files."""
    check_text_folders(base)
    return f"{fingerprints.folder(base / 'text_encoder')}-{fingerprints.folder(base / 'tokenizer')}"


def check_text_folders(base: Path) -> None:
    for name in ("text_encoder", "tokenizer"):
        if not (base / name).is_dir():
            raise UserError(f"{base} has no {name} folder; give the folder of a whole diffusers pipeline")
    others = [name for name in OTHER_ENCODERS if (base / name).is_dir()]
    if others:
        raise UserError(f"{base} has a {others[0]} too; families with one text encoder are supported")


def load_text_encoder(base: Path, *, max_sequence_length: int, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """From text_encoder/ and tokenizer/ of a pipeline folder, from disk alone.

    The classes are those of transformers that the folders name. Raises UserError when they name none, or the files do
    not load.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()  # a bar for the weights, in the middle of ours for the clips
    check_text_folders(base)
    named = read_config(base / "text_encoder").get("architectures") or [None]
    model_class = _class(transformers, named[0], base / "text_encoder" / "config.json")
    tokenizer_class = _class(transformers, _tokenizer_name(base / "tokenizer"), base / "tokenizer")
    try:
        tokenizer = tokenizer_class.from_pretrained(base / "tokenizer", local_files_only=True)
        model, found = model_class.from_pretrained(
            base / "text_encoder", dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a foreign folder makes the library raise
        raise UserError(f"the text encoder of {base} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    if missing := sorted(found["missing_keys"]):
        raise UserError(f"{base / 'text_encoder'}: its weights lack {missing[0]!r}; get it again")
    family = _pipeline_name(base)
    return TextEncoder(
        # A fresh UMT5 is in training mode, with dropout.
        model.to(device).eval().requires_grad_(False),
        tokenizer,
        max_sequence_length,
        keep_padding=family.startswith(PADDED_FAMILIES),
    )


def _class(library: Any, name: str | None, where: Path) -> Any:
    found = getattr(library, name, None) if name else None
    if found is None:
        raise UserError(f"{where} names the class {name}, which transformers {library.__version__} does not have")
    return found


def _tokenizer_name(folder: Path) -> str | None:
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        return config.get("tokenizer_class")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / 'tokenizer_config.json'} cannot be read ({error}); get the folder again") from error


def _pipeline_name(base: Path) -> str:
    path = base / "model_index.json"
    if not path.is_file():
        return ""
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("_class_name"))
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: no JSON object ({error}); get the folder again") from error
