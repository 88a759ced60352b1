"""One clip through one subject: its numbers and pictures in a folder, done once and found again."""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch

from dcvideogen.errors import UserError
from dcvideogen.evaluation.latent_noise import MAX_FRAMES, latent_noise
from dcvideogen.evaluation.latent_statistics import LatentStatistics
from dcvideogen.evaluation.measures import ClipMeasures, Networks
from dcvideogen.evaluation.subjects import Codec, Subject
from dcvideogen.files import whole_folder, write_json
from dcvideogen.video import BackgroundWriter, prefetch

PROTOCOL = 1  # to be raised when numbers change their meaning: results of before are then measured anew
STAGES = ("reading", "rebuilding")
RESULT = "result.json"


@dataclass(frozen=True)
class Clip:
    """frames: opens the clip from its start; raises UserError when it cannot be read. identity: a digest of its content
    and of the settings it is read with. num_frames: how many will come, as far as the file says."""

    name: str
    frames: Callable[[], Iterator[np.ndarray]]
    identity: str
    num_frames: int | None = None


class Progress(Protocol):
    def advance(self, stage: str, frames: int = 1) -> None: ...


class NoProgress:
    """Shows nothing; a context manager, as what the command line shows is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, stage: str, frames: int = 1) -> None:
        pass


def clip_key(subject_key: str, clip: Clip, networks: Networks) -> str:
    """Changes with everything that changes the numbers: protocol, subject, clip and settings, files of the metrics."""
    text = f"{PROTOCOL} | {subject_key} | {clip.identity} | {networks.key} | {networks.device.type}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def finished(folder: Path, key: str) -> dict[str, Any] | None:
    """The result in a folder if it is there, whole, and of this key."""
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        names = [row[kind] for row in result["pictures"]["frames"] for kind in ("input", "reconstruction", "error")]
        names += [row["picture"] for row in result["pictures"]["worst_blocks"]]
        whole = result["key"] == key and all((folder / name).is_file() for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return result if whole else None


@torch.inference_mode()
def evaluate_clip(
    subject: Subject, clip: Clip, networks: Networks, folder: Path, key: str, progress: Progress
) -> dict[str, Any]:
    """Measures one clip and writes its folder, all of it or nothing.

    At most the frames of a chunk are held, besides the 20 that the noise test wants and what the subject itself holds.
    Raises UserError for a clip that cannot be read or that the subject does not take.
    """
    waiting: deque[np.ndarray] = deque()  # frames that were read and whose reconstruction is still to come
    start: list[np.ndarray] = []
    latents = LatentStatistics()

    def read(source: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for frame in source:
            progress.advance("reading")
            waiting.append(frame)
            if len(start) < MAX_FRAMES:
                start.append(frame)
            yield frame

    traits = subject.traits
    with ClipMeasures(traits, networks) as measures:
        with ExitStack() as stack:
            source = stack.enter_context(closing(prefetch(clip.frames())))
            measuring = stack.enter_context(BackgroundWriter(_Sink(measures)))
            for reconstruction in subject.stream(read(source), latents.update):
                measuring.write((waiting.popleft(), reconstruction))
                progress.advance("rebuilding")
            if waiting:
                raise UserError(f"{traits.name} gave back {len(waiting)} frames less than went in")
        noise = None
        if traits.latent_channels is not None:
            codec: Codec = subject  # type: ignore[assignment]
            noise = latent_noise(codec, start)
        report = measures.report()
        with whole_folder(folder) as temporary:
            pictures = measures.save_pictures(temporary)
            result = {
                "key": key,
                "clip": clip.name,
                "subject": traits.name,
                **report,
                "latents": latents.as_json() if latents.count else None,
                "latent_noise": noise,
                "pictures": pictures,
            }
            write_json(temporary / RESULT, result)
    return result


class _Sink:
    """Writes to the measures in the writer's thread and leaves their context to its owner."""

    def __init__(self, measures: ClipMeasures) -> None:
        self.write = measures.write

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def folder_names(names: Iterable[str]) -> list[str]:
    """A name for a folder for each of the names, in order: letters, digits and . _ - alone, made unique by a number."""
    taken: list[str] = []
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "clip"
        unique, number = stem, 2
        while unique in taken:
            unique, number = f"{stem}-{number}", number + 1
        taken.append(unique)
    return taken
