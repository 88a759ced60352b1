"""Single images and folders of images -> frames, with PIL."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from dcvideogen.errors import UserError
from dcvideogen.frames import frames_to_video

# Animated .gif goes through the video decoder, which knows its timing.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


def read_image(path: str | Path) -> torch.Tensor:
    """Image file -> float video (1, 3, 1, H, W) in [-1, 1]: EXIF rotation applied, alpha over black, one frame.

    Raises UserError when the file is missing, no image, or damaged.
    """
    return frames_to_video([image_frame(Path(path))])


def image_frame(path: Path) -> np.ndarray:
    """Image file -> frame (H, W, 3) uint8; errors as in read_image."""
    try:
        with Image.open(path) as image:
            return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of an image") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({error}); give an intact one") from error


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, hidden ones left out, numbers in names ordered by value (2 before 10)."""
    images = [
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")
    ]
    return sorted(images, key=lambda entry: [(int(n or -1), t) for n, t in _NUMBERS.findall(entry.name)])


_NUMBERS = re.compile(r"(\d+)|(\D+)")


def iterate_images(paths: list[Path], first: int = 0) -> Iterator[np.ndarray]:
    """Frames of a list of images; UserError names the frame that cannot be read or has another size."""
    size: tuple[int, ...] | None = None
    for index, path in enumerate(paths):
        try:
            frame = image_frame(path)
        except UserError as error:
            raise UserError(f"frame {first + index}: {error}") from error
        if size is not None and frame.shape != size:
            raise UserError(
                f"frame {first + index}: {path} is {frame.shape[1]}x{frame.shape[0]}; {size[1]}x{size[0]} is "
                "allowed, the size of the images before it; resize it first"
            )
        size = frame.shape
        yield frame


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode == "I":
        # PIL clips 16-bit grey to 255 instead of scaling it.
        grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        flat = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        flat.alpha_composite(rgba)
        return np.asarray(flat.convert("RGB"))
    return np.asarray(image.convert("RGB"))
