"""What a video file, image or folder of images is."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from dcvideogen.video.decode import decode
from dcvideogen.video.images import IMAGES_FPS, image_facts, is_image, list_images
from dcvideogen.video.picture import bit_depth, has_alpha, is_full_range, orientation
from dcvideogen.video.source import Source, open_source


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a video file, image or folder of images.

    `container`, `codec`, `pixel_format`: FFmpeg's names ("images" for a folder, "image" for a single one).
    `height`, `width`: pixels as displayed, after rotation and without the padding of our odd-size mp4 files.
    `num_frames`: None when the container does not say. `fps`: frames per second; 24 for images that name no rate.
    `duration_s`: seconds, None when unknown. `rotation`: degrees clockwise by which the stored picture is turned for
    display (0, 90, 180, 270). `bit_depth`: bits per component. `has_audio`: it has sound, which we drop.
    """

    path: Path
    container: str
    codec: str
    pixel_format: str
    height: int
    width: int
    num_frames: int | None
    fps: Fraction
    duration_s: float | None
    rotation: int
    full_range: bool
    bit_depth: int
    has_alpha: bool
    has_audio: bool


def probe(path: str | Path) -> VideoInfo:
    """Facts from the header and the first picture; errors as in `iterate_frames` for what cannot be opened."""
    path = Path(path)
    if path.is_dir() or is_image(path):
        return _probe_images(path)
    with open_source(path) as source:
        return _probe_video(source)


def _probe_video(source: Source) -> VideoInfo:
    picture = next(iter(decode(source, 0, 1))).picture
    transposed, mirrored, flipped = orientation(picture)
    height, width = source.stored_size or (picture.height, picture.width)
    duration = source.stream.duration and float(source.stream.duration * source.stream.time_base)
    if not duration and source.container.duration:
        duration = source.container.duration / av.time_base
    return VideoInfo(
        path=source.path,
        container=source.format_name,
        codec=source.stream.codec_context.name,
        pixel_format=picture.format.name,
        height=width if transposed else height,
        width=height if transposed else width,
        num_frames=source.promised or source.stream.frames or None,
        fps=source.fps,
        duration_s=duration or None,
        rotation=_ROTATIONS.get((transposed, mirrored, flipped), 0),
        full_range=is_full_range(picture),
        bit_depth=bit_depth(picture),
        has_alpha=has_alpha(picture),
        has_audio=bool(source.container.streams.audio),
    )


# Transposing and then mirroring left-right is a quarter turn clockwise.
_ROTATIONS = {(True, True, False): 90, (False, True, True): 180, (True, False, True): 270}


def _probe_images(path: Path) -> VideoInfo:
    paths = list_images(path) if path.is_dir() else [path]
    facts = image_facts(paths[0])
    count = len(paths) if path.is_dir() else facts.num_frames
    return VideoInfo(
        path=path,
        container="images" if path.is_dir() else "image",
        codec=facts.codec,
        pixel_format=facts.mode,
        height=facts.height,
        width=facts.width,
        num_frames=count,
        fps=facts.fps or IMAGES_FPS,
        duration_s=float(count / (facts.fps or IMAGES_FPS)),
        rotation=facts.rotation,
        full_range=True,
        bit_depth=facts.bit_depth,
        has_alpha=facts.has_alpha,
        has_audio=False,
    )
