"""Decoded picture -> RGB frame: colour matrix, range, alpha, size, rotation."""

import struct
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from dcvideogen.video.frames import centre_crop, covering_size

# Without these two flags swscale truncates: 8-bit frames come out 1.1 levels too dark on average (4:2:0 to RGB, 1080p,
# against the RGB they were made of: 46.0 dB and 3.6 ms without, 51.7 dB and 9.9 ms with them), and 10-bit white as 253.
_ROUNDED = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# Only the chroma is interpolated when the size stays; bicubic (16 ms) gains nothing there.
_SAME_SIZE = Interpolation.BILINEAR | _ROUNDED
# Reducing averages over the area that a pixel covers, as the published figures of the field do: with it the fixed DCT
# has its published 27.2 dB on the six held-out clips at 256x256, with bicubic, whose pictures are sharper, 26.6.
# On a 1080p zone plate at 256 lines (rms of what should be flat grey / error of what should stay, ms per frame):
# AREA 10.0 / 14.6, 4.6; BILINEAR 2.6 / 18.0, 5.8; BICUBIC 2.0 / 13.3, 9.2; LANCZOS 1.4 / 13.4, 19.
_REDUCED = Interpolation.AREA | _ROUNDED
_ENLARGED = Interpolation.BICUBIC | _ROUNDED
_UNSPECIFIED_MATRICES = (2, 3)  # AVCOL_SPC_UNSPECIFIED, AVCOL_SPC_RESERVED


@dataclass(frozen=True)
class PictureToFrame:
    """Turns decoded pictures into frames (H, W, 3) uint8 RGB.

    The colour matrix is the stream's; where it names none, BT.709 from 720 lines or 1280 columns on and BT.601
    below, as players do. Limited range is expanded. Alpha is composed over black. `stored_size` (height, width)
    crops before anything else, the display matrix turns and mirrors, and `size` (height, width), counted after the
    turn, scales the shorter side (down: by area) and crops the centre. Transfer curves (HDR) are left as they are.
    """

    size: tuple[int, int] | None = None
    stored_size: tuple[int, int] | None = None

    def __call__(self, picture: VideoFrame) -> np.ndarray:
        transposed, mirrored, flipped = orientation(picture)
        if has_alpha(picture) or self.stored_size not in (None, (picture.height, picture.width)):
            frame = _over_black(picture) if has_alpha(picture) else _to_rgb(picture)
            if self.stored_size is not None:
                frame = frame[: self.stored_size[0], : self.stored_size[1]]
            picture = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        size = self.size[::-1] if self.size and transposed else self.size
        if size in (None, (picture.height, picture.width)):
            frame = _to_rgb(picture)
        else:
            frame = centre_crop(_to_rgb(picture, covering_size(picture.height, picture.width, *size)), *size)
        if transposed:
            frame = frame.swapaxes(0, 1)
        if mirrored:
            frame = frame[:, ::-1]
        if flipped:
            frame = frame[::-1]
        return np.ascontiguousarray(frame)


def orientation(picture: VideoFrame) -> tuple[bool, bool, bool]:
    """(transposed, mirrored left-right, flipped up-down), in this order, from the picture's display matrix.

    ISO 14496-12: x' = a x + c y, y' = b x + d y in 16.16 fixed point; only the eight axis-parallel cases exist here.
    """
    matrix = picture.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    if abs(b) > abs(a):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


def is_full_range(picture: VideoFrame) -> bool:
    """Whether black is 0 and white the highest code; RGB always, grey where nothing says otherwise."""
    if picture.format.is_rgb or picture.format.name.startswith("yuvj"):
        return True
    return picture.color_range == ColorRange.JPEG or (_is_grey(picture) and picture.color_range != ColorRange.MPEG)


def has_alpha(picture: VideoFrame) -> bool:
    """Whether the pixel format carries transparency (a palette may)."""
    return picture.format.has_palette or any(component.is_alpha for component in picture.format.components)


def bit_depth(picture: VideoFrame) -> int:
    """Bits per component."""
    return max((component.bits for component in picture.format.components), default=8)


def _to_rgb(picture: VideoFrame, size: tuple[int, int] | None = None, pixel_format: str = "rgb24") -> np.ndarray:
    height, width = size or (picture.height, picture.width)
    converted = picture.reformat(
        width=width,
        height=height,
        format=pixel_format,
        src_colorspace=_matrix(picture),
        src_color_range=ColorRange.JPEG if is_full_range(picture) else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_SAME_SIZE if size is None else _REDUCED if height < picture.height else _ENLARGED,
        threads=1,
    ).to_ndarray()
    if _is_grey(picture) and not is_full_range(picture):
        return _EXPAND[converted]  # swscale takes every grey for full range
    return converted


_EXPAND = ((np.arange(256) - 16) * (255 / 219)).round().clip(0, 255).astype(np.uint8)


def _over_black(picture: VideoFrame) -> np.ndarray:
    rgba = _to_rgb(picture, pixel_format="rgba")
    alpha = rgba[:, :, 3:]
    if alpha.min() == 255:
        return rgba[:, :, :3]
    return ((rgba[:, :, :3].astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)


def _matrix(picture: VideoFrame) -> int | None:
    if picture.format.is_rgb or picture.colorspace not in _UNSPECIFIED_MATRICES:
        return None  # the picture's own
    large = picture.height >= 720 or picture.width >= 1280
    return Colorspace.ITU709 if large else Colorspace.ITU601


def _is_grey(picture: VideoFrame) -> bool:
    return picture.format.name.startswith(("gray", "ya8", "ya16"))
