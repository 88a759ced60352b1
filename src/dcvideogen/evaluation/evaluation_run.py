"""Every subject on every clip: goes on after a clip that breaks, and where a stopped run ended."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dcvideogen.errors import UserError
from dcvideogen.evaluation.clip_evaluation import (
    PROTOCOL,
    Clip,
    NoProgress,
    Progress,
    clip_key,
    evaluate_clip,
    finished,
    folder_names,
    write_json,
)
from dcvideogen.evaluation.flat_field import flat_field
from dcvideogen.evaluation.measures import Networks
from dcvideogen.evaluation.pca_baseline import NUM_COMPONENTS, SIZE
from dcvideogen.evaluation.pca_folds import PcaFolds
from dcvideogen.evaluation.subjects import Codec, DctSubject, Subject, Traits
from dcvideogen.evaluation.summary import summarise

log = logging.getLogger(__name__)

OpenProgress = Callable[[str, int | None], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Entrant:
    """One column of the report. key: what its numbers on the clip of an index depend on; subject: made when needed."""

    traits: Traits
    key: Callable[[int], str]
    subject: Callable[[int], Subject]
    absent: Callable[[int], str | None] = lambda _: None


def evaluate(
    subjects: Sequence[Codec],
    clips: Sequence[Clip],
    folder: Path,
    networks: Networks,
    *,
    pca_data: Sequence[Clip] = (),
    settings: dict[str, Any] | None = None,
    open_progress: OpenProgress = lambda title, total: NoProgress(),
) -> dict[str, Any]:
    """Measures the subjects (the first one is what it is all about, the others stand beside it), DCT and PCA.

    Everything goes to `folder`, one folder per subject and clip; what is there with the same settings is not done
    again. A clip that the first subject cannot be measured on is left out for all; one that only another subject fails
    on is missing there. `settings`: told in the report. Raises UserError when no clip is left.
    """
    entrants = entrants_of(subjects, clips, pca_data)
    places = dict(zip((clip.name for clip in clips), folder_names(clip.name for clip in clips), strict=True))
    results: dict[str, list[dict[str, Any]]] = {entrant.traits.name: [] for entrant in entrants}
    left_out: list[dict[str, str]] = []
    rooms = folder_names(entrant.traits.name for entrant in entrants)
    for index, clip in enumerate(clips):
        for entrant, room in zip(entrants, rooms, strict=True):
            place = Path("clips") / room / places[clip.name]
            title = f"{clip.name}, {entrant.traits.name}"
            try:
                if (reason := entrant.absent(index)) is not None:
                    raise UserError(reason)
                key = clip_key(entrant.key(index), clip, networks)
                result = finished(folder / place, key)
                if result is None:
                    with open_progress(title, clip.num_frames) as progress:
                        subject = entrant.subject(index)
                        result = evaluate_clip(subject, clip, networks, folder / place, key, progress)
            except (UserError, OSError) as error:
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                    raise
                told = " ".join(str(error).split())
                left_out.append({"clip": clip.name, "subject": entrant.traits.name, "reason": told})
                if entrant.traits.kind != "baseline":
                    log.warning("left out: %s, %s: %s", clip.name, entrant.traits.name, told)
                if entrant is entrants[0]:
                    break
                continue
            results[entrant.traits.name].append({**result, "folder": place.as_posix()})
    if not results[entrants[0].traits.name]:
        reasons = "; ".join(f"{row['clip']}: {row['reason']}" for row in left_out[:3])
        raise UserError(f"none of {len(clips)} clips could be measured ({reasons}); give intact videos or images")
    flat = {
        subject.traits.name: _flat_field(subject, folder / "clips" / room, networks)
        for subject, room in zip(subjects, rooms, strict=False)
    }
    report = summarise([entrant.traits for entrant in entrants], results, flat, left_out)
    return {"protocol": PROTOCOL, "settings": settings or {}, "pca_fitted_on": _fitted_on(pca_data), **report}


def entrants_of(subjects: Sequence[Codec], clips: Sequence[Clip], pca_data: Sequence[Clip]) -> list[Entrant]:
    """The subjects, each under a name of its own, and the two baselines."""
    entrants = []
    for subject in (*subjects, DctSubject()):
        traits = subject.traits
        key = f"{traits.name} {traits.fingerprint} {traits.dtype}"
        entrants.append(Entrant(traits, lambda _, key=key: key, lambda _, subject=subject: subject))
    folds = PcaFolds(clips, pca_data)
    pca = replace(entrants[-1].traits, name="PCA", compression_ratio=SIZE / NUM_COMPONENTS, fingerprint="")
    return [*entrants, Entrant(pca, folds.key, folds.subject, folds.reason)]


def with_unique_names(subjects: Sequence[Codec]) -> list[Codec]:
    """Numbers those that share a name, in place; models and peers are told apart by it, on the page and on disk."""
    taken: list[str] = ["fixed DCT", "PCA"]
    for subject in subjects:
        name, number = subject.traits.name, 2
        while (unique := name if number == 2 and name not in taken else f"{name} ({number})") in taken:
            number += 1
        subject.traits = replace(subject.traits, name=unique)
        taken.append(unique)
    return list(subjects)


@torch.inference_mode()
def _flat_field(subject: Codec, room: Path, networks: Networks) -> dict[str, Any]:
    """Of a subject's own, so measured once and kept beside its clips."""
    place = room / "flat_field.json"
    key = f"{PROTOCOL} {subject.traits.fingerprint} {subject.traits.dtype} {networks.device.type}"
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
        if known["key"] == key:
            return known["result"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or half of it: measured again
    try:
        result = {**flat_field(subject), "reason": None}
    except UserError as error:
        result = {"mean": None, "reason": str(error)}
    room.mkdir(parents=True, exist_ok=True)
    write_json(place, {"key": key, "result": result})
    return result


def _fitted_on(data: Sequence[Clip]) -> str:
    return f"{len(data)} clips given with --pca-data" if data else "the other clips of this evaluation"
