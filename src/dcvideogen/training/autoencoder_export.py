"""An autoencoder in training -> a model folder, and back."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.files import whole_folder
from dcvideogen.training.new_latents import raw_latents

SMALLEST_DEVIATION = 1e-3  # of a channel that is never used


def start_from_folder(folder: Path) -> AutoencoderDCV:
    """An exported model as fp32 weights to train on."""
    return AutoencoderDCV.from_pretrained(folder, torch_dtype=torch.float32).train()


def export_autoencoder(model: AutoencoderDCV, sample: Tensor, folder: Path) -> None:
    """Writes a fp16 model folder, replacing what is there at once.

    An encoder that is not trained keeps its latent space, by name too. Otherwise the space is a new one, whose
    latents have mean 0 and std 1 per channel on `sample`, clips (B, 3, T, H, W).
    """
    fields = {name: value for name, value in model.config.items() if not name.startswith("_")}
    kept = not any(p.requires_grad for p in model.encoder.parameters()) and fields["latent_space_id"]
    if not kept:
        fields["latents_mean"], fields["latents_std"] = latent_statistics(model, sample)
    with torch.device("meta"):
        exported = AutoencoderDCV(**fields)
    weights = {name: tensor.detach().to("cpu", torch.float16) for name, tensor in model.state_dict().items()}
    exported.load_state_dict(weights, assign=True)
    if not kept:
        exported.register_to_config(latent_space_id=exported.fingerprint())
    with whole_folder(folder) as temporary:
        exported.save_pretrained(temporary)


def latent_statistics(model: AutoencoderDCV, sample: Tensor) -> tuple[list[float], list[float]]:
    """Mean and std per channel of the unscaled latents of clips (B, 3, T, H, W)."""
    std, mean = torch.std_mean(raw_latents(model, sample), dim=1)
    # Four digits: the numbers are part of config.json, and a channel that is never used must not blow up.
    return [round(v, 4) for v in mean.tolist()], [max(round(v, 4), SMALLEST_DEVIATION) for v in std.tolist()]
