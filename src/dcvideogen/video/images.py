"""Images, animated images and folders of images -> frames, with PIL."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from dcvideogen.errors import UserError
from dcvideogen.video.frames import centre_crop, covering_size, frames_to_video

logger = logging.getLogger("dcvideogen")

# An animated .gif goes through the video decoder, which knows its timing.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
FPS_KEY = "dcvideogen_fps"  # text chunk of our own PNG frames: a folder has no frame rate
IMAGES_FPS = Fraction(24)  # of images that name none: the cinema's
_MAGIC = re.compile(rb"\x89PNG|\xff\xd8\xff|BM.{8}|RIFF.{4}WEBP|II\*\0|MM\0\*", re.DOTALL)
_EXIF_ORIENTATION = 0x0112
_EXIF_ROTATIONS = {3: 180, 6: 90, 8: 270}  # clockwise, CIPA DC-008


@dataclass(frozen=True)
class ImageFacts:
    """Facts about one image file: `height`, `width` and `rotation` (degrees clockwise) as after EXIF rotation.

    `fps` is None where the file names no rate.
    """

    codec: str
    mode: str
    height: int
    width: int
    num_frames: int
    fps: Fraction | None
    rotation: int
    bit_depth: int
    has_alpha: bool


def read_image(path: str | Path) -> torch.Tensor:
    """Image file -> float32 video (1, 3, 1, H, W) in [-1, 1]: EXIF rotation applied, alpha over black, first picture.

    Raises UserError when the file is missing, no image, or damaged.
    """
    with opened(Path(path)) as image:
        return frames_to_video([_to_frame(image, None)])


def is_image(path: Path) -> bool:
    """Whether the file is an image by its suffix or its first bytes."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return _MAGIC.match(file.read(12)) is not None
    except OSError:
        return False


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, numbers in names ordered by value (2 before 10); UserError when there is none."""
    images = [
        entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")
    ]
    if not images:
        raise UserError(
            f"{folder}: no images in this folder; {', '.join(IMAGE_SUFFIXES)} are allowed; give another folder"
        )
    return sorted(images, key=lambda entry: [(int(n or -1), t) for n, t in re.findall(r"(\d+)|(\D+)", entry.name)])


def image_facts(path: Path) -> ImageFacts:
    """Facts from the header; UserError as in read_image."""
    with opened(path) as image:
        height, width = displayed_size(image)
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if frames > 1:
            image.load()  # the duration is the first picture's
        duration_ms = image.info.get("duration", 0)
        text = str(image.info.get(FPS_KEY, ""))
        fps = Fraction(text) if re.fullmatch(r"[1-9]\d*(/[1-9]\d*)?", text) else None
        if frames > 1 and duration_ms > 0:
            fps = 1000 / Fraction(duration_ms)
        return ImageFacts(
            codec=(image.format or "image").lower(),
            mode=image.mode,
            height=height,
            width=width,
            num_frames=frames,
            fps=fps,
            rotation=_EXIF_ROTATIONS.get(_orientation(image), 0),
            bit_depth=16 if image.mode.startswith("I") else 8,
            has_alpha=image.has_transparency_data,
        )


def iterate_images(
    path: Path, fps: Fraction | None, size: tuple[int, int] | None, start: int, keep_broken: bool
) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) of an image or of a folder from frame `start` on.

    `fps` resamples where the images name a rate and is theirs otherwise. `size` (height, width): shorter side resized
    with antialiasing, centre cropped; without it all images must have one size. `keep_broken` leaves out what cannot
    be read, with a warning; otherwise UserError names the frame.
    """
    folder = path.is_dir()
    paths = list_images(path) if folder else [path]
    facts = image_facts(paths[0])
    count = len(paths) if folder else facts.num_frames
    step = facts.fps / fps if facts.fps is not None and fps is not None else Fraction(1)
    first_shape: tuple[int, ...] | None = None
    for number in range(start, max(1, int(count / step + Fraction(1, 2)))):
        # The nearest image, the earlier one of two as near, as for videos.
        index = min(count - 1, -int(-(number * step - Fraction(1, 2)) // 1))
        try:
            with opened(paths[index] if folder else path) as image:
                if not folder and index:
                    image.seek(index)
                frame = _to_frame(image, size)
        except UserError as error:
            if not keep_broken:
                raise UserError(f"breaks at frame {index} of {count}: {error}") from error
            logger.warning("frame %d is left out: %s", index, error)
            continue
        if frame.shape != (first_shape or frame.shape):
            raise UserError(
                f"frame {index}: {paths[index]} is {frame.shape[1]}x{frame.shape[0]}; only "
                f"{first_shape[1]}x{first_shape[0]} is allowed, the size of the first image; give height and width to "
                "bring all to one size"
            )
        first_shape = frame.shape
        yield frame


def image_texts(path: Path) -> dict[str, str]:
    """The texts that an image file carries (PNG's text chunks), by key; UserError as in read_image."""
    with opened(path) as image:
        return {str(key): str(text) for key, text in image.info.items() if isinstance(text, str)}


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An image file, not decoded yet; what PIL raises in the context comes out as in `named_errors`."""
    with named_errors(str(path)), Image.open(path) as image:
        yield image


@contextmanager
def named_errors(name: str) -> Iterator[None]:
    """UserError for what PIL raises of an image that is missing, none, damaged, or too large to be opened safely."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{name}: no such file; give the path of an image") from None
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * Image.MAX_IMAGE_PIXELS // 10**6  # PIL's own
        raise UserError(
            f"{name}: over {limit} million pixels came; up to that many are allowed; make it smaller"
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        reason = str(error).replace(name, "it") or type(error).__name__
        raise UserError(f"{name}: not a readable image ({reason}); give an intact one") from error


def displayed_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) after EXIF rotation."""
    # PIL turns TIFF itself, and has its size turned from the start.
    return image.size[::-1] if image.format == "TIFF" or _orientation(image) < 5 else image.size


def _orientation(image: Image.Image) -> int:
    """1 to 8, CIPA DC-008; from 5 on height and width change places."""
    return image.getexif().get(_EXIF_ORIENTATION, 1)


def _to_frame(image: Image.Image, size: tuple[int, int] | None) -> np.ndarray:
    image.load()
    image = to_rgb(ImageOps.exif_transpose(image))
    if size is None or (image.height, image.width) == size:
        return np.array(image)
    height, width = covering_size(image.height, image.width, *size)
    kernel = _smaller(image, height, width) if height < image.height else Image.Resampling.BICUBIC
    resized = image.resize((width, height), kernel)
    return np.ascontiguousarray(centre_crop(np.array(resized), *size))


def _smaller(image: Image.Image, height: int, width: int) -> Image.Resampling:
    """By area, as for videos. PIL's BOX takes source pixels whole or not at all: exact where whole numbers of them
    become one, and else 3 to 10 levels of 256 from the area's mean (rms, pictures of a natural spectrum), where
    HAMMING is 1.5 to 2.5 from it."""
    exact = image.height % height == 0 and image.width % width == 0
    return Image.Resampling.BOX if exact else Image.Resampling.HAMMING


def to_rgb(image: Image.Image, background: int = 0) -> Image.Image:
    """Of any mode, decoded: 16-bit grey scaled to 8 bits, alpha over the grey level `background` (black as for videos).

    ValueError for a mode that PIL cannot turn into RGB.
    """
    if image.mode.startswith("I"):
        # PIL clips 16-bit grey to 255 instead of scaling it.
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (background, background, background, 255))
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image.convert("RGB")
