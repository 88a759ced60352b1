"""The report as one HTML page that needs nothing else: pictures embedded, plots as inline SVG, no script, no host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dcvideogen.evaluation.report_html_plots import block_plot, latent_plot, noise_plot, psnr_plot
from dcvideogen.evaluation.report_markdown import protocol_words
from dcvideogen.evaluation.report_parts import WEBP_QUALITY, figure, page, picture, swatch, table
from dcvideogen.evaluation.report_table import (
    CLIP_COLUMNS,
    COLUMNS,
    Column,
    cell,
    clips_of_name,
    missing_metrics,
    shown_columns,
    summary_rows,
)
from dcvideogen.evaluation.strip import ERROR_GAIN

MAX_CLIPS = 24  # shown with pictures: those of the lowest PSNR


def html(report: dict[str, Any], folder: Path) -> str:
    """The whole page; pictures are read from `folder`, where the report's clips lie."""
    name = report["subjects"][0]["name"]
    return page(
        f"Evaluation of {name}",
        [
            f"<p>{escape(protocol_words(report))}</p>",
            *summary_section(report),
            *_per_clip(report),
            *_plots(report),
            *_flat_fields(report),
            *_pictures(report, folder),
            *_notes(report),
        ],
    )


def summary_section(report: dict[str, Any], title: str = "Means over the clips") -> Iterator[str]:
    """A column per subject: as narrow as a phone, whatever the number of metrics."""
    rows = summary_rows(report)
    yield f"<section><h2>{escape(title)}</h2>"
    body = []
    for column in shown_columns(rows):
        best = _best(rows, column)
        texts = [cell(row[column.key], column) for row in rows]
        cells = [
            f"<b>{text}</b>" if best is not None and row[column.key] == best else text
            for row, text in zip(rows, texts, strict=True)
        ]
        body.append([_titled(column), *cells])
    body.append(["clips", *(str(row["num_clips"]) for row in rows)])
    names = [swatch(_colour(report, row["name"])) + escape(row["name"]) for row in rows]
    yield table(["", *names], body)
    yield (
        "<p class=muted>Bold: the best of its row. A number is averaged over the clips on which every column that "
        "knows it has it. What each number is: at the end of the page.</p></section>"
    )


def _per_clip(report: dict[str, Any]) -> Iterator[str]:
    yield "<section><h2>Clip by clip</h2>"
    for index, subject in enumerate(report["subjects"]):
        if subject["num_clips"]:
            columns = shown_columns([clip["values"] for clip in subject["clips"]], CLIP_COLUMNS)
            body = [
                [escape(clip["clip"]), *(cell(clip["values"][c.key], c) for c in columns)] for clip in subject["clips"]
            ]
            opened = " open" if index == 0 else ""
            yield f"<details{opened}><summary>{swatch(index)}{escape(subject['name'])}</summary>"
            yield table(["clip", *(_titled(column) for column in columns)], body) + "</details>"
    yield "</section>"


def _plots(report: dict[str, Any]) -> Iterator[str]:
    main = report["subjects"][0]
    yield "<section><h2>Blocks, latents, noise</h2>" + _legend(report) + '<div class="plots">'
    yield figure(block_plot(main["blocks"]), f"PSNR of the {main['blocks']['side']} x {main['blocks']['side']} blocks")
    yield figure(noise_plot(report), "PSNR when Gaussian noise is added to the latents")
    if main["latents"]:
        factor = main["latents"]["scaling_factor"]
        words = "" if factor is None else f"; scaling factor of the raw latents {factor:.4f}"
        stated = f" (stated: {escape(main['stated'])})" if main["stated"] else ""
        yield figure(latent_plot(main["latents"]), f"Standard deviation of each latent channel, sorted{words}{stated}")
    yield "</div></section>"


def _flat_fields(report: dict[str, Any]) -> Iterator[str]:
    subjects = [s for s in report["subjects"] if s["flat_field"] and s["flat_field"]["mean"]]
    if not subjects:
        return
    yield "<section><h2>Flat fields</h2><p>What comes back of a clip of one colour, in 8-bit levels. The grid is the "
    yield "part that repeats with the latents; below half a level most of it is lost in rounding to 8 bits.</p>"
    for subject in subjects:
        flat = subject["flat_field"]
        body = []
        for row in flat["colours"]:
            colour = "#{:02x}{:02x}{:02x}".format(*row["colour"])
            patch = f'<span class="patch" style="background:{colour}"></span>{colour}'
            body.append([patch, *_flat_cells(row)])
        body.append(["mean", *_flat_cells(flat["mean"])])
        head = ["colour", "offset", "residual", "grid", f"grid's share (chance {flat['chance_share']:.3f})"]
        yield f"<details><summary>{escape(subject['name'])}: grid {flat['mean']['grid_levels']:.3f} levels</summary>"
        yield table(head, body) + "</details>"
    yield "</section>"


def _flat_cells(row: dict[str, Any]) -> list[str]:
    keys = ("offset_levels", "residual_levels", "grid_levels", "grid_share")
    return ["-" if row[key] is None else f"{row[key]:.3f}" for key in keys]


def _pictures(report: dict[str, Any], folder: Path) -> Iterator[str]:
    found = clips_of_name(report)
    main = report["subjects"][0]["name"]
    if len(found) > MAX_CLIPS:
        ranked = sorted(found, key=lambda name: found[name][main]["values"]["psnr_db"] or float("inf"))
        found = {name: clips for name, clips in found.items() if name in ranked[:MAX_CLIPS]}
        yield f"<p>Pictures of the {MAX_CLIPS} clips with the lowest PSNR; the others lie beside this page.</p>"
    for name, clips in found.items():
        clip = clips[main]
        yield f"<section><h2>{escape(name)}</h2>"
        frames = f"{clip['width']}x{clip['height']}, {clip['num_frames']} frames"
        yield f"<p class=muted>{frames}; error shown {ERROR_GAIN} times as large</p>"
        for row in clip["pictures"]["frames"]:
            place = folder / clip["folder"]
            yield '<div class="three">'
            for kind, words in (("input", f"frame {row['frame']}"), ("reconstruction", main), ("error", "error")):
                yield picture(place / row[kind], words)
            yield "</div>"
        yield from _others(clips, main, folder)
        yield _legend(report) + '<div class="plots">'
        yield figure(psnr_plot(clips, report), "PSNR over frames; dashed: where a chunk begins")
        yield figure(block_plot(clip["blocks"]), "PSNR of the blocks of this clip")
        yield "</div>"
        yield from _worst(clip, folder)
        yield "</section>"


def _others(clips: dict[str, Any], main: str, folder: Path) -> Iterator[str]:
    """The middle frame of every other subject."""
    others = {name: clip for name, clip in clips.items() if name != main}
    if not others:
        return
    yield "<details><summary>The middle frame by the others</summary>"
    for name, clip in others.items():
        rows = clip["pictures"]["frames"]
        row, place = rows[len(rows) // 2], folder / clip["folder"]
        yield '<div class="three">' + picture(place / row["input"], f"frame {row['frame']}")
        yield picture(place / row["reconstruction"], name) + picture(place / row["error"], "error") + "</div>"
    yield "</details>"


def _worst(clip: dict[str, Any], folder: Path) -> Iterator[str]:
    blocks = clip["pictures"]["worst_blocks"]
    if not blocks:
        return
    percentiles = clip["blocks"]["percentiles_db"]
    words = ", ".join(f"{percent} %: {value:.1f}" for percent, value in percentiles.items())
    yield "<h3>The worst 5 % of places (8 at least)</h3>"
    yield "<p class=muted>Input, reconstruction, error; each place at its worst frame, "
    yield f"with 16 pixels around it. PSNR of blocks that so many do not exceed, in dB: {words}.</p>"
    yield '<div class="worst">'
    for row in blocks:
        caption = f"{row['psnr_db']:.1f} dB, frame {row['frame']}, x {row['x']}, y {row['y']}"
        yield picture(folder / clip["folder"] / row["picture"], caption, exact=True)
    yield "</div>"


def _notes(report: dict[str, Any]) -> Iterator[str]:
    yield "<section><h2>Notes</h2><ul>"
    yield from (f"<li>No {escape(title)}: {escape(reason)}.</li>" for title, reason in missing_metrics(report).items())
    if note := report["subjects"][0]["rfvd"]["note"]:
        yield f"<li>rFVD from {escape(note)}.</li>"
    yield f"<li>PCA fitted on {escape(report['pca_fitted_on'])}.</li>"
    yield f"<li>dcvideogen {escape(report['version'])}, torch {escape(report['torch'])}. Whole frames are embedded as "
    yield f"WebP of quality {WEBP_QUALITY} and at most 320 pixels; blocks are exact.</li></ul>"
    if report["left_out"]:
        yield "<h3>Left out</h3><ul>"
        for row in report["left_out"]:
            yield f"<li>{escape(row['clip'])} ({escape(row['subject'])}): {escape(row['reason'])}</li>"
        yield "</ul>"
    yield "<dl>" + "".join(f"<dt>{c.title}</dt><dd>{c.meaning}</dd>" for c in COLUMNS) + "</dl></section>"


def _titled(column: Column) -> str:
    return f'<span title="{escape(column.meaning)}">{escape(column.title)}</span>'


def _legend(report: dict[str, Any]) -> str:
    names = [(index, subject["name"]) for index, subject in enumerate(report["subjects"]) if subject["num_clips"]]
    return '<p class="legend">' + " ".join(f"<span>{swatch(i)}{escape(name)}</span>" for i, name in names) + "</p>"


def _colour(report: dict[str, Any], name: str) -> int:
    return [subject["name"] for subject in report["subjects"]].index(name)


def _best(rows: Sequence[dict[str, Any]], column: Column) -> float | None:
    present = [row[column.key] for row in rows if row[column.key] is not None]
    if column.better is None or len(present) < 2:
        return None
    return max(present) if column.better == "high" else min(present)
