"""File -> frames -> video pieces -> latents -> video pieces, as iterators: at most a chunk of pixels is held."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch

from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.video import frames_to_video, iterate_frames, probe


class StageProgress(Protocol):
    """Context manager that is told of frames per stage, as the command line's bars are."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: Any) -> None: ...

    def advance(self, stage: str, frames: int = 1) -> None: ...


@dataclass(frozen=True)
class ClipOptions:
    """Which frames of a file are used; see iterate_frames."""

    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    fps: Fraction | None = None
    on_error: str = "raise"

    def frames(self, path: Path) -> Iterator[np.ndarray]:
        return iterate_frames(
            path,
            num_frames=self.num_frames,
            fps=self.fps,
            height=self.height,
            width=self.width,
            on_error=self.on_error,
        )

    def expected(self, path: Path) -> tuple[int | None, Fraction]:
        """(frames that will come as far as the file says, their frames per second)."""
        info = probe(path)
        total = info.num_frames
        if self.fps is not None and info.fps != self.fps:
            total = None if info.duration_s is None else round(info.duration_s * self.fps)
        if total is not None and self.num_frames is not None:
            total = min(total, self.num_frames)
        return total, self.fps or info.fps


@dataclass(frozen=True)
class RunOptions:
    """How the network is run; nothing here changes the result."""

    rows_per_step: int | None = None
    offload_state: bool = False


def video_pieces(frames: Iterable[np.ndarray], length: int, device: torch.device) -> Iterator[torch.Tensor]:
    """uint8 frames -> videos (1, 3, `length` or fewer at the end, H, W) in [-1, 1] on the device."""
    group: list[np.ndarray] = []
    for frame in frames:
        group.append(frame)
        if len(group) == length:
            yield frames_to_video(group).to(device)
            group = []
    if group:
        yield frames_to_video(group).to(device)


def encode_pieces(model: AutoencoderDCV, videos: Iterable[torch.Tensor], run: RunOptions) -> Iterator[torch.Tensor]:
    """Latents chunk by chunk; of the whole clip at once where the model cannot stream."""
    if model.config.temporal_mode == "non_causal":
        yield model.encode(torch.cat(list(videos), dim=2), **_keywords(run))
    else:
        yield from model.encode_stream(videos, **_keywords(run))


def decode_pieces(
    model: AutoencoderDCV, latents: Iterable[torch.Tensor], run: RunOptions, height: int, width: int
) -> Iterator[torch.Tensor]:
    """Videos of the given size, chunk by chunk; the last one still has the frames that padding added."""
    size = {"height": height, "width": width}
    if model.config.temporal_mode == "non_causal":
        yield model.decode(torch.cat(list(latents), dim=2), **size, **_keywords(run))
    else:
        yield from model.decode_stream(latents, **size, **_keywords(run))


def counted(frames: Iterable[Any], progress: StageProgress, stage: str) -> Iterator[Any]:
    for frame in frames:
        progress.advance(stage)
        yield frame


def latent_space_id(model: AutoencoderDCV) -> str:
    """The configured name of the latent space, or the encoder's fingerprint where none was given."""
    return model.config.latent_space_id or model.fingerprint()


def model_name(name_or_path: str) -> str:
    """A bundled name as it is; of a path its last part alone, so that no file names the folders of a machine."""
    return Path(name_or_path).resolve().name if Path(name_or_path).exists() else name_or_path


def _keywords(run: RunOptions) -> dict[str, Any]:
    return {"rows_per_step": run.rows_per_step, "offload_state": run.offload_state}
