"""Whether a video of the shapes world shows what its caption says, and how well it is made. No learned judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from dcvideogen.evaluation.shapes_reading import ShapesReading, read_shapes
from dcvideogen.shapes_world import ATTRIBUTES, Combination


@dataclass(frozen=True)
class ShapesScore:
    """All in [0, 1]; the first five are 1 when the video shows what was asked for, else 0.

    persistence: share of the frames that hold the object at its size. smoothness: no flicker, no jumps. sharpness:
    slope of the edges against a real render's.
    """

    background: float
    color: float
    size: float
    shape: float
    motion: float
    persistence: float
    smoothness: float
    sharpness: float

    @property
    def semantic(self) -> float:
        """Mean of what the caption says: background, color, size, shape and motion."""
        return sum(getattr(self, name) for name in ATTRIBUTES) / len(ATTRIBUTES)

    @property
    def joint(self) -> float:
        """1 when all five are right."""
        return min(getattr(self, name) for name in ATTRIBUTES)

    @property
    def quality(self) -> float:
        """Mean of persistence, smoothness and sharpness."""
        return (self.persistence + self.smoothness + self.sharpness) / 3

    def as_json(self) -> dict[str, float]:
        """Every number above by its name, the three means last."""
        return {**asdict(self), "semantic": self.semantic, "joint": self.joint, "quality": self.quality}


def score_video(video: torch.Tensor, combination: Combination) -> ShapesScore:
    """Scores a video (3, T, H, W) in [-1, 1] of any length; errors as in read_shapes."""
    return score_reading(read_shapes(video), combination)


def score_reading(reading: ShapesReading, combination: Combination) -> ShapesScore:
    """The score of what was read; one reading can be held against many captions."""
    right = {name: float(getattr(reading, name) == getattr(combination, name)) for name in ATTRIBUTES}
    return ShapesScore(
        **right, persistence=reading.persistence, smoothness=reading.smoothness, sharpness=reading.sharpness
    )


def mean_scores(scores: Sequence[ShapesScore]) -> dict[str, float]:
    """The mean of every number of `as_json`, over one score or more."""
    if not scores:
        raise ValueError("no scores came; the mean of at least 1 is defined")
    rows = [score.as_json() for score in scores]
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def chance(videos: Sequence[Combination], captions: Sequence[Combination]) -> dict[str, float]:
    """What perfect videos score against captions drawn independently of them: semantic, joint and the five, exactly.

    Every video meets every caption once. Over the whole world, semantic is 0.3067 and joint 1 in 540.
    """
    pairs = len(videos) * len(captions)
    same = {
        name: sum(getattr(one, name) == getattr(other, name) for one in videos for other in captions) / pairs
        for name in ATTRIBUTES
    }
    joint = sum(one == other for one in videos for other in captions) / pairs
    return {**same, "semantic": sum(same.values()) / len(same), "joint": joint}
