"""Video file <-> frames <-> float video in [-1, 1]: the one place to import reading and writing from.

A *frame* is a numpy array (H, W, 3), uint8, RGB. A *video* is a torch tensor (B, 3, T, H, W), float, in [-1, 1].
"""

from dcvideogen.video.frames import centre_crop, covering_size, frames_to_video, video_to_frames
from dcvideogen.video.images import read_image
from dcvideogen.video.info import VideoInfo, probe
from dcvideogen.video.metadata import read_metadata
from dcvideogen.video.rate import check_fps
from dcvideogen.video.read import iterate_frames, read_video
from dcvideogen.video.threads import BackgroundWriter, prefetch
from dcvideogen.video.write import VideoWriter, write_video

__all__ = [
    "BackgroundWriter",
    "VideoInfo",
    "VideoWriter",
    "centre_crop",
    "check_fps",
    "covering_size",
    "frames_to_video",
    "iterate_frames",
    "prefetch",
    "probe",
    "read_image",
    "read_metadata",
    "read_video",
    "video_to_frames",
    "write_video",
]
