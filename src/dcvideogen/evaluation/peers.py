"""Video autoencoders of diffusers beside ours, by class name: the same frames in, frames of the same size out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dcvideogen.errors import UserError
from dcvideogen.evaluation.subjects import OnLatents, Traits, dtype_name, stated_scaling, weights_fingerprint
from dcvideogen.geometry import ceil_to, pad_video
from dcvideogen.video import frames_to_video, video_to_frames


@dataclass(frozen=True)
class PeerRule:
    """How a class sees sizes. `ratios`: (pixels, frames) per latent of a model.

    All of these take 1 + k * t frames: a lone first frame, and then whole latents of t frames.
    """

    ratios: Callable[[Any], tuple[int, int]]
    takes_timestep: bool = False  # where the configuration says so, the decoder is told how noisy the latents are


def _attributes(model: Any) -> tuple[int, int]:
    return model.spatial_compression_ratio, model.temporal_compression_ratio


# Value range [-1, 1] and layout (B, 3, T, H, W) for all of them.
KNOWN = {
    "AutoencoderKLCogVideoX": PeerRule(
        lambda model: (2 ** (len(model.config.block_out_channels) - 1), int(model.config.temporal_compression_ratio))
    ),
    "AutoencoderKLCosmos": PeerRule(
        lambda model: (model.config.spatial_compression_ratio, model.config.temporal_compression_ratio)
    ),
    "AutoencoderKLHunyuanVideo": PeerRule(_attributes),
    "AutoencoderKLHunyuanVideo15": PeerRule(_attributes),
    "AutoencoderKLLTX2Video": PeerRule(_attributes, takes_timestep=True),
    "AutoencoderKLLTXVideo": PeerRule(_attributes, takes_timestep=True),
    "AutoencoderKLMagvit": PeerRule(_attributes),
    "AutoencoderKLMochi": PeerRule(_attributes),
    "AutoencoderKLWan": PeerRule(lambda model: (model.config.scale_factor_spatial, model.config.scale_factor_temporal)),
}


class PeerSubject:
    """A diffusers autoencoder: its posterior's mode (never a sample), its own latents, the whole clip at once.

    A clip is padded at the end of each axis by replication to 1 + k * t frames and whole latents, and cropped after.
    Memory grows with the clip, as these classes have no stream.
    """

    def __init__(self, model: Any, class_name: str) -> None:
        self.model, self.device, self._rule = model, model.device, KNOWN[class_name]
        config = model.config
        spatial, temporal = self._rule.ratios(model)
        channels = config.get("latent_channels") or config.get("z_dim")
        self._timestep = self._rule.takes_timestep and config.get("timestep_conditioning")
        self.traits = Traits(
            name=class_name,
            kind="peer",
            compression_ratio=3 * spatial**2 * temporal / channels,
            spatial_ratio=spatial,
            temporal_ratio=temporal,
            chunk_frames=None,
            fingerprint=weights_fingerprint(model),
            latent_channels=channels,
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
            dtype=dtype_name(model.dtype),
            stated=_stated(config),
        )

    def stream(self, frames: Iterable[np.ndarray], on_latents: OnLatents) -> Iterator[np.ndarray]:
        video = frames_to_video(list(frames))
        latents = self.encode(video)
        on_latents(latents)
        yield from video_to_frames(self.decode(latents, *video.shape[2:]))

    def encode(self, video: Tensor) -> Tensor:
        num_frames, height, width = video.shape[2:]
        spatial, temporal = self.traits.spatial_ratio, self.traits.temporal_ratio
        frames = 1 + ceil_to(num_frames - 1, temporal)
        padded = pad_video(video, ceil_to(height, spatial), ceil_to(width, spatial), frames)
        with self._told():
            latents = self.model.encode(padded.to(self.device, self.model.dtype)).latent_dist.mode()
        expected = (1 + (frames - 1) // temporal, padded.shape[3] // spatial, padded.shape[4] // spatial)
        if tuple(latents.shape[2:]) != expected:
            raise UserError(
                f"{self.traits.name}: its configuration states {spatial} pixels and {temporal} frames per latent, so "
                f"{expected} latents; it made {tuple(latents.shape[2:])}: mend config.json"
            )
        return latents

    def decode(self, latents: Tensor, num_frames: int, height: int, width: int) -> Tensor:
        keywords = {}
        if self._timestep:
            keywords["temb"] = torch.zeros(len(latents), device=self.device, dtype=self.model.dtype)  # no noise in them
        with self._told():
            video = self.model.decode(latents, **keywords).sample
        if any(have < want for have, want in zip(video.shape[2:], (num_frames, height, width), strict=True)):
            raise UserError(
                f"{self.traits.name} gave back {tuple(video.shape[2:])} (frames, height, width) where "
                f"{(num_frames, height, width)} went in; try another number of frames"
            )
        return video[:, :, :num_frames, :height, :width]

    def _told(self) -> _NamedErrors:
        return _NamedErrors(self.traits.name)


class _NamedErrors:
    """A foreign network that does not take a clip is a finding about that clip, not the end of the evaluation."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, RuntimeError | ValueError | NotImplementedError) and not isinstance(
            error, UserError | torch.OutOfMemoryError
        ):
            told = " ".join(str(error).split())[:200]
            raise UserError(f"{self._name} does not take this clip ({told}); try another size") from error


def load_peer(class_name: str, folder: Path, *, device: torch.device, dtype: torch.dtype | None = None) -> PeerSubject:
    """Loads a folder written by save_pretrained, from disk alone; dtype as for our own models.

    Raises UserError for a class that is not known here, a folder that is none or holds another class, and weights that
    cannot be loaded or do not fit.
    """
    if class_name not in KNOWN:
        raise UserError(f"--peer-class {class_name} came; known video autoencoders: {', '.join(KNOWN)}")
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"--peer {folder}: there is no config.json; give a folder written by save_pretrained")
    try:
        stored = json.loads(config.read_text(encoding="utf-8"))
        stored = stored.get("_class_name", class_name)
    except (ValueError, AttributeError) as error:
        raise UserError(f"--peer {folder}: its config.json is no JSON object; get the folder again") from error
    if stored != class_name:
        raise UserError(f"--peer {folder} holds a {stored}, --peer-class says {class_name}; give the class that it is")
    import diffusers

    peer_class = getattr(diffusers, class_name, None)
    if peer_class is None:
        raise UserError(f"{class_name} is not in diffusers {diffusers.__version__}; install a version that has it")
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    try:
        model, found = peer_class.from_pretrained(
            folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a foreign folder makes the library raise
        raise UserError(f"--peer {folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    for kind in ("missing_keys", "unexpected_keys"):
        if found[kind]:
            raise UserError(f"--peer {folder}: {kind.replace('_', ' ')}, the first is {found[kind][0]!r}")
    return PeerSubject(model.to(device).eval(), class_name)


def _stated(config: Any) -> str | None:
    """The scaling that the configuration asks for, in words."""
    std = config.get("latents_std")
    if std:
        return stated_scaling(std, config.get("latents_mean") or (0.0,))
    factor = config.get("scaling_factor")
    return f"factor {factor:.4f}" if isinstance(factor, int | float) and math.isfinite(factor) else None
