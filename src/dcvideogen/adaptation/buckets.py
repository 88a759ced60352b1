"""Sizes of one area and many shapes: the table that clips are sorted into, made and not typed in."""

from __future__ import annotations

import math

from dcvideogen.errors import UserError

Size = tuple[int, int]


def bucket_sizes(
    height: int, width: int, multiple: int, *, min_aspect: float = 0.5, max_aspect: float = 2.0
) -> tuple[Size, ...]:
    """(height, width) in pixels, flattest last, of about `height` x `width` pixels each, sides multiples of `multiple`.

    For every height the width that comes nearest to the area, where height / width is from min_aspect to max_aspect;
    of two heights with the same width only the better one. 480 x 832 with 32 gives the 480p table of the paper's
    models (arXiv 2509.25182), 480 x 832 among it. Raises UserError when no size is left.
    """
    if min(height, width, multiple) < 1 or not 0 < min_aspect <= max_aspect:
        raise UserError(
            f"buckets of {height}x{width} pixels, multiples of {multiple}, aspects {min_aspect:g} to {max_aspect:g} "
            "came; sides and multiple of at least 1 and 0 < min_aspect <= max_aspect are allowed"
        )
    area = height * width
    best: dict[int, Size] = {}
    for rows in range(multiple, math.isqrt(math.floor(area * max_aspect)) + 2 * multiple, multiple):
        columns = round(area / rows / multiple) * multiple
        if columns == 0 or not min_aspect <= rows / columns <= max_aspect:
            continue
        known = best.get(columns)
        if known is None or abs(math.log(rows * columns / area)) < abs(math.log(known[0] * known[1] / area)):
            best[columns] = (rows, columns)
    if not best:
        raise UserError(
            f"no size of about {height}x{width} pixels has sides that are multiples of {multiple} and an aspect from "
            f"{min_aspect:g} to {max_aspect:g}; a larger area or a wider range is needed"
        )
    return tuple(sorted(best.values(), reverse=True))


def nearest_bucket(height: int, width: int, sizes: tuple[Size, ...]) -> Size:
    """The size whose shape is nearest to that of height x width: so the least is cropped."""
    aspect = math.log(height / width)
    return min(sizes, key=lambda size: (abs(math.log(size[0] / size[1]) - aspect), size))
