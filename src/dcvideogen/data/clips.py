"""Training clips: videos and photographs, decoded once into memory-mapped arrays, then cut at random.

Every batch is a function of (seed, step) alone, so the position in the data is the step and nothing else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dcvideogen.data.motion import halved_copies, random_film
from dcvideogen.errors import UserError
from dcvideogen.video import iterate_frames, probe, read_image, video_to_frames

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Sampling:
    """How clips are cut.

    short_sides: smallest and largest shorter side, in pixels, to which a source is scaled before a crop is taken.
    strides: the temporal strides to choose from.
    photo_share: share of the clips that are a camera over a photograph.
    cut_probability: how often such a clip has a cut.
    brightness: standard deviation of the random brightness factor (0 leaves the pixels alone).
    """

    short_sides: tuple[int, int] = (200, 330)
    strides: tuple[int, ...] = (1, 1, 2)
    photo_share: float = 0.15
    cut_probability: float = 0.15
    brightness: float = 0.1


def find_sources(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of `folder` with these names (no suffix), in this order; UserError names the first missing one."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the folder that holds the clips and photographs")
    files = {path.stem: path for path in sorted(folder.rglob("*")) if path.is_file()}
    for name in names:
        if name not in files:
            raise UserError(f"no file named {name}.* in {folder}; it holds: {', '.join(files) or 'nothing'}")
    return [files[name] for name in names]


def decode_to_cache(path: Path, cache: Path, *, short_side: int, max_frames: int) -> Path:
    """Decodes a video or photograph once into a .npy of uint8 frames (T, H, W, 3) and returns its path.

    The file's name carries a digest of the source's size and date and of the settings, so a changed source or
    setting is decoded anew. short_side: pixels; a smaller source stays as it is.
    """
    stat = path.stat()
    key = f"{path.name} {stat.st_size} {stat.st_mtime_ns} {short_side} {max_frames}"
    target = cache / f"{path.stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npy"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        image = read_image(path)
        scale = min(1.0, short_side / min(image.shape[3:]))
        size = [max(1, round(side * scale)) for side in image.shape[3:]]
        image = F.interpolate(image[:, :, 0], size, mode="bicubic", antialias=True).clamp(-1, 1)
        frames = video_to_frames(image[:, :, None])
    else:
        info = probe(path)
        scale = min(1.0, short_side / min(info.height, info.width))
        height, width = max(1, round(info.height * scale)), max(1, round(info.width * scale))
        frames = np.stack(
            list(iterate_frames(path, num_frames=max_frames, height=height, width=width, on_error="keep"))
        )
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        np.save(file, frames)
    os.replace(temporary, target)
    return target


class ClipSampler:
    """Random clips (3, T, size, size) in [-1, 1] out of decoded sources."""

    def __init__(self, sources: Sequence[Path], sampling: Sampling) -> None:
        arrays = [np.load(path, mmap_mode="r") for path in sources]
        self.videos = [array for array in arrays if len(array) > 1]
        # A long video is drawn more often than a short one, but not in proportion: its frames look alike.
        weights = np.sqrt([len(video) for video in self.videos])
        self.weights = weights / weights.sum() if len(weights) else weights
        self.photos = [
            halved_copies(torch.from_numpy(np.array(array[0])).permute(2, 0, 1), 64)
            for array in arrays
            if len(array) == 1
        ]
        self.sampling = sampling
        if not arrays:
            raise UserError("no clips to train on; name at least one video or photograph")

    def batch(self, seed: int, step: int, *, batch_size: int, num_frames: int, size: int) -> Tensor:
        """Videos (batch_size, 3, num_frames, size, size); the same for the same (seed, step) and sizes."""
        clips = []
        for index in range(batch_size):
            rng = np.random.default_rng([seed, step, index])
            from_photo = rng.random() < self.sampling.photo_share if self.photos else False
            take = self._film if from_photo or not self.videos else self._cut
            clips.append(self._augment(take(rng, num_frames, size), rng))
        return torch.stack(clips)

    def _film(self, rng: np.random.Generator, num_frames: int, size: int) -> Tensor:
        copies = self.photos[int(rng.integers(len(self.photos)))]
        low, high = (min(copies[0].shape[1:]) / side for side in reversed(self.sampling.short_sides))
        return random_film(
            rng, copies, num_frames, size, shrink=(low / 2, high), cut_probability=self.sampling.cut_probability
        )

    def _cut(self, rng: np.random.Generator, num_frames: int, size: int) -> Tensor:
        video = self.videos[int(rng.choice(len(self.videos), p=self.weights))]
        length, height, width = video.shape[:3]
        stride = int(rng.choice(self.sampling.strides))
        if (num_frames - 1) * stride >= length:
            stride = 1
        start = int(rng.integers(max(1, length - (num_frames - 1) * stride)))
        indices = np.minimum(np.arange(start, start + num_frames * stride, stride)[:num_frames], length - 1)
        target = float(np.exp(rng.uniform(*np.log(self.sampling.short_sides))))
        side = int(min(round(size * min(height, width) / target), height, width))
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        frames = torch.from_numpy(video[indices, top : top + side, left : left + side]).permute(0, 3, 1, 2).float()
        if side != size:
            frames = F.interpolate(frames, (size, size), mode="bilinear", antialias=True)
        return (frames / 127.5 - 1).transpose(0, 1)

    def _augment(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        if rng.random() < 0.5:
            clip = clip.flip(3)
        if rng.random() < 0.25:
            clip = clip.flip(1)
        factor = float(np.exp(rng.normal(0, self.sampling.brightness)))
        return ((clip + 1) * factor - 1).clamp(-1, 1)
