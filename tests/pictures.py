"""Pictures that tests share."""

import numpy as np


def waves(num_frames: int, height: int, width: int) -> list[np.ndarray]:
    """Frames (H, W, 3) of coloured waves that move by two pixels per frame."""
    y, x = np.mgrid[:height, :width]
    frames = []
    for index in range(num_frames):
        channels = [128 + 100 * np.sin((x + 2 * index) / 9 + shift + y / 14) for shift in (0, 2, 4)]
        frames.append(np.stack(channels, axis=-1).round().astype(np.uint8))
    return frames


def with_noise(frames: list[np.ndarray], levels: float, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(frame + rng.normal(0, levels, frame.shape)).round().clip(0, 255).astype(np.uint8) for frame in frames]
