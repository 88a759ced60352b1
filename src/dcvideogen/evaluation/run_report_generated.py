"""Generated videos on the page of runs: side by side, what they show, and what making them took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import prod
from statistics import mean, median
from typing import Any

from dcvideogen.evaluation.report_parts import picture, swatch, table, video
from dcvideogen.evaluation.run_report_files import Generated
from dcvideogen.evaluation.shapes_score import mean_scores
from dcvideogen.shapes_world import ATTRIBUTES

MAX_ROWS = 24  # of videos side by side; the tables are of all
RETAINED = ("background", "color", "size", "shape")  # what a first picture of the shapes world shows


def by_model(videos: Sequence[Generated]) -> dict[str, list[Generated]]:
    """In the order in which the models come."""
    found: dict[str, list[Generated]] = {}
    for one in videos:
        found.setdefault(one.model, []).append(one)
    return found


def seconds_of(videos: Sequence[Generated], part: str) -> float | None:
    """Median over the videos whose maker took the time. part: transformer, decoder or total."""
    values = [one.figures["seconds"][part] for one in videos if part in one.figures.get("seconds", {})]
    return median(values) if values else None


def generated_section(title: str, words: str, videos: Sequence[Generated]) -> Iterator[str]:
    """words: HTML above the videos."""
    if not videos:
        return
    models = list(by_model(videos))
    rows: dict[tuple[str, str, str], list[Generated]] = {}
    for one in videos:
        rows.setdefault(one.asked, []).append(one)
    yield f"<section><h2>{escape(title)}</h2><p>{words}</p>"
    yield '<div class="prompts">'
    for (prompt, seed, _), some in list(rows.items())[:MAX_ROWS]:
        yield f'<div><h3>{escape(prompt)} <span class="muted">seed {escape(seed)}</span></h3><div class="side">'
        if image := next((one.image for one in some if one.image), None):
            yield picture(image, "the picture that was given")
        for one in some:
            label = f"video of {one.model}: {prompt}; {_seen(one) or 'not scored'}"
            yield video(one.path, label, _caption(one, models.index(one.model)))
        yield "</div></div>"
    yield "</div>"
    if len(rows) > MAX_ROWS:
        yield f'<p class="muted">The first {MAX_ROWS} of {len(rows)} prompts; the tables are of all.</p>'
    yield '<div class="tables">'
    yield from _costs(videos)
    yield from _scores(videos)
    yield "</div></section>"


def _caption(one: Generated, place: int) -> str:
    name = f"{swatch(place)}{escape(one.model)}"
    seen = _seen(one)
    if seen is None:
        return name
    return f'{name} <span class="{"right" if one.score.joint else "wrong"}">{escape(seen)}</span>'


def _seen(one: Generated) -> str | None:
    """What the scorer sees; None where there was nothing to score by."""
    if one.score is None or one.reading is None:
        return None
    wrong = [name for name in ATTRIBUTES if not getattr(one.score, name)]
    if not wrong:
        return "✓ as asked"
    return "✗ seen: " + ", ".join(f"{name} {getattr(one.reading, name) or 'unclear'}" for name in wrong)


def _costs(videos: Sequence[Generated]) -> Iterator[str]:
    """What the makers noted, a column per model; rows that no model has are left out."""
    groups = by_model(videos)
    rows: list[list[str]] = []

    def add(title: str, cells: Sequence[str | None]) -> None:
        if any(cell is not None for cell in cells):
            rows.append([title, *("-" if cell is None else cell for cell in cells)])

    add("videos", [str(len(some)) for some in groups.values()])
    add("frames, size", [_one_of(_size(one.settings) for one in some) for some in groups.values()])
    add("steps, guidance", [_one_of(_steps(one.settings) for one in some) for some in groups.values()])
    add("tokens", [_one_of(one.figures.get("tokens") for one in some) for some in groups.values()])
    add("passes of the transformer", [_one_of(one.figures.get("passes") for one in some) for some in groups.values()])
    times = {part: [seconds_of(some, part) for some in groups.values()] for part in ("transformer", "decoder", "total")}
    for part, title in (("transformer", "transformer"), ("decoder", "decoder"), ("total", "in all")):
        add(f"{title}, seconds a video", [None if s is None else f"{s:.2f}" for s in times[part]])
    for part, title in (("transformer", "transformer"), ("total", "in all")):
        known = [s for s in times[part] if s]
        if len(known) > 1:
            add(f"{title}, times as fast", [None if not s else f"{max(known) / s:.1f}x" for s in times[part]])
    peaks = [[p["gib"] for one in some if (p := one.figures.get("peak_memory"))] for some in groups.values()]
    add("peak memory, GiB", [f"{max(some):.2f}" if some else None for some in peaks])
    if rows:
        of = {one.figures["peak_memory"]["of"] for one in videos if "peak_memory" in one.figures}
        told = ["Seconds are medians over the videos."] if any(times["total"]) else []
        told += [f"Memory is the most of any, of {escape(', '.join(sorted(of)))}."] if of else []
        yield "<div><h3>What it took</h3>" + table(["", *_heads(groups)], rows)
        yield f'<p class="muted">{" ".join(told)}</p></div>'


def _scores(videos: Sequence[Generated]) -> Iterator[str]:
    groups = {name: [one for one in some if one.score] for name, some in by_model(videos).items()}
    groups = {name: some for name, some in groups.items() if some}
    if not groups:
        return
    means = {name: mean_scores([one.score for one in some]) for name, some in groups.items()}
    chance = {name: 1 / len(names) for name, names in ATTRIBUTES.items()}
    chance["semantic"] = mean(chance.values())
    chance["joint"] = 1 / prod(len(names) for names in ATTRIBUTES.values())
    keys = ("semantic", "joint", *ATTRIBUTES, "quality", "persistence", "smoothness", "sharpness")
    rows = [
        [escape(key), *(f"{means[name][key]:.2f}" for name in groups), f"{chance[key]:.3f}" if key in chance else "-"]
        for key in keys
    ]
    pictured = any("image" in one.settings for one in videos)
    if pictured:
        retained = [mean(means[name][key] for key in RETAINED) for name in groups]
        rows.insert(2, ["retention", *(f"{value:.2f}" for value in retained), "-"])
    firsts = [[psnr for one in some if (psnr := one.first_frame_psnr_db)] for some in groups.values()]
    if any(firsts):
        rows.append(["first frame, PSNR, dB", *(f"{mean(some):.2f}" if some else "-" for some in firsts), "-"])
    retention = "; retention: all but the motion, which the picture does not show" if pictured else ""
    yield "<div><h3>What is seen in it</h3>" + table(["", *_heads(groups), "chance"], rows)
    yield (
        '<p class="muted">Measured from the pixels, without a learned judge: 1 where a video shows what its prompt '
        "says, else 0. Semantic: mean of size, color, shape, motion and background; joint: all five"
        f"{retention}. Quality: steady, smooth and sharp. Chance: of a perfect video of another prompt. A few videos "
        "tell no two models apart.</p></div>"
    )


def _heads(groups: dict[str, Any]) -> list[str]:
    return [swatch(index) + escape(name) for index, name in enumerate(groups)]


def _size(settings: dict[str, Any]) -> str | None:
    if not {"num_frames", "width", "height"} <= settings.keys():
        return None
    return f"{settings['num_frames']}, {settings['width']}x{settings['height']}"


def _steps(settings: dict[str, Any]) -> str | None:
    return f"{settings['steps']}, {settings['guidance']:g}" if {"steps", "guidance"} <= settings.keys() else None


def _one_of(values: Any) -> str | None:
    """What all have in common, or how it differs; None where none has it."""
    known = list(dict.fromkeys(escape(str(value)) for value in values if value is not None))
    return ", ".join(known[:3]) + (", ..." if len(known) > 3 else "") if known else None
