"""The report as Markdown: tables, and links to the pictures beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dcvideogen.evaluation.report_table import (
    CLIP_COLUMNS,
    cell,
    clips_of_name,
    missing_metrics,
    shown_columns,
    summary_rows,
)


def markdown(report: dict[str, Any]) -> str:
    """The whole file."""
    return "\n".join([*_head(report), *_clips(report), *_details(report), *_foot(report)]) + "\n"


def protocol_words(report: dict[str, Any]) -> str:
    """One sentence on what was measured."""
    settings, main = report["settings"], report["subjects"][0]
    size = f"{settings['width']}x{settings['height']}" if settings.get("height") else "their own size"
    frames = f"the first {settings['num_frames']} frames" if settings.get("num_frames") else "all frames"
    rate = f" at {settings['fps']} frames/s" if settings.get("fps") else ""
    return f"{main['num_clips']} clips at {size}, {frames}{rate}; 8-bit frames; {main['dtype']}."


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(escape(text) for text in head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(escape(text) for text in row)} |"


def escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _head(report: dict[str, Any]) -> Iterator[str]:
    rows = summary_rows(report)
    columns = shown_columns(rows)
    yield f"# Evaluation of {escape(report['subjects'][0]['name'])}"
    yield ""
    yield protocol_words(report)
    yield ""
    body = [[row["name"], *(cell(row[c.key], c) for c in columns), str(row["num_clips"])] for row in rows]
    yield from table(["mean", *(column.title for column in columns), "clips"], body)
    yield ""
    for title, reason in missing_metrics(report).items():
        yield f"- No {title}: {reason}."
    if note := report["subjects"][0]["rfvd"]["note"]:
        yield f"- rFVD from {note}."
    yield f"- PCA fitted on {report['pca_fitted_on']}."


def _clips(report: dict[str, Any]) -> Iterator[str]:
    for subject in report["subjects"]:
        if subject["num_clips"]:
            rows = [clip["values"] for clip in subject["clips"]]
            columns = shown_columns(rows, CLIP_COLUMNS)
            yield from ("", f"## {escape(subject['name'])}", "")
            body = [[clip["clip"], *(cell(clip["values"][c.key], c) for c in columns)] for clip in subject["clips"]]
            yield from table(["clip", *(column.title for column in columns)], body)


def _details(report: dict[str, Any]) -> Iterator[str]:
    noisy = [subject for subject in report["subjects"] if subject["latent_noise"]]
    if noisy:
        yield from ("", "## Noise on the latents", "", "PSNR in dB; noise in standard deviations of each channel.", "")
        levels = [f"{row['std']:g}" for row in noisy[0]["latent_noise"]]
        body = [
            [s["name"], *("-" if r["psnr_db"] is None else f"{r['psnr_db']:.2f}" for r in s["latent_noise"])]
            for s in noisy
        ]
        yield from table(["noise", *levels], body)
    flat = [s for s in report["subjects"] if s["flat_field"] and s["flat_field"]["mean"]]
    if flat:
        yield from ("", "## Flat fields", "", "8-bit levels, mean over colours; share of the residual's energy.", "")
        keys = ("offset_levels", "residual_levels", "grid_levels")
        body = []
        for subject in flat:
            mean, share = subject["flat_field"]["mean"], subject["flat_field"]["mean"]["grid_share"]
            shares = ["-" if share is None else f"{share:.3f}", f"{subject['flat_field']['chance_share']:.3f}"]
            body.append([subject["name"], *(f"{mean[key]:.3f}" for key in keys), *shares])
        yield from table(["", "offset", "residual", "grid", "grid's share", "share of chance"], body)
    latents = [subject for subject in report["subjects"] if subject["latents"]]
    if latents:
        yield from ("", "## Latents", "")
        body = [
            [
                subject["name"],
                f"{subject['latents']['overall_std']:.4f}",
                f"{min(subject['latents']['std']):.4f} to {max(subject['latents']['std']):.4f}",
                f"{subject['latents']['scaling_factor'] or 0:.4f}",
                subject["stated"] or "-",
                str(len(subject["latents"]["dead_channels"])),
            ]
            for subject in latents
        ]
        head = ["", "std", "std per channel", "scaling factor implied", "stated", "dead channels"]
        yield from table(head, body)


def _foot(report: dict[str, Any]) -> Iterator[str]:
    yield from ("", "## Pictures", "")
    main = report["subjects"][0]["name"]
    for name, subjects in clips_of_name(report).items():
        place, pictures = subjects[main]["folder"], subjects[main]["pictures"]
        frames = [f"[frame {row['frame']}]({place}/{row['reconstruction']})" for row in pictures["frames"]]
        worst = [f"[{row['psnr_db']:.1f} dB]({place}/{row['picture']})" for row in pictures["worst_blocks"]]
        yield f"- {escape(name)}: {', '.join(frames)}; worst blocks {', '.join(worst) or 'none'}"
    if report["left_out"]:
        yield from ("", "## Left out", "")
        for row in report["left_out"]:
            yield f"- {escape(row['clip'])} ({escape(row['subject'])}): {escape(row['reason'])}"
