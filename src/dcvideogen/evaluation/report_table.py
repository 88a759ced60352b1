"""The numbers that the tables of a report show, in order, with their words and units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """better: "high", "low", or None where more is not better. meaning: one line for the foot of the page."""

    key: str
    title: str
    digits: int
    better: str | None
    meaning: str


COLUMNS = (
    Column("compression_ratio", "compression", 0, None, "numbers in the video per number in the latents"),
    Column("psnr_db", "PSNR, dB", 2, "high", "per uint8 frame, averaged over frames, then over clips"),
    Column("ssim", "SSIM", 4, "high", "Gaussian window 11 x 11, per RGB channel, as PSNR averaged"),
    Column("lpips", "LPIPS", 4, "low", "distance of AlexNet's features, per frame"),
    Column("vmaf", "VMAF", 1, "high", "0 to 100, vmaf_v0.6.1 by ffmpeg's libvmaf"),
    Column("rfvd", "rFVD", 2, "low", "Frechet distance of I3D's logits, inputs against reconstructions"),
    Column("worst_5_percent_db", "worst 5 %, dB", 2, "high", "mean PSNR of the worst 5 % of the 32 x 32 blocks"),
    Column("flicker_levels", "flicker", 2, "low", "mean difference of frame differences, in 8-bit levels"),
    Column("chunk_edge_ratio", "chunk edge", 2, None, "jump of the error at a chunk's edge over that inside"),
    Column("grid_levels", "grid", 3, "low", "RMS of the latent grid's pattern on flat fields, in 8-bit levels"),
    Column("scaling_factor", "scaling factor", 4, None, "1 / std of the raw latents over all clips"),
)
CLIP_COLUMNS = tuple(c for c in COLUMNS if c.key not in ("compression_ratio", "rfvd", "grid_levels", "scaling_factor"))


def cell(value: float | None, column: Column) -> str:
    """ "27.21"; "-" for a number that does not exist."""
    return "-" if value is None else f"{value:.{column.digits}f}"


def summary_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per subject: its name, number of clips, and a value or None for every column."""
    rows = []
    for subject in report["subjects"]:
        flat, latents = subject["flat_field"] or {}, subject["latents"] or {}
        row = {
            "name": subject["name"],
            "num_clips": subject["num_clips"],
            **{column.key: None for column in COLUMNS},
            **subject["mean"],
            "compression_ratio": subject["compression_ratio"],
            "rfvd": subject["rfvd"]["value"],
            "grid_levels": (flat.get("mean") or {}).get("grid_levels"),
            "scaling_factor": latents.get("scaling_factor"),
        }
        if subject["num_clips"]:
            rows.append(row)
    return rows


def shown_columns(rows: list[dict[str, Any]], columns: tuple[Column, ...] = COLUMNS) -> list[Column]:
    """The columns that have a number in some row."""
    return [column for column in columns if any(row[column.key] is not None for row in rows)]


def missing_metrics(report: dict[str, Any]) -> dict[str, str]:
    """Metric -> why no clip of the first subject has it."""
    main = report["subjects"][0]
    reasons = {"rFVD": main["rfvd"]["reason"]} if main["rfvd"]["value"] is None else {}
    series = {"PSNR": "psnr_db", "SSIM": "ssim", "LPIPS": "lpips", "VMAF": "vmaf", "flicker": "flicker_levels"}
    for title, key in {**series, "chunk edge": "chunk_edges"}.items():
        value = "ratio" if key == "chunk_edges" else "mean"
        if all(clip[key][value] is None for clip in main["clips"]):
            reasons[title] = main["clips"][0][key]["reason"]
    return {title: reason for title, reason in reasons.items() if reason}


def clips_of_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Clip -> subject -> its result, in the order of the first subject's clips."""
    names = [clip["clip"] for clip in report["subjects"][0]["clips"]]
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for subject in report["subjects"]:
        for clip in subject["clips"]:
            found[clip["clip"]][subject["name"]] = clip
    return found
