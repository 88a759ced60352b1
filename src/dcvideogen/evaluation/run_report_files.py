"""What lies in folders that the commands wrote: reconstructions, generated videos, scores, evaluations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dcvideogen.errors import UserError
from dcvideogen.evaluation.reconstruction import psnr
from dcvideogen.evaluation.shapes_reading import ShapesReading, read_shapes
from dcvideogen.evaluation.shapes_score import ShapesScore, score_reading
from dcvideogen.shapes_world import parse_caption
from dcvideogen.video import read_image, read_metadata, read_video, video_to_frames
from dcvideogen.video.metadata import SETTINGS_KEY
from dcvideogen.weights import sha256

FIGURES_SUFFIX = ".figures.json"  # beside a video: what making it took, see `Generated`
VIDEO_SUFFIXES = (".mp4", ".mkv")
# What makes a JSON file that of a command.
_RECONSTRUCTION = {"psnr_db", "ssim", "dct_baseline", "latent_shape", "seconds"}
_SCORES = {"num_videos", "mean", "chance", "videos"}
_EVALUATION = {"subjects", "left_out", "pca_fitted_on"}
_PROMPTED = {"prompt", "seed", "model"}


@dataclass(frozen=True)
class Generated:
    """A video of `generate`, whose settings are in its metadata.

    figures: what making it took, where its maker noted that: `tokens`, `passes`, `seconds` of transformer, decoder and
    in all, `peak_memory`. score, reading: of a video of the shapes world. first_frame_psnr_db: against `image`, the
    first picture, where that lies beside the video in the video's size.
    """

    path: Path
    settings: dict[str, Any]
    figures: dict[str, Any]
    score: ShapesScore | None = None
    reading: ShapesReading | None = None
    image: Path | None = None
    first_frame_psnr_db: float | None = None

    @property
    def model(self) -> str:
        return str(self.settings["model"])

    @property
    def asked(self) -> tuple[str, str, str]:
        """What videos to be compared have in common: prompt, seed and first picture."""
        return str(self.settings["prompt"]), str(self.settings["seed"]), str(self.settings.get("image", ""))


@dataclass(frozen=True)
class Runs:
    """Files with what is in them: metrics.json of `reconstruct`, JSON of `shapes score`, report.json of `evaluate`."""

    reconstructions: tuple[tuple[Path, dict[str, Any]], ...]
    generated: tuple[Generated, ...]
    scores: tuple[tuple[Path, dict[str, Any]], ...]
    evaluations: tuple[tuple[Path, dict[str, Any]], ...]


def find_runs(folders: Sequence[Path], progress: Callable[[int, int], object] = lambda done, total: None) -> Runs:
    """Of each folder and the folders in it. progress: is told how many of how many files are looked at.

    UserError: one of them is no folder, or holds nothing that a command wrote.
    """
    found: dict[str, list[Any]] = {"reconstructions": [], "generated": [], "scores": [], "evaluations": []}
    files = {folder: list(_files(folder)) for folder in dict.fromkeys(folders)}
    done, total = 0, sum(len(some) for some in files.values())
    for folder, some in files.items():
        before = sum(len(kind) for kind in found.values())
        for path in some:
            if (told := _look(path)) is not None:
                found[told[0]].append(told[1])
            done += 1
            progress(done, total)
        if sum(len(kind) for kind in found.values()) == before:
            raise UserError(
                f"{folder}: holds nothing of reconstruct, generate, shapes score or evaluate; give the folder that one "
                "of them wrote, or one with such folders in it"
            )
    return Runs(**{kind: tuple(some) for kind, some in found.items()})


def _files(folder: Path) -> Iterator[Path]:
    """Those that may be of interest: in the folder, then in the folders in it, each in the order of their names."""
    if not folder.is_dir():
        raise UserError(f"{folder}: {'a file' if folder.exists() else 'no such folder'}; give the folder of a run")
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for place in (folder, *inside):
        for path in sorted(place.iterdir()):
            if path.is_file() and path.suffix.lower() in (".json", *VIDEO_SUFFIXES) and not path.name.startswith("."):
                yield path


def _look(path: Path) -> tuple[str, Any] | None:
    """Field of `Runs` and entry; None for a file of something else."""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        settings = _settings(path)
        return None if settings is None else ("generated", _generated(path, settings))
    content = _json(path)
    for kind, keys in (("reconstructions", _RECONSTRUCTION), ("scores", _SCORES), ("evaluations", _EVALUATION)):
        if keys <= content.keys() and (kind != "scores" or content["mean"]):
            return kind, (path, content)
    return None


def _generated(path: Path, settings: dict[str, Any]) -> Generated:
    figures = _json(path.with_name(path.stem + FIGURES_SUFFIX))
    image = _image_beside(path, str(settings.get("image", "")))
    try:
        combination = parse_caption(str(settings["prompt"]))
    except UserError:
        combination = None
    if combination is None and image is None:
        return Generated(path, settings, figures)
    video = read_video(path)[0]
    score = reading = None
    if combination is not None:
        reading = read_shapes(video[0])
        score = score_reading(reading, combination)
    return Generated(path, settings, figures, score, reading, image, image and _first_frame_psnr(video, image))


def _image_beside(path: Path, told: str) -> Path | None:
    """The first picture, if it is still what it was. told: "first.png 0123456789abcdef", its name and digest."""
    name, _, digest = told.rpartition(" ")
    image = path.parent / Path(name).name
    return image if name and image.is_file() and sha256(image).startswith(digest) else None


def _first_frame_psnr(video: torch.Tensor, image: Path) -> float | None:
    """In dB, None where the picture has another size or is equal to the last bit."""
    given, first = video_to_frames(read_image(image))[0], video_to_frames(video[:, :, :1])[0]
    value = psnr(given, first) if given.shape == first.shape else float("inf")
    return None if value == float("inf") else value


def _settings(path: Path) -> dict[str, Any] | None:
    """None for a video that no `generate` wrote."""
    try:
        settings = json.loads(read_metadata(path).get(SETTINGS_KEY, ""))
    except (UserError, ValueError):
        return None
    return settings if isinstance(settings, dict) and settings.keys() >= _PROMPTED else None


def _json(path: Path) -> dict[str, Any]:
    """An object; empty for a file that is not there or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
