"""Plots of the study of time, as SVG files that stand by themselves."""

from __future__ import annotations

import statistics

from study_runs import MULTIPLES, Runs, gain_by_frame, psnr_at

from dcvideogen.evaluation.svg import Series, line_plot

COLOURS = ("#4269d0", "#ff725c", "#6cc5b0", "#efb118", "#a463f2", "#9c6b4e")
STYLE = (
    "text{font:11px sans-serif;fill:#444}.grid{stroke:#ddd}.mark{stroke:#999;stroke-dasharray:3}"
    ".line{fill:none;stroke-width:1.6}"
)
AROUND = range(-12, 12)  # frames from an edge


def drawings(runs: Runs) -> dict[str, str]:
    """Name -> SVG: PSNR by length on slow and on fast clips, and gain by frame around the pieces' edges."""
    result = {group: psnr_by_length(runs, group) for group in ("slow", "fast")}
    result.update({f"edges_{key}": gain_around_edges(runs, key) for key in ("whole", "cut")})
    return {name: drawing for name, drawing in result.items() if drawing}


def psnr_by_length(runs: Runs, group: str) -> str:
    series = []
    for colour, name in enumerate(runs.names):
        points = []
        for multiple in MULTIPLES:
            values = [runs.mean(name, seed, group, psnr_at(multiple)) for seed in runs.results[name]]
            if None not in values:
                points.append((float(multiple[0]), statistics.fmean(v for v in values if v is not None)))
        series.append(Series(name, [x for x, _ in points], [y for _, y in points], colour))
    title = f"PSNR by length of the clip, {group} clips"
    return standalone(
        line_plot(title, series, f"{group} clips: length in training lengths", "PSNR, dB", dots=True), series
    )


def gain_around_edges(runs: Runs, key: str) -> str:
    length = runs.settings["num_frames"]
    series = []
    for colour, name in enumerate(runs.names):
        gains = gain_by_frame(runs, name, key)
        edges = list(range(length, len(gains), length))
        if edges and length >= len(AROUND):
            around = [statistics.fmean(gains[edge + offset] for edge in edges) for offset in AROUND]
            series.append(Series(name, list(AROUND), around, colour))
    label = f"clip {key}: frames from a multiple of {length}"
    return standalone(line_plot(label, series, label, "gain over the start, dB", [0]), series)


def standalone(drawing: str, series: list[Series]) -> str:
    """An inline plot as a file of its own: colours, a white ground, and the names of the lines beside it."""
    if not drawing:
        return ""
    opening, rest = drawing.split(">", 1)
    opening = opening.replace('viewBox="0 0 460 240"', 'viewBox="0 0 600 240" xmlns="http://www.w3.org/2000/svg"')
    colours = "".join(f".line.s{i}{{stroke:{c}}}.dot.s{i}{{fill:{c}}}" for i, c in enumerate(COLOURS))
    legend = "".join(
        f'<polyline class="line s{one.colour % len(COLOURS)}" points="462,{20 + 18 * i} 482,{20 + 18 * i}"/>'
        f'<text x="488" y="{24 + 18 * i}">{one.name}</text>'
        for i, one in enumerate(series)
    )
    ground = '<rect width="600" height="240" fill="white"/>'
    return f"{opening}><style>{STYLE}{colours}</style>{ground}{rest.removesuffix('</svg>')}{legend}</svg>\n"
