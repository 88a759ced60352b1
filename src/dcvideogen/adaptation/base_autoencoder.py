"""The base model's own autoencoder: normalised latents at the posterior's mode, whatever its family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcvideogen.adaptation.fingerprints import read_config
from dcvideogen.adaptation.time_windows import TimeLayout
from dcvideogen.errors import UserError
from dcvideogen.evaluation.peers import KNOWN, PeerSubject


class BaseAutoencoder:
    """Encodes with a diffusers video autoencoder. `layout`: its time; `spatial_ratio`; `latent_channels`."""

    def __init__(self, model: Any, class_name: str) -> None:
        self.model, self._subject = model, PeerSubject(model, class_name)
        traits = self._subject.traits
        self.spatial_ratio, self.latent_channels = traits.spatial_ratio, traits.latent_channels
        self.layout = TimeLayout(traits.temporal_ratio, lone_first=True)

    @torch.inference_mode()
    def encode(self, video: Tensor) -> Tensor:
        """Video (B, 3, T, H, W) in [-1, 1] -> normalised latents (B, C, t, h, w), fp32 on its device.

        The posterior's mode: a sample would put noise into what is to be met. Raises UserError when the frames or
        sides do not fill whole latents.
        """
        self.layout.num_latents(video.shape[2])
        height, width = video.shape[3:]
        if height % self.spatial_ratio or width % self.spatial_ratio:
            raise UserError(f"{height}x{width} pixels came; multiples of {self.spatial_ratio} are allowed")
        return normalise(self.model, self._subject.encode(video).float())


def normalise(model: Any, latents: Tensor) -> Tensor:
    """Latents (B, C, t, h, w) as the family's transformer is given them: what the configuration says, of

    latents_mean and latents_std (Wan, Mochi, Cosmos, in the configuration; LTX, as buffers), scaling_factor
    (HunyuanVideo, CogVideoX, LTX, Mochi) and shift_factor: (latents - shift - mean) * factor / std, with what is not
    stated left out. Cosmos states a mean and std for each channel and latent frame.
    """
    mean, std = (_statistics(model, name, latents) for name in ("latents_mean", "latents_std"))
    shift, factor = (model.config.get(name) for name in ("shift_factor", "scaling_factor"))
    if shift:
        latents = latents - shift
    if mean is not None:
        latents = latents - mean
    if std is not None:
        latents = latents / std
    return latents * factor if isinstance(factor, int | float) else latents


def _statistics(model: Any, name: str, latents: Tensor) -> Tensor | None:
    stated = model.config.get(name)
    if stated is None:
        stated = getattr(model, name, None)
    if stated is None:
        return None
    values = torch.as_tensor(stated, dtype=latents.dtype, device=latents.device)
    return values.reshape(1, latents.shape[1], -1, 1, 1)[:, :, : latents.shape[2]]


def base_class(folder: Path) -> str:
    """The class name of a vae folder; UserError lists the known ones."""
    name = read_config(folder).get("_class_name")
    if name not in KNOWN:
        raise UserError(f"{folder} holds a {name}; known video autoencoders: {', '.join(KNOWN)}")
    return name


def load_base_autoencoder(folder: Path, device: torch.device) -> BaseAutoencoder:
    """From the `vae` folder of a pipeline, fp32. Raises UserError for unknown classes and broken weights."""
    import diffusers

    name = base_class(folder)
    try:
        model, found = getattr(diffusers, name).from_pretrained(
            folder, torch_dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a foreign folder makes the library raise
        raise UserError(f"{folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    if missing := [*found["missing_keys"], *found["unexpected_keys"]]:
        raise UserError(f"{folder}: its weights do not fit its config.json, the first is {missing[0]!r}; get it again")
    return BaseAutoencoder(model.to(device).eval().requires_grad_(False), name)


def base_sizes(folder: Path) -> tuple[int, int, TimeLayout]:
    """(latent channels, spatial ratio, time layout) from the configuration alone."""
    import diffusers

    name = base_class(folder)
    try:
        with torch.device("meta"):
            cls = getattr(diffusers, name)
            model = cls.from_config(cls.load_config(folder, local_files_only=True))
    except Exception as error:  # as above
        raise UserError(
            f"{folder / 'config.json'} does not fit {name}: {' '.join(str(error).split())[:300]}"
        ) from error
    spatial, temporal = KNOWN[name].ratios(model)
    channels = model.config.get("latent_channels") or model.config.get("z_dim")
    return channels, spatial, TimeLayout(temporal, lone_first=True)
