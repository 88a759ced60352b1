"""A dataset of the shapes world as files: clips, a manifest with their captions, and what they were made with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from dcvideogen.data.shapes import plan_clips, render
from dcvideogen.errors import UserError
from dcvideogen.files import write_text
from dcvideogen.shapes_world import FPS, Split, caption
from dcvideogen.video import write_video

MANIFEST, SETTINGS, CLIPS = "manifest.jsonl", "shapes.json", "clips"
# H.264 that is the render but for its hues, which four pixels share, as in all such files: 32 dB at 64 pixels, nearly
# all of it at the shape's edge.
CRF = 8


@dataclass(frozen=True)
class ShapesSettings:
    """What every clip of a folder has in common; `plan_clips` and `render` explain the fields."""

    split: Split
    seed: int
    size: int
    num_frames: int


def write_clips(
    folder: Path,
    num_clips: int,
    settings: ShapesSettings,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes clips/000000.mp4, ... and, when all are there, manifest.jsonl; returns how many were not there before.

    Clips of an earlier call are kept, so that an interrupted one is gone on with, and more clips are added by asking
    for more. progress: called with clips done and clips to do. Raises UserError when the folder holds clips of other
    settings, and as `plan_clips` and `render` do.
    """
    plan = plan_clips(settings.split, num_clips, settings.seed)
    paths = [folder / CLIPS / f"{index:06d}.mp4" for index in range(num_clips)]
    _claim(folder, settings)
    # A clip gets its name when it is complete.
    todo = [(path, clip) for path, clip in zip(paths, plan, strict=True) if not path.is_file()]
    progress(0, len(todo))
    for done, (path, clip) in enumerate(todo, start=1):
        video = render(clip.combination, clip.seed, num_frames=settings.num_frames, size=settings.size)
        write_video(path, video[None], FPS, crf=CRF)
        progress(done, len(todo))
    rows = [
        {"path": path.relative_to(folder).as_posix(), "caption": caption(clip.combination)}
        for path, clip in zip(paths, plan, strict=True)
    ]
    write_text(folder / MANIFEST, "".join(json.dumps(row) + "\n" for row in rows))
    return len(todo)


def _claim(folder: Path, settings: ShapesSettings) -> None:
    """Writes the settings of a new folder; UserError for a folder of others."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; a folder is allowed, existing or new")
    path, wanted = folder / SETTINGS, asdict(settings)
    if path.is_file():
        try:
            present = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path}: not the settings of shapes clips ({error}); choose another folder") from error
        if present != wanted:
            raise UserError(f"{folder} holds clips of {present}, and {wanted} came; choose another folder")
    elif (folder / CLIPS).exists() or (folder / MANIFEST).exists():
        raise UserError(f"{folder} holds other clips or another manifest; choose an empty or new folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(wanted, indent=1) + "\n")
