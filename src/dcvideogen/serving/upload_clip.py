"""An uploaded clip, its first frames written anew as H.264 that browsers play. Runs in `upload_child` only."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

from dcvideogen.serving.upload_terms import CLIP, DAMAGED, TOO_LARGE, UNSUPPORTED, Refused

# What phones, cameras and browsers write. Other decoders are not even asked: each is one more to attack.
_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4")
_MIN_SIDE = 16
_MAX_FPS, _USUAL_FPS = 120, Fraction(24)
# Measures compare the autoencoder's output with this file, not with the original, so that a loss here is no error of
# the autoencoder's; it should only be too small to be seen.
_ENCODER = {"crf": "12", "preset": "veryfast", "threads": "1"}
_ROUNDED = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_AVCOL_SPC_BT709 = 1
_UNSPECIFIED = (2, 3)


def rewrite_clip(source: Path, folder: Path, limits: dict[str, Any]) -> dict[str, Any]:
    """The first `clip_frames` frames, turned upright, made smaller where longer than `clip_side`, cut to even sides.

    mp4 and mov, webm and mkv; sound is left out; a varying rate becomes its mean. Returns height, width, num_frames,
    fps (a fraction as text) and shortened (whether frames were left out). Refused: another format or codec, more than
    `upload_pixels` in a frame, damaged or without a frame.
    """
    try:
        with av.open(
            str(source),
            format=_reader(source),
            metadata_errors="ignore",  # texts in a clip may be in any encoding, and are not kept
            container_options={"protocol_whitelist": "file", "codec_whitelist": ",".join(_CODECS)},
        ) as container:
            if not container.streams.video:
                raise Refused(UNSUPPORTED, "the file has no video in it")
            stream = container.streams.video[0]
            context = stream.codec_context
            if context is None or context.name not in _CODECS:
                raise Refused(UNSUPPORTED, f"a video of codec {context.name if context else 'unknown'} came")
            _check_size(context.height, context.width, limits)
            rate = stream.average_rate or stream.guessed_rate or _USUAL_FPS
            fps = min(max(Fraction(rate), Fraction(1)), Fraction(_MAX_FPS)).limit_denominator(1001)
            context.thread_count = 1
            frames = _frames(container.decode(stream), limits)
            return _write(frames, folder / CLIP, fps, limits["clip_frames"])
    except av.FFmpegError as error:
        if isinstance(error, MemoryError) or error.errno == errno.EFBIG:
            raise
        raise Refused(DAMAGED, "the clip cannot be read, it is cut off or damaged") from error


def _reader(source: Path) -> str:
    """By the first bytes, and then this one reader alone: others (playlists, lists of files) open what they name."""
    with source.open("rb") as file:
        start = file.read(12)
    if start[4:8] == b"ftyp":
        return "mov"
    if start[:4] == b"\x1a\x45\xdf\xa3":  # EBML, RFC 8794
        return "matroska"
    raise Refused(UNSUPPORTED, "the file is no clip of a known kind (mp4, mov, webm, mkv)")


def _check_size(height: int, width: int, limits: dict[str, Any]) -> None:
    if height * width == 0:  # FFmpeg's, of sizes that it does not believe
        raise Refused(DAMAGED, "the clip's frames have no possible size")
    if height * width > limits["upload_pixels"]:
        raise Refused(
            TOO_LARGE, f"frames of {width}x{height} came, up to {limits['upload_pixels']:,} pixels are allowed"
        )
    if min(height, width) < _MIN_SIDE:
        raise Refused(UNSUPPORTED, f"frames of {width}x{height} came, {_MIN_SIDE} pixels a side are the least")


def _frames(pictures: Iterator[VideoFrame], limits: dict[str, Any]) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 RGB of one size with even sides."""
    size: tuple[int, int] | None = None
    for picture in pictures:
        _check_size(picture.height, picture.width, limits)  # it may change within a stream
        if size is None:
            scale = min(1.0, limits["clip_side"] / max(picture.height, picture.width))
            # The shorter side of a strip is not made smaller than it may be.
            size = tuple(max(_MIN_SIDE, int(side * scale)) // 2 * 2 for side in (picture.height, picture.width))
            turns = picture.rotation // 90  # counterclockwise; of the first: the size cannot change on the way
        large = picture.height >= 720 or picture.width >= 1280
        frame = picture.reformat(
            height=size[0],
            width=size[1],
            format="rgb24",
            # Unnamed colours as players take them, and dcvideogen.video does.
            src_colorspace=(Colorspace.ITU709 if large else Colorspace.ITU601)
            if picture.colorspace in _UNSPECIFIED
            else None,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.AREA | _ROUNDED,
            threads=1,
        ).to_ndarray()
        yield np.ascontiguousarray(np.rot90(frame, turns))


def _write(frames: Iterator[np.ndarray], target: Path, fps: Fraction, max_frames: int) -> dict[str, Any]:
    count = 0
    first = next(frames, None)
    if first is None:
        raise Refused(DAMAGED, "the clip has no frame that can be read")
    height, width, _ = first.shape
    with av.open(str(target), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps, options=_ENCODER)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / fps
        context.colorspace, context.color_range = _AVCOL_SPC_BT709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        frame: np.ndarray | None = first
        while frame is not None and count < max_frames:
            picture = VideoFrame.from_numpy_buffer(frame, format="rgb24").reformat(
                format="yuv420p",
                interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
                src_color_range=ColorRange.JPEG,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
            picture.pts, picture.time_base = count, 1 / fps
            container.mux(stream.encode(picture))
            count += 1
            frame = next(frames, None)
        container.mux(stream.encode(None))
    shortened = frame is not None
    return {"height": height, "width": width, "num_frames": count, "fps": str(fps), "shortened": shortened}
