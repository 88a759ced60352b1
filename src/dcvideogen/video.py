"""Video file <-> frames <-> float video in [-1, 1]: the one place to import reading and writing from."""

from dcvideogen.frames import frames_to_video, video_to_frames
from dcvideogen.images import read_image
from dcvideogen.threads import BackgroundWriter, prefetch
from dcvideogen.video_probe import VideoInfo, probe
from dcvideogen.video_read import iterate_frames, read_video
from dcvideogen.video_write import VideoWriter, write_video

__all__ = [
    "BackgroundWriter",
    "VideoInfo",
    "VideoWriter",
    "frames_to_video",
    "iterate_frames",
    "prefetch",
    "probe",
    "read_image",
    "read_video",
    "video_to_frames",
    "write_video",
]
