"""What can be evaluated: anything that turns the frames of a clip into frames again, with latents between or not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dcvideogen.evaluation.dct_baseline import BLOCK, DctBaseline
from dcvideogen.geometry import Geometry
from dcvideogen.video import frames_to_video, video_to_frames

OnLatents = Callable[[Tensor], None]


@dataclass(frozen=True)
class Traits:
    """What is said of a subject beside its numbers.

    kind: "model", "peer" or "baseline". compression_ratio: numbers of the video per number of the latents.
    chunk_frames: None where nothing is cut into chunks. latent_channels: None where there are no latents.
    latents_mean, latents_std: what the subject itself takes out of its latents before it hands them out.
    stated: the scaling that its own configuration asks for, for comparison. fingerprint: changes with the weights.
    """

    name: str
    kind: str
    compression_ratio: float
    spatial_ratio: int
    temporal_ratio: int
    chunk_frames: int | None
    fingerprint: str
    latent_channels: int | None = None
    num_parameters: int = 0
    dtype: str = "float32"
    latents_mean: tuple[float, ...] = (0.0,)
    latents_std: tuple[float, ...] = (1.0,)
    stated: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Subject(Protocol):
    """`stream`: uint8 frames (H, W, 3) of one clip -> as many of the same size; every piece of latents is shown."""

    traits: Traits

    def stream(self, frames: Iterable[np.ndarray], on_latents: OnLatents) -> Iterator[np.ndarray]: ...


class Codec(Subject, Protocol):
    """A subject with latents: tensors in and out, on its own device and in its own dtype."""

    device: torch.device

    def encode(self, video: Tensor) -> Tensor:
        """Video (1, 3, T, H, W) in [-1, 1] -> latents (1, C, t, h, w)."""

    def decode(self, latents: Tensor, num_frames: int, height: int, width: int) -> Tensor:
        """Latents -> video (1, 3, num_frames, height, width) in about [-1, 1], float."""


class Streamable(Protocol):
    """The part of AutoencoderDCV that is used here."""

    config: Any
    geometry: Geometry
    compression_ratio: float
    device: torch.device
    dtype: torch.dtype

    encode: Callable[..., Tensor]
    decode: Callable[..., Tensor]
    encode_stream: Callable[..., Iterator[Tensor]]
    decode_stream: Callable[..., Iterator[Tensor]]
    parameters: Callable[..., Iterator[nn.Parameter]]
    state_dict: Callable[..., dict[str, Tensor]]


class ModelSubject:
    """One of our autoencoders, run chunk by chunk; a non-causal one on the whole clip.

    rows_per_step, offload_state: how the network is run; they do not change the result.
    """

    def __init__(
        self, model: Streamable, name: str, *, rows_per_step: int | None = None, offload_state: bool = False
    ) -> None:
        self.model, self.device = model, model.device
        self._keywords = {"rows_per_step": rows_per_step, "offload_state": offload_state}
        config, geometry = model.config, model.geometry
        self.traits = Traits(
            name=name,
            kind="model",
            compression_ratio=model.compression_ratio,
            spatial_ratio=geometry.spatial_ratio,
            temporal_ratio=geometry.temporal_ratio,
            chunk_frames=geometry.chunk_frames if config.temporal_mode == "chunk_causal" else None,
            fingerprint=weights_fingerprint(model),
            latent_channels=config.latent_channels,
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
            dtype=dtype_name(model.dtype),
            latents_mean=tuple(config.latents_mean),
            latents_std=tuple(config.latents_std),
            stated=stated_scaling(config.latents_std, config.latents_mean),
        )

    def stream(self, frames: Iterable[np.ndarray], on_latents: OnLatents) -> Iterator[np.ndarray]:
        """At most the frames of a chunk are held, here and in the network."""
        size: list[int] = []
        count = 0

        def videos() -> Iterator[Tensor]:
            nonlocal count
            for group in in_groups(frames, self.model.geometry.chunk_frames):
                size[:] = group[0].shape[:2]
                count += len(group)
                yield frames_to_video(group).to(self.device)

        def latents() -> Iterator[Tensor]:
            for piece in self._encoded(videos()):
                on_latents(piece)
                yield piece

        given = 0
        for video in self._decoded(latents(), size):
            # The last piece may hold frames that only fill up the last latent.
            rebuilt = video_to_frames(video[:, :, : count - given])
            given += len(rebuilt)
            yield from rebuilt

    def encode(self, video: Tensor) -> Tensor:
        return self.model.encode(video.to(self.device), **self._keywords)

    def decode(self, latents: Tensor, num_frames: int, height: int, width: int) -> Tensor:
        return self.model.decode(latents, num_frames=num_frames, height=height, width=width, **self._keywords)

    def _encoded(self, videos: Iterator[Tensor]) -> Iterator[Tensor]:
        if self.model.config.temporal_mode == "non_causal":
            yield self.model.encode(torch.cat(list(videos), dim=2), **self._keywords)
        else:
            yield from self.model.encode_stream(videos, **self._keywords)

    def _decoded(self, latents: Iterator[Tensor], size: list[int]) -> Iterator[Tensor]:
        if self.model.config.temporal_mode == "non_causal":
            whole = torch.cat(list(latents), dim=2)
            yield self.model.decode(whole, height=size[0], width=size[1], **self._keywords)
            return
        first = next(latents)  # now the size of the frames is known
        height, width = size
        yield from self.model.decode_stream(chain([first], latents), height=height, width=width, **self._keywords)


class DctSubject:
    """The fixed 3-D DCT of `dct_baseline` as a subject."""

    def __init__(self) -> None:
        self._baseline = DctBaseline()
        kept = hashlib.sha256(self._baseline.kept.tobytes()).hexdigest()[:16]
        ratio = self._baseline.compression_ratio
        self.traits = Traits("fixed DCT", "baseline", ratio, BLOCK[1], BLOCK[0], None, kept)

    def stream(self, frames: Iterable[np.ndarray], on_latents: OnLatents) -> Iterator[np.ndarray]:
        return self._baseline.stream(frames)


def weights_fingerprint(model: Any) -> str:
    """A digest of all weights and buffers, as they are in memory."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def stated_scaling(std: Iterable[float], mean: Iterable[float]) -> str:
    """Words for a normalisation: one factor, or one per channel."""
    std, mean = tuple(std), tuple(mean)
    if len(std) > 1:
        return f"mean and std of each of {len(std)} channels"
    shift = f", mean {mean[0]:.4f}" if len(mean) == 1 and mean[0] else ""
    return f"factor {1 / std[0]:.4f}{shift}"


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def in_groups(frames: Iterable[np.ndarray], length: int) -> Iterator[list[np.ndarray]]:
    """Lists of `length` frames, the last one maybe shorter."""
    group: list[np.ndarray] = []
    for frame in frames:
        group.append(frame)
        if len(group) == length:
            yield group
            group = []
    if group:
        yield group
