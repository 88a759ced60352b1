"""An uploaded picture, written anew as a PNG without anything but its pixels. Runs in `upload_child` only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from dcvideogen.serving.upload_terms import DAMAGED, PICTURE, TOO_LARGE, UNSUPPORTED, Refused

# What browsers and phones send. Other decoders are not even asked: each is one more that a hostile file can try.
FORMATS = ("PNG", "JPEG", "WEBP")
_WIDE_GREY = 1 / 256  # 16 bits to 8


def rewrite_picture(source: Path, folder: Path, limits: dict[str, Any]) -> dict[str, Any]:
    """Turned as its EXIF says, made smaller where it is longer than `picture_side`; RGB, or RGBA with transparency.

    Place, camera and colour profile go. Returns height and width. Refused: of another format, of more than
    `upload_pixels` (by the header, nothing is decoded before), damaged.
    """
    Image.MAX_IMAGE_PIXELS = None  # ours is below, and says what came
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > limits["upload_pixels"]:
                raise Refused(
                    TOO_LARGE,
                    f"a picture of {image.width}x{image.height} came, up to {limits['upload_pixels']:,} pixels "
                    "are allowed",
                )
            side = limits["picture_side"]
            image.draft(None, (2 * side, 2 * side))  # of a large JPEG only as much is decoded as is needed
            picture = _plain(ImageOps.exif_transpose(image))
            # Of PIL's kernels the nearest to averaging over the area of a pixel, by which clips are made smaller.
            picture.thumbnail((side, side), Image.Resampling.HAMMING)
    except UnidentifiedImageError:
        raise Refused(UNSUPPORTED, f"the file is no intact picture of a known kind ({', '.join(FORMATS)})") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise Refused(DAMAGED, "the picture cannot be read, it is cut off or damaged") from error
    picture.info = {}
    picture.save(folder / PICTURE, format="PNG")
    return {"height": picture.height, "width": picture.width}


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # PIL would clip instead of scale.
        return image.convert("I").point(lambda value: value * _WIDE_GREY).convert("L").convert("RGB")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
