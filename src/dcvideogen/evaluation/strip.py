"""A picture of a few frames: input over reconstruction over error."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dcvideogen.files import whole_file

ERROR_GAIN = 4  # the error is shown as four times its absolute value
MAX_SIDE = 320  # pixels per picture; larger ones are reduced
_CANDIDATES = 16
_LABEL = 14  # pixels above each row


class Strip:
    """Takes pairs of a clip of unknown length and keeps a few that are evenly spread; at most 16 small pairs held."""

    def __init__(self, columns: int = 4) -> None:
        self._columns = columns
        self._kept: list[tuple[int, np.ndarray]] = []
        self._stride = 1
        self._count = 0

    def update(self, frame: np.ndarray, reconstruction: np.ndarray) -> None:
        """One pair of uint8 frames (H, W, 3)."""
        if self._count % self._stride == 0:
            rows = (frame, reconstruction, enlarged_error(frame, reconstruction))
            self._kept.append((self._count, np.stack([_reduce(row) for row in rows])))
            if len(self._kept) == _CANDIDATES:
                self._kept, self._stride = self._kept[::2], self._stride * 2
        self._count += 1

    def chosen(self) -> list[tuple[int, np.ndarray]]:
        """(number of the frame, its input, reconstruction and error as uint8 (3, h, w, 3)), in order."""
        last = len(self._kept) - 1
        steps = max(1, min(self._columns, len(self._kept)) - 1)
        return [self._kept[index] for index in sorted({round(i * last / steps) for i in range(steps + 1)})]

    def save(self, path: Path) -> None:
        """Writes the PNG through a temporary name."""
        chosen = self.chosen()
        height, width = chosen[0][1].shape[1:3]
        sheet = Image.new("RGB", (len(chosen) * width, 3 * (height + _LABEL)))
        draw = ImageDraw.Draw(sheet)
        for column, (number, pictures) in enumerate(chosen):
            names = (f"frame {number}", "reconstruction", f"error x {ERROR_GAIN}")
            for row, (name, picture) in enumerate(zip(names, pictures, strict=True)):
                corner = (column * width, row * (height + _LABEL))
                draw.text((corner[0] + 2, corner[1] + 1), name, fill="white")
                sheet.paste(Image.fromarray(picture), (corner[0], corner[1] + _LABEL))
        save_png(path, sheet)


def enlarged_error(frame: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """Four times the absolute difference of two uint8 pictures, uint8."""
    return (ERROR_GAIN * np.abs(reconstruction.astype(np.int16) - frame)).clip(0, 255).astype(np.uint8)


def save_png(path: Path, picture: Image.Image) -> None:
    """Writes through a temporary name."""
    with whole_file(path) as temporary:
        picture.save(temporary)


def _reduce(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale >= 1:
        return frame
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
