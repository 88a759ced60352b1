"""One video or image of a dataset, wherever it lies: a file, a part of one, or a member of a tar shard."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dcvideogen.errors import UserError

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".gif", ".mpg", ".mpeg", ".ts", ".mts", ".flv", ".3gp",
    ".ogv", ".y4m",
)  # fmt: skip
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Item:
    """What a source offers.

    name: unique in the source: the path relative to it, "SHARD.tar/MEMBER", with "#START-END" for a part of a file.
    path: the file, or the shard. offset: where the member's bytes begin in the shard; None for plain files.
    size: bytes of the file or member. mtime_ns: date of the file or shard. start, end: seconds, None: from the
    beginning, to the end. problem: (reason, detail) when listing found that it cannot be used.
    """

    name: str
    path: Path
    size: int
    mtime_ns: int
    offset: int | None = None
    caption: str | None = None
    start: float | None = None
    end: float | None = None
    problem: tuple[str, str] | None = None

    @property
    def file_name(self) -> str:
        """What its media file is called: "a.mp4" also for a member of a shard or a part of a file."""
        return self.path.name if self.offset is None else PurePosixPath(self.name).name

    @contextmanager
    def local(self) -> Iterator[Path]:
        """A path at which the media file can be read while the context lasts; a member is copied out of its shard.

        Raises UserError when file or shard are gone or shorter than they were.
        """
        if self.offset is None:
            yield self.path
            return
        with tempfile.TemporaryDirectory(prefix="dcvideogen-") as folder:
            target = Path(folder) / self.file_name
            self._copy(target)
            yield target

    def _copy(self, target: Path) -> None:
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror}); check the data again") from error
        with file, target.open("wb") as copy:
            file.seek(self.offset)
            left = self.size
            while left and (piece := file.read(min(left, _COPY_BYTES))):
                copy.write(piece)
                left -= len(piece)
        if left:
            raise UserError(f"{self.path}: ends {left} bytes before {self.name} does; give the whole shard")
