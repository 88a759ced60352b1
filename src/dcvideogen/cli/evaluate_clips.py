"""From `--data` to clips that can be opened again and again and are known by their content."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dcvideogen.data.items import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Item
from dcvideogen.data.sources import file_item, list_items
from dcvideogen.errors import UserError
from dcvideogen.evaluation.clip_evaluation import Clip
from dcvideogen.pipelines.streaming import ClipOptions
from dcvideogen.video import iterate_frames, probe


def find_clips(sources: list[Path], options: ClipOptions) -> list[Clip]:
    """The clips of folders, manifests, shards and single files, in order; an image is a clip of one frame.

    What cannot be a clip (a text file in a folder, a missing file of a manifest) is a clip as well, one that raises its
    UserError when it is opened, so that it is reported with the others. Raises UserError when there is none at all.
    """
    items: list[Item] = []
    for source in sources:
        if source.is_file() and source.suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES:
            items.append(file_item(source, source.name))
        else:
            items += list_items(source)
    if not items:
        raise UserError(f"--data {sources[0]} holds no file; give a folder with videos or images, or files")
    clips: list[Clip] = []
    for item in items:
        name, number = item.name, 2
        while name in (clip.name for clip in clips):
            name, number = f"{item.name} ({number})", number + 1
        source = ItemFrames(item, options)
        clips.append(Clip(name, source.frames, source.identity(), source.expected()))
    return clips


@dataclass(frozen=True)
class ItemFrames:
    """The frames of an item: its start and end, and the options for reading, applied."""

    item: Item
    options: ClipOptions

    def frames(self) -> Iterator[np.ndarray]:
        """Raises UserError for an item with a problem, and as iterate_frames does."""
        with self._local() as path:
            start, num_frames = self._range(path)
            yield from iterate_frames(
                path,
                start_frame=start,
                num_frames=num_frames,
                fps=self.options.fps,
                height=self.options.height,
                width=self.options.width,
            )

    def identity(self) -> str:
        """A digest of the file's content and of all that says which frames are read of it."""
        digest = hashlib.sha256()
        if self.item.problem is None:
            try:
                with self._local() as path, path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256")
            except (OSError, UserError):
                pass  # opening it will say so
        digest.update(f"{self.item.start} {self.item.end} {self.options}".encode())
        return digest.hexdigest()[:16]

    def expected(self) -> int | None:
        """How many frames will come, as far as the file says."""
        if self.item.problem is not None or self.item.offset is not None:
            return None
        try:
            start, num_frames = self._range(self.item.path)
            options = replace(self.options, num_frames=None)
            total, _ = options.expected(self.item.path)
        except (OSError, UserError):
            return None
        left = None if total is None else max(0, total - start)
        return min((count for count in (left, num_frames) if count is not None), default=None)

    @contextmanager
    def _local(self) -> Iterator[Path]:
        if self.item.problem is not None:
            raise UserError(f"{self.item.name}: {self.item.problem[1]}")
        with self.item.local() as path:
            yield path

    def _range(self, path: Path) -> tuple[int, int | None]:
        """(first frame, at most so many frames), at the rate that comes out."""
        if self.item.start is None and self.item.end is None:
            return 0, self.options.num_frames
        fps = self.options.fps or probe(path).fps
        start = math.ceil((self.item.start or 0) * fps)
        if self.item.end is None:
            return start, self.options.num_frames
        count = max(1, math.ceil(self.item.end * fps) - start)
        return start, count if self.options.num_frames is None else min(count, self.options.num_frames)
