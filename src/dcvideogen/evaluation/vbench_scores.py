"""VBench's and VBench-I2V's dimensions, and the scores that are made of them.

Of a dimension's result x, as VBench writes it, the share (x - lowest) / (highest - lowest) is taken, not clipped; a
group of dimensions is the mean of these by weight, the total the mean of the groups by weight. Bounds and weights are
those of VBench's leaderboard (arXiv 2311.17982 and its extension 2411.13503). tests/evaluation/test_vbench_scores.py
has published rows and the scores published for them, which they give within 0.01.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dcvideogen.errors import UserError


@dataclass(frozen=True)
class Dimension:
    """weight: in its group; 0: measured, and in no score."""

    name: str
    group: str
    lowest: float = 0.0
    highest: float = 1.0
    weight: float = 1.0

    def share(self, result: float) -> float:
        return (result - self.lowest) / (self.highest - self.lowest)


@dataclass(frozen=True)
class Suite:
    """weights: of the groups in the total; their sum is 1."""

    name: str
    weights: Mapping[str, float]
    dimensions: tuple[Dimension, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dimension.name for dimension in self.dimensions)


@dataclass(frozen=True)
class Scores:
    """In percent. None where dimensions are missing."""

    groups: Mapping[str, float | None]
    total: float | None
    missing: tuple[str, ...]


QUALITY, SEMANTIC, I2V = "quality", "semantic", "i2v"

_CONSISTENCY = (
    Dimension("subject_consistency", QUALITY, lowest=0.1462),
    Dimension("background_consistency", QUALITY, lowest=0.2615),
)
_FLICKERING = "temporal_flickering"
_MOTION_AND_FRAMES = (
    Dimension("motion_smoothness", QUALITY, lowest=0.706, highest=0.9975),
    Dimension("dynamic_degree", QUALITY, weight=0.5),
    Dimension("aesthetic_quality", QUALITY),
    Dimension("imaging_quality", QUALITY),
)

T2V_SUITE = Suite(
    "VBench",
    {QUALITY: 0.8, SEMANTIC: 0.2},
    (
        *_CONSISTENCY,
        Dimension(_FLICKERING, QUALITY, lowest=0.6293),
        *_MOTION_AND_FRAMES,
        Dimension("object_class", SEMANTIC),
        Dimension("multiple_objects", SEMANTIC),
        Dimension("human_action", SEMANTIC),
        Dimension("color", SEMANTIC),
        Dimension("spatial_relationship", SEMANTIC),
        Dimension("scene", SEMANTIC, highest=0.8222),
        Dimension("appearance_style", SEMANTIC, lowest=0.0009, highest=0.2855),
        Dimension("temporal_style", SEMANTIC, highest=0.364),
        Dimension("overall_consistency", SEMANTIC, highest=0.364),
    ),
)

I2V_SUITE = Suite(
    "VBench-I2V",
    {QUALITY: 0.5, I2V: 0.5},
    (
        *_CONSISTENCY,
        *_MOTION_AND_FRAMES,
        Dimension(_FLICKERING, QUALITY, lowest=0.6293, weight=0.0),
        Dimension("i2v_subject", I2V, lowest=0.1462),
        Dimension("i2v_background", I2V, lowest=0.2615),
        Dimension("camera_motion", I2V, weight=0.1),
    ),
)

ALL_DIMENSIONS = tuple(dict.fromkeys((*T2V_SUITE.names, *I2V_SUITE.names)))


def check_dimensions(names: Iterable[str], where: str) -> None:
    """UserError for a name that neither suite knows; where: what it says first."""
    for name in names:
        if name not in ALL_DIMENSIONS:
            raise UserError(f"{where}: dimension {name!r} came; VBench has {', '.join(ALL_DIMENSIONS)}")


def suite_of(names: Iterable[str]) -> Suite:
    """The suite whose dimensions these are: VBench-I2V's where one is of it alone, else VBench's.

    UserError: dimensions that are of no common suite.
    """
    names = list(names)
    t2v_only = [name for name in names if name not in I2V_SUITE.names]
    i2v_only = [name for name in names if name not in T2V_SUITE.names]
    if t2v_only and i2v_only:
        raise UserError(
            f"{t2v_only[0]}, of VBench, and {i2v_only[0]}, of VBench-I2V, came for one model; keep text to video and "
            "image to video apart"
        )
    return I2V_SUITE if i2v_only else T2V_SUITE


def score(suite: Suite, results: Mapping[str, float]) -> Scores:
    """results: by dimension, as VBench writes them, 0 to 1. A group has a score when all its dimensions are there, and
    the total when all groups have."""
    missing = tuple(one.name for one in suite.dimensions if one.weight and one.name not in results)
    groups: dict[str, float | None] = {}
    for group in suite.weights:
        members = [one for one in suite.dimensions if one.group == group and one.weight]
        if any(one.name in missing for one in members):
            groups[group] = None
            continue
        weighted = sum(one.weight * one.share(results[one.name]) for one in members)
        groups[group] = 100 * weighted / sum(one.weight for one in members)
    known = {group: value for group, value in groups.items() if value is not None}
    total = None if missing else sum(suite.weights[group] * value for group, value in known.items())
    return Scores(groups, total, missing)
