"""Clips of the study of time: decoded once, cut at random for training, whole for the tests."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dcvideogen.data.batch import ClipBatch
from dcvideogen.errors import UserError
from dcvideogen.video import iterate_frames, probe, read_video

MAX_FRAMES = 400  # of a training video: more would let the longest one outweigh the others' memory, not their draws
LONGEST = 5  # tests go up to this many times the training length


@dataclass(frozen=True)
class StudyClips:
    """Training batches (the loop's data protocol): functions of the seed and the step alone, every video as often.

    videos: uint8 (T, H, W, 3), each with at least `num_frames` frames. A clip is a square window at a random place,
    from `size` to the shorter side, scaled to `size`; half are mirrored, a quarter runs backwards.
    """

    videos: list[np.ndarray]
    names: tuple[str, ...]
    seed: int
    batch_size: int
    num_frames: int
    size: int

    def batch(self, step: int, part: int, num_parts: int) -> ClipBatch:
        videos, names = self.draw(step)
        share = self.batch_size // num_parts
        own = slice(part * share, (part + 1) * share)
        return ClipBatch(videos[own], names[own], self.num_frames, first=part * share)

    def draw(self, step: int) -> tuple[Tensor, tuple[str, ...]]:
        """The whole batch of a step: videos (B, 3, T, size, size) in [-1, 1] and their names."""
        rng = np.random.default_rng([self.seed, step])
        clips, names = zip(*(self._clip(rng) for _ in range(self.batch_size)), strict=True)
        return torch.stack(clips), names

    def state(self) -> dict[str, Any]:
        return {"seed": self.seed, "names": list(self.names)}

    def load_state(self, state: dict[str, Any]) -> None:
        if state != self.state():
            raise UserError(
                f"the checkpoint was trained on seed {state.get('seed')} of other clips; use another folder"
            )

    def _clip(self, rng: np.random.Generator) -> tuple[Tensor, str]:
        index = int(rng.integers(len(self.videos)))
        video = self.videos[index]
        length, height, width = video.shape[:3]
        start = int(rng.integers(length - self.num_frames + 1))
        side = int(rng.integers(self.size, min(height, width) + 1))
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        window = video[start : start + self.num_frames, top : top + side, left : left + side]
        frames = torch.from_numpy(np.array(window)).permute(0, 3, 1, 2).float()
        frames = F.interpolate(frames, (self.size, self.size), mode="bilinear", antialias=True)
        if rng.random() < 0.5:
            frames = frames.flip(3)
        if rng.random() < 0.25:
            frames = frames.flip(0)
        return (frames / 127.5 - 1).transpose(0, 1), self.names[index]


def find_clips(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    """The files of `folder` with these names, suffixes left out; UserError names the first that is missing."""
    files = {path.stem: path for path in sorted(folder.rglob("*")) if path.is_file()} if folder.is_dir() else {}
    for name in names:
        if name not in files:
            raise UserError(f"no file named {name}.* in {folder}; it holds: {', '.join(files) or 'nothing'}")
    return {name: files[name] for name in names}


def decode(path: Path, cache: Path, short_side: int, num_frames: int) -> np.ndarray:
    """Frames (T, H, W, 3), uint8, memory-mapped; decoded once. UserError when there are less than `num_frames`."""
    stat = path.stat()
    key = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns} {short_side} {num_frames}".encode()).hexdigest()[:12]
    target = cache / f"{path.stem}-{key}.npy"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        info = probe(path)
        scale = min(1.0, short_side / min(info.height, info.width))
        height, width = max(1, round(info.height * scale)), max(1, round(info.width * scale))
        most = max(MAX_FRAMES, num_frames)
        frames = list(iterate_frames(path, num_frames=most, height=height, width=width, on_error="keep"))
        temporary = target.with_name(f".{path.stem}.{os.getpid()}.npy")
        np.save(temporary, np.stack(frames))
        os.replace(temporary, target)
    video = np.load(target, mmap_mode="r")
    if len(video) < num_frames:
        raise UserError(f"{path.name} has {len(video)} frames; training clips of {num_frames} need as many")
    return video


def read_test_clip(path: Path, num_frames: int, size: int) -> Tensor:
    """(1, 3, T, size, size) in [-1, 1]: centre of the picture at 1.5 times the size, the middle of the training scales.

    T is the largest multiple of `num_frames` that the file holds, up to five times; UserError when it holds none.
    """
    covered = size * 3 // 2
    video, _ = read_video(path, num_frames=LONGEST * num_frames, height=covered, width=covered)
    multiples = video.shape[2] // num_frames
    if multiples == 0:
        raise UserError(f"{path.name} has {video.shape[2]} frames; a test needs at least {num_frames}")
    edge = (covered - size) // 2
    return video[:, :, : multiples * num_frames, edge : edge + size, edge : edge + size].contiguous()
