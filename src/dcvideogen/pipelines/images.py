"""The first or last picture of a video: any image, of exactly the size asked for."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from dcvideogen.errors import UserError
from dcvideogen.geometry import check_video_size
from dcvideogen.video import frames_to_video
from dcvideogen.video.images import displayed_size, named_errors, opened, to_rgb

ImageLike = str | Path | Image.Image

# Under transparency: the middle of the range, on which dark and bright subjects both stand out.
BACKGROUND = 128
# Large pictures are first made smaller by a whole factor, down to this many pixels per pixel that is wanted.
REACH = 2
# The nearest that PIL has to averaging over the area of a pixel, by which clips are made smaller. Rms distance from it
# for a picture with a natural spectrum, in levels of 256, 600 -> 400 lines and 600 -> 240: HAMMING 1.4 and 1.1, BICUBIC
# 1.7 and 1.9, BILINEAR 2.5 and 2.7, BOX, which takes source pixels whole or not at all, 5.8 and 3.5.
SMALLER, LARGER = Image.Resampling.HAMMING, Image.Resampling.BICUBIC
# Modes in which PIL averages neighbours rightly, by their alpha where they have one; a palette's indices it cannot.
AVERAGED_MODES = ("L", "RGB", "CMYK", "YCbCr", "LA", "RGBA")


def load_image(image: ImageLike, height: int, width: int) -> Tensor:
    """A picture file or PIL image -> (1, 3, height, width) float32 in [-1, 1].

    Resized to cover the size, by area on the way down as clips are, bicubic on the way up, and cropped at the centre.
    EXIF rotation is applied, transparency lies over mid grey, 16 bits are made 8, of an animated file the first picture
    is taken (of a PIL image the one it stands at). The image that came stays as it is.
    UserError: no such file, no image, a damaged one, one of more pixels than PIL opens safely (178 million), and one
    whose numbers have no known range.
    """
    check_video_size(height, width)
    with _picture(image) as picture:
        if isinstance(image, Image.Image):
            picture = ImageOps.exif_transpose(picture)
        else:
            picture = _drafted(picture, height, width)
            ImageOps.exif_transpose(picture, in_place=True)
        if picture.mode == "F":
            raise UserError(
                f"{_name(image)}: its pixels are floats of unknown range; save it with 8 or 16 bits a value"
            )
        rgb = to_rgb(_reduced(picture, height, width), BACKGROUND)
        kernel = LARGER if height > rgb.height or width > rgb.width else SMALLER
        fitted = ImageOps.fit(rgb, (width, height), kernel)
    return frames_to_video([np.array(fitted)])[:, :, 0]


def size_for(image: ImageLike, budget_px: int, multiple: int) -> tuple[int, int]:
    """(height, width) of a video that starts with the image: multiples of `multiple`, height*width at most `budget_px`.

    Of the sizes around the ideal one it is the one that loses least: of the image, which is cropped to the shape, and
    of the lines and columns that the budget would allow, both as logarithms.

    UserError: a budget that holds no such size; what `load_image` refuses to open.
    """
    if multiple < 1 or budget_px < multiple**2:
        raise UserError(
            f"a budget of {budget_px} pixels for sides that are multiples of {multiple} came; at least "
            f"{max(multiple, 1) ** 2} pixels are needed"
        )
    with _picture(image) as picture:
        height, width = displayed_size(picture)
    shape = height / width
    cells = budget_px // multiple**2
    ideal = math.sqrt(cells * shape)
    sizes = []
    for rows in {min(max(1, math.floor(ideal)), cells), min(max(1, math.ceil(ideal)), cells)}:
        for columns in (math.floor(rows / shape), math.ceil(rows / shape)):
            sizes.append((rows, min(max(1, columns), cells // rows)))

    def lost(size: tuple[int, int]) -> float:
        rows, columns = size
        return abs(math.log(rows / columns / shape)) + math.log(cells / (rows * columns)) / 2

    rows, columns = min(sizes, key=lost)
    return rows * multiple, columns * multiple


@contextmanager
def _picture(image: ImageLike) -> Iterator[Image.Image]:
    """The image, not decoded yet if it is a file."""
    with warnings.catch_warnings():
        # PIL warns from half of the size on that it refuses.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        if isinstance(image, Image.Image):
            with named_errors(_name(image)):
                yield image
        else:
            with opened(Path(image)) as picture:
                yield picture


def _name(image: ImageLike) -> str:
    return "the image" if isinstance(image, Image.Image) else str(image)


def _drafted(picture: Image.Image, height: int, width: int) -> Image.Image:
    """JPEG at 1/2, 1/4 or 1/8, as far as it still is REACH times the size; other formats cannot be decoded so."""
    turned = displayed_size(picture) != picture.size[::-1]
    wanted = (height, width) if turned else (width, height)
    drafted = picture.draft(None, (REACH * wanted[0], REACH * wanted[1]))
    if drafted is None:
        return picture
    # The last row and column may stand for less than the others do.
    whole = (0, 0, *(int(side) for side in drafted[1][2:]))
    return picture if whole[2:] == picture.size else picture.crop(whole)


def _reduced(picture: Image.Image, height: int, width: int) -> Image.Image:
    """Made smaller by a whole factor, as far as it still is REACH times the size; a rest is left out on both sides."""
    factor = min(picture.width // (REACH * width), picture.height // (REACH * height))
    if factor < 2 or picture.mode not in AVERAGED_MODES or "transparency" in picture.info:
        return picture
    left, top = (side % factor // 2 for side in picture.size)
    columns, rows = (side - side % factor for side in picture.size)
    return picture.reduce(factor, (left, top, left + columns, top + rows))
