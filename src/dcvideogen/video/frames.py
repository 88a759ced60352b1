"""Frames and float video: the two forms in which pictures travel, and the sizes between them.

A *frame* is a numpy array (H, W, 3), uint8, RGB. A *video* is a torch tensor (B, 3, T, H, W), float, in [-1, 1].
"""

from collections.abc import Sequence

import numpy as np
import torch

from dcvideogen.errors import UserError

LEVELS_PER_UNIT = 127.5  # 256 levels over the interval [-1, 1]


def frames_to_video(frames: Sequence[np.ndarray] | np.ndarray) -> torch.Tensor:
    """Frames (T of (H, W, 3), or one array (T, H, W, 3), uint8) -> float32 video (1, 3, T, H, W) in [-1, 1].

    Raises UserError when there is no frame or the frames differ in size.
    """
    if len(frames) == 0:
        raise UserError("no frames came; at least 1 is needed; check the frame range asked for")
    shapes = {check_frame(frame).shape for frame in frames}
    if len(shapes) > 1:
        sizes = ", ".join(sorted(f"{shape[1]}x{shape[0]}" for shape in shapes))
        raise UserError(f"frames of different sizes came ({sizes}); all must have one size; resize them first")
    height, width, _ = next(iter(shapes))
    video = torch.empty(1, 3, len(frames), height, width)
    for index, frame in enumerate(frames):
        # Filled frame by frame: a float copy of the whole clip in the other layout would double the peak.
        video[0, :, index] = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)
    return video.div_(LEVELS_PER_UNIT).sub_(1)


def video_to_frames(video: torch.Tensor) -> np.ndarray:
    """Video (1, 3, T, H, W) or (3, T, H, W), any float type -> uint8 array (T, H, W, 3).

    round((x + 1) * 127.5), clamped. Raises UserError for another shape or a batch of several clips.
    """
    if video.ndim == 5 and video.shape[0] == 1:
        video = video[0]
    if video.ndim != 4 or video.shape[0] != 3:
        raise UserError(
            f"a video of shape {tuple(video.shape)} came; (1, 3, T, H, W) is allowed; pass the clips one by one"
        )
    height, width = video.shape[-2:]
    frames = np.empty((video.shape[1], height, width, 3), dtype=np.uint8)
    for index in range(video.shape[1]):
        levels = video[:, index].detach().float().add(1).mul_(LEVELS_PER_UNIT).round_().clamp_(0, 255)
        frames[index] = levels.to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return frames


def check_frame(frame: np.ndarray) -> np.ndarray:
    """The frame itself; UserError unless it is (H, W, 3) uint8 with H, W >= 1."""
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise UserError(
            f"a frame of shape {frame.shape} and type {frame.dtype} came; (height, width, 3) uint8 RGB is allowed; "
            "convert it first, for example with video_to_frames"
        )
    return frame


def covering_size(height: int, width: int, target_height: int, target_width: int) -> tuple[int, int]:
    """Smallest (height, width) of the same shape that covers the target, so that a centre crop fits it."""
    if target_height * width >= target_width * height:
        return target_height, max(target_width, round(width * target_height / height))
    return max(target_height, round(height * target_width / width)), target_width


def centre_crop(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle (height, width) of a frame (H, W, ...); a view. An odd rest leaves one row or column more after it."""
    top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
    return frame[top : top + height, left : left + width]
