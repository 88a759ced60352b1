"""Trains the shapes world's text encoder: a byte-level UMT5 encoder that needs no vocabulary and no download.

It learns to tell the five attributes of a caption; its states are then what transformers are shown, and it stays as it
is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ByT5Tokenizer, UMT5Config, UMT5EncoderModel

from dcvideogen.shapes_world import ATTRIBUTES, caption, combinations

WIDTH = 64


def make_text_encoder(seed: int) -> UMT5EncoderModel:
    """States (B, L, 64) of the bytes of a caption; 0.13 M parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = UMT5Config(
            vocab_size=259, d_model=WIDTH, d_kv=16, d_ff=128, num_layers=3, num_heads=4, dropout_rate=0.0
        )  # 256 bytes and three special tokens
        return UMT5EncoderModel(config)


def make_tokenizer() -> ByT5Tokenizer:
    return ByT5Tokenizer(extra_ids=0)


@dataclass(frozen=True)
class CaptionBatch:
    """ids, mask: (B, L) bytes and where there are some; labels: (B, 5), the indices of the attributes."""

    ids: Tensor
    mask: Tensor
    labels: Tensor
    names: tuple[str, ...]

    @property
    def counts(self) -> dict[str, float]:
        return {"captions": len(self.ids)}

    def to(self, device: torch.device) -> CaptionBatch:
        return CaptionBatch(self.ids.to(device), self.mask.to(device), self.labels.to(device), self.names)


class Captions:
    """Batches of training captions, a function of (seed, step)."""

    def __init__(self, batch_size: int, seed: int) -> None:
        self.batch_size, self.seed, self.tokenizer = batch_size, seed, make_tokenizer()
        self.known = combinations("train")

    def batch(self, step: int, part: int, num_parts: int) -> CaptionBatch:
        draw = Random(f"{self.seed} {step}")
        chosen = [draw.choice(self.known) for _ in range(self.batch_size)]
        return self.of(chosen[part * self.batch_size // num_parts : (part + 1) * self.batch_size // num_parts])

    def of(self, chosen: list[Any]) -> CaptionBatch:
        texts = [caption(combination) for combination in chosen]
        tokens = self.tokenizer(texts, padding="longest", return_tensors="pt")
        labels = torch.tensor([combination.indices for combination in chosen])
        return CaptionBatch(tokens.input_ids, tokens.attention_mask, labels, tuple(texts))

    def state(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size, "seed": self.seed}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


class CaptionReader(nn.Module):
    """The encoder, and for each attribute a linear reading of the mean of its states."""

    def __init__(self, encoder: UMT5EncoderModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.readings = nn.ModuleList(nn.Linear(WIDTH, len(values)) for values in ATTRIBUTES.values())

    def forward(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Logits (B, number of values) for each attribute."""
        states = self.encoder(ids, mask).last_hidden_state
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return [reading(mean) for reading in self.readings]


class TextTask:
    """The text encoder's training; see training/task.py. Held out are the captions of the test split."""

    frozen_is_remade = False

    def __init__(self, encoder: UMT5EncoderModel, captions: Captions) -> None:
        self.captions = captions
        self._modules: dict[str, nn.Module] = {"reader": CaptionReader(encoder)}

    def modules(self) -> dict[str, nn.Module]:
        return dict(self._modules)

    def use_modules(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = dict(modules)

    def parameters(self) -> dict[str, list[nn.Parameter]]:
        return {"reader": list(self._modules["reader"].parameters())}

    def losses(self, batch: CaptionBatch, step: int) -> dict[str, Tensor]:
        logits = self._modules["reader"](batch.ids, batch.mask)
        return {"reader": sum(F.cross_entropy(row, batch.labels[:, i]) for i, row in enumerate(logits))}

    def terms(self) -> dict[str, Tensor]:
        return {}

    @torch.no_grad()
    def metrics(self, folder: Path) -> dict[str, float]:
        batch = self.captions.of(combinations("test"))
        reader = self._modules["reader"].eval()
        read = torch.stack([row.argmax(1) for row in reader(batch.ids, batch.mask)], dim=1)
        reader.train()
        return {"all_right": float((read == batch.labels).all(1).float().mean())}

    def export(self, folder: Path) -> None:
        """folder/text_encoder and folder/tokenizer."""
        reader = self._modules["reader"]
        reader.encoder.save_pretrained(folder / "text_encoder")
        make_tokenizer().save_pretrained(folder / "tokenizer")
