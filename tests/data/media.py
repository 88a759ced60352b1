"""Small datasets for tests: clips that move, photographs, and files that are broken in the usual ways."""

from __future__ import annotations

import tarfile
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from dcvideogen.video import VideoWriter


def moving_frames(num_frames: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Frames (T, H, W, 3) of a smooth picture that slides two pixels per frame; the corner shows the frame's number."""
    rng = np.random.default_rng(seed)
    rows, columns = np.arange(height)[:, None, None], np.arange(width + 2 * num_frames)[None, :, None]
    phases = rng.uniform(0, 6.28, 3)
    picture = 128 + 60 * np.sin(rows / 9 + phases) + 60 * np.sin(columns / 7 + phases[::-1])
    frames = np.stack([picture[:, 2 * index : 2 * index + width] for index in range(num_frames)]).astype(np.uint8)
    frames[:, 0, 0] = np.arange(num_frames)[:, None]
    return frames


def write_clip(path: Path, frames: np.ndarray, fps: Fraction | int = 24) -> Path:
    with VideoWriter(path, fps=Fraction(fps)) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def write_photo(path: Path, height: int = 64, width: int = 80, seed: int = 0) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def cut_file(path: Path, share: float = 0.5) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def holiday_folder(folder: Path) -> Path:
    """Two good clips (12 and 20 frames), a photograph, and three broken files: cut off, text, and standing still."""
    folder.mkdir(parents=True, exist_ok=True)
    write_clip(folder / "beach.mkv", moving_frames(12, seed=1))
    write_clip(folder / "walk.mp4", moving_frames(20, seed=2))
    write_photo(folder / "view.png")
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    cut_file(write_clip(folder / "cut.mp4", noise))
    (folder / "text.mp4").write_text("this is no video\n" * 20)
    write_clip(folder / "still.mp4", np.repeat(moving_frames(1), 12, axis=0))
    return folder


def write_shard(shard: Path, files: dict[str, Path | str]) -> Path:
    """A tar whose members are copies of files, or texts."""
    with tarfile.open(shard, "w") as tar:
        for name, content in files.items():
            if isinstance(content, str):
                text = shard.parent / "member.tmp"
                text.write_text(content)
                tar.add(text, name)
                text.unlink()
            else:
                tar.add(content, name)
    return shard
