"""The report of the study of adaptation: a table, a plot like the paper's Figure 6, claims and targets, all numbers."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from pathlib import Path

from adaptation_study_arms import ARMS
from adaptation_study_results import Results, claims, number, read_results, targets
from study_runs import write_json

from dcvideogen.evaluation.svg import COLOURS, HEIGHT, WIDTH, Series, line_plot
from dcvideogen.files import write_text

PALETTE = ("#4269d0", "#ff725c", "#6cc5b0", "#efb118", "#a463f2", "#9c6b4e")
STYLE = (
    "text{font:11px sans-serif;fill:#444}.grid{stroke:#ddd}.mark{stroke:#999;stroke-dasharray:3}"
    ".line{fill:none;stroke-width:1.6}"
)
LEGEND = 260  # units beside the plot


def write_report(folder: Path, target: Path, hardware: str, base_steps: int) -> None:
    """target.md, target.json and target.svg, from what is done."""
    results = read_results(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    numbers = asdict(results)
    # By what they are called: where they lie is nobody's business.
    numbers["settings"] |= {name: Path(results.settings[name]).name for name in ("base", "autoencoder", "clips")}
    write_json(target.with_suffix(".json"), numbers)
    drawing = plot(results)
    if drawing:
        write_text(target.with_suffix(".svg"), drawing)
    write_text(target.with_suffix(".md"), report(results, target.name, hardware, base_steps, bool(drawing)))


def report(results: Results, name: str, hardware: str, base_steps: int, drawn: bool) -> str:
    settings = results.settings
    seeds = sorted({seed for runs in results.runs.values() for seed in runs})
    parts = [
        f"# Adaptation in the shapes world, {hardware}",
        f"Written by benchmarks/adaptation_study.py from its runs. Seeds {', '.join(map(str, seeds)) or 'none yet'}; "
        f"{results.steps[-1]} steps of {settings['batch_size']} clips for every arm, {settings['optimizer']}, fp32, "
        f"LoRA rank {settings['rank']}, alpha {settings['alpha']:g}, shift {settings['shift']:g}, averaged weights "
        f"(decay {settings['ema_decay']:g}), the learning rate falling to 0 as a cosine. "
        f"Scores at checkpoints: {settings['captions']} held-out captions, one seed "
        f"each; at the end {settings['final_captions']} captions x {settings['final_seeds']}. "
        f"{settings['sampling_steps']} Euler steps, guidance {settings['guidance']:g}. Mean (range over seeds).",
    ]
    if drawn:
        parts.append(f"![semantic score against training steps]({name}.svg)")
    parts += [final_table(results), step_table(results)]
    if rows := targets(results, base_steps):
        parts.append("## Targets\n\n" + table(("target", "measured"), rows))
    if len(results.runs) > 1:
        rows = [row for row in claims(results) if not row[1].startswith("not run")]
        parts.append("## Claims\n\nA comparison holds when the worst seed of one is above the best of the other.\n\n"
                     + table(("claim", "measured"), rows))  # fmt: skip
    if results.rates:
        parts.append(rate_table(results))
    return "\n\n".join(parts) + "\n"


def final_table(results: Results) -> str:
    """At the end: scores, loss, parameters, time."""
    rows = []
    if results.base:
        final, chance = results.base["final"], results.base["chance"]
        rows.append(("base model", *(f"{final[key]:.3f}" for key in ("semantic", "joint", "quality")), *("",) * 4))
        rows.append(("chance", f"{chance['semantic']:.3f}", f"{chance['joint']:.3f}", *("",) * 5))
    last = results.steps[-1]
    for arm in results.arms:
        runs = list(results.runs[arm].values())
        start = [s.get("align_seconds", 0) + s.get("head_seconds", 0) for s in results.starts(arm)]
        rows.append((
            f"({ARMS[arm].letter}) {ARMS[arm].title}",
            *(number(results.final(arm, key)) for key in ("semantic", "joint", "quality")),
            number(results.values(arm, last, lambda entry: entry["loss"]), 4),
            f"{runs[0]['trained'] / 1e6:.2f}",
            number(start, 1),
            number([seconds / 60 for seconds in results.values(arm, last, lambda entry: entry["seconds"])], 1),
        ))  # fmt: skip
    head = ("", "semantic", "joint", "quality", "held-out loss", "trained, M", "aligning, s", "training, min")
    return f"## After {last} steps\n\n" + table(head, rows)


def step_table(results: Results) -> str:
    """semantic (joint) at every checkpoint."""
    rows = []
    for arm in results.arms:
        cells = []
        for step in results.steps:
            joint = results.values(arm, step, lambda entry: entry["score"]["joint"])
            cells.append(f"{statistics.fmean(results.semantic(arm, step)):.3f} ({statistics.fmean(joint):.2f})")
        rows.append((f"({ARMS[arm].letter}) {ARMS[arm].title}", *cells))
    if results.base:
        base = f"{results.base['score']['semantic']:.3f} ({results.base['score']['joint']:.2f})"
        rows.append(("base model", base, *("",) * (len(results.steps) - 1)))
    head = ("semantic (joint)", *(f"step {step}" for step in results.steps))
    return "## On the way\n\n" + table(head, rows)


def rate_table(results: Results) -> str:
    losses = results.rates["losses"]
    rates = sorted({rate for found in losses.values() for rate in found}, key=float)
    rows = [
        (f"({ARMS[arm].letter})", *(f"{found[rate]:.4f}" if rate in found else "" for rate in rates),
         f"{results.rates['chosen'][arm]:g}")
        for arm, found in losses.items()
    ]  # fmt: skip
    return (
        f"## Learning rates\n\nHeld-out loss after a run of {results.rates['steps']} steps with another seed; (d), (g) "
        "and (h) take the rate of (e).\n\n" + table(("", *rates, "chosen"), rows)
    )


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def plot(results: Results) -> str:
    """Semantic score against steps: the mean over seeds, and at each checkpoint the range as an upright line."""
    lines, ranges = [], []
    for arm in results.arms:
        colour = list(ARMS).index(arm) % COLOURS
        means = [statistics.fmean(results.semantic(arm, step)) for step in results.steps]
        lines.append(Series(f"({ARMS[arm].letter}) {ARMS[arm].title}", results.steps, means, colour))
        for step in results.steps:
            values = results.semantic(arm, step)
            if max(values) > min(values):
                ranges.append(Series("range", [step, step], [min(values), max(values)], colour))
    if results.base and lines:
        level = results.base["score"]["semantic"]
        lines.append(Series("base model", [results.steps[0], results.steps[-1]], [level, level], 5))
    drawing = line_plot("semantic score against training steps", [*lines, *ranges], "training steps", "semantic score")
    return standalone(drawing, lines) if drawing else ""


def standalone(drawing: str, lines: list[Series]) -> str:
    """A file of its own: colours, a white ground, names beside it. Arms beyond the colours and the base are dashed."""
    names = {f"({arm.letter}) {arm.title}" for arm in list(ARMS.values())[COLOURS:]} | {"base model"}
    before, *polylines = drawing.split("<polyline ")
    dash = 'stroke-dasharray="5 3" '
    for index, one in enumerate(lines):  # these come first
        polylines[index] = (dash if one.name in names else "") + polylines[index]
    opening, rest = "<polyline ".join([before, *polylines]).split(">", 1)
    size = f"0 0 {WIDTH + LEGEND} {HEIGHT}"
    opening = opening.replace(f'viewBox="0 0 {WIDTH} {HEIGHT}"', f'viewBox="{size}" xmlns="http://www.w3.org/2000/svg"')
    colours = "".join(f".line.s{i}{{stroke:{c}}}" for i, c in enumerate(PALETTE))
    legend = "".join(
        f'<polyline {dash if one.name in names else ""}class="line s{one.colour % COLOURS}" '
        f'points="{WIDTH + 4},{20 + 18 * i} {WIDTH + 28},{20 + 18 * i}"/>'
        f'<text x="{WIDTH + 34}" y="{24 + 18 * i}">{one.name}</text>'
        for i, one in enumerate(lines)
    )
    ground = f'<rect width="{WIDTH + LEGEND}" height="{HEIGHT}" fill="white"/>'
    return f"{opening}><style>{STYLE}{colours}</style>{ground}{rest.removesuffix('</svg>')}{legend}</svg>\n"
