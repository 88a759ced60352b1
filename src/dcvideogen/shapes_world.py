"""The shapes world: a captioned video world so small that every generated video can be checked without a judge.

One shape on one background, 540 combinations, about one in seven never trained on. The renderer (data/shapes.py) and
the scorer (evaluation/shapes_score.py) meet here and nowhere else.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from itertools import product
from typing import Literal

from dcvideogen.errors import UserError

# Radius, as a part of the frame's shorter side.
SIZES = {"small": 0.14, "large": 0.24}
# sRGB, 0 to 255.
COLORS = {
    "red": (230, 40, 40),
    "green": (40, 190, 70),
    "blue": (50, 80, 230),
    "yellow": (240, 210, 50),
    "cyan": (60, 210, 220),
    "magenta": (215, 60, 210),
}
SHAPES = ("circle", "square", "triangle")
# The shapes of radius 1: a square of half side 0.85 and an upright equilateral triangle of circumradius 1.2, so that
# all boxes are about as large (1.7 and 2.0 against the circle's 2) and a large one is larger than any small one.
HALF_SQUARE = 0.85
CIRCUMRADIUS = 1.2
# Direction (x, y), y pointing down.
MOTIONS = {
    "moves left": (-1, 0),
    "moves right": (1, 0),
    "moves up": (0, -1),
    "moves down": (0, 1),
    "stays still": (0, 0),
}
BACKGROUNDS = {"black": (10, 10, 10), "gray": (128, 128, 128), "navy": (15, 25, 90)}

# What a moving shape travels over a clip, as a part of the frame's side.
TRAVEL = (0.35, 0.6)
FPS = 16

Split = Literal["train", "test", "all"]
SPLITS: tuple[Split, ...] = ("train", "test", "all")
CAPTION = "a {size} {color} {shape} {motion} on a {background} background"

# In the order of the caption, which is also that of the indices.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "size": tuple(SIZES),
    "color": tuple(COLORS),
    "shape": SHAPES,
    "motion": tuple(MOTIONS),
    "background": tuple(BACKGROUNDS),
}


@dataclass(frozen=True, order=True)
class Combination:
    """What a caption says, one name of each table above; UserError for a name that is not in its table."""

    size: str
    color: str
    shape: str
    motion: str
    background: str

    def __post_init__(self) -> None:
        for field, value in zip(fields(self), astuple(self), strict=True):
            if value not in ATTRIBUTES[field.name]:
                raise UserError(f"{field.name} {value!r} came; {', '.join(ATTRIBUTES[field.name])} are allowed")

    @property
    def indices(self) -> tuple[int, ...]:
        """Where each of the five names stands in its table, from 0."""
        return tuple(ATTRIBUTES[field.name].index(getattr(self, field.name)) for field in fields(self))

    @property
    def index(self) -> int:
        """Its place in `combinations("all")`, 0 to 539."""
        place = 0
        for position, names in zip(self.indices, ATTRIBUTES.values(), strict=True):
            place = place * len(names) + position
        return place


def is_test(combination: Combination) -> bool:
    """Whether it is held out: the sum of its five indices, divided by 7, leaves 3."""
    return sum(combination.indices) % 7 == 3


def combinations(split: Split) -> list[Combination]:
    """All combinations of a split, the background varying fastest; UserError for an unknown split."""
    if split not in SPLITS:
        raise UserError(f"split {split!r} came; {', '.join(SPLITS)} are allowed")
    every = [Combination(*names) for names in product(*ATTRIBUTES.values())]
    return [one for one in every if split == "all" or is_test(one) == (split == "test")]


def caption(combination: Combination) -> str:
    """ "a small red circle moves left on a black background"."""
    return CAPTION.format(**{field.name: getattr(combination, field.name) for field in fields(combination)})


def parse_caption(text: str) -> Combination:
    """The combination that a caption names; case, spaces and a full stop at the end do not matter.

    Raises UserError for anything else.
    """
    words = text.lower().rstrip(" .").split()
    if len(words) != 10 or [words[0], *words[6:8], words[9]] != ["a", "on", "a", "background"]:
        raise UserError(f"caption {text!r} came; only '{CAPTION}' is allowed here")
    size, color, shape, verb, where, background = *words[1:6], words[8]
    try:
        return Combination(size, color, shape, f"{verb} {where}", background)
    except UserError as error:
        raise UserError(f"caption {text!r}: {error}") from error
