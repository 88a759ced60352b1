"""The plots of the HTML page, from the numbers of the report."""

from __future__ import annotations

from typing import Any

from dcvideogen.evaluation.svg import Series, bar_plot, line_plot


def psnr_plot(clips: dict[str, Any], report: dict[str, Any]) -> str:
    """PSNR over the frames of one clip, a line per subject; dashed lines where the first subject's chunks begin."""
    series = []
    for colour, subject in enumerate(report["subjects"]):
        if subject["name"] in clips:
            values = clips[subject["name"]]["psnr_db"]["per_frame"]
            series.append(Series(subject["name"], range(len(values)), values, colour))
    marks = clips[report["subjects"][0]["name"]]["chunk_edges"]["frames"]
    return line_plot("PSNR over frames", series, "frame", "PSNR, dB", marks)


def noise_plot(report: dict[str, Any]) -> str:
    """PSNR against the noise on the latents, a line per subject that has latents."""
    series = []
    for colour, subject in enumerate(report["subjects"]):
        rows = subject["latent_noise"]
        if rows:
            values = [row["psnr_db"] for row in rows]
            series.append(Series(subject["name"], [row["std"] for row in rows], values, colour))
    words = "noise, standard deviations of the latents"
    return line_plot("Noise robustness", series, words, "PSNR, dB", dots=True) if series else ""


def latent_plot(latents: dict[str, Any]) -> str:
    """Standard deviation of every channel, the largest first."""
    deviations = sorted(latents["std"], reverse=True)
    return bar_plot("Standard deviation per latent channel", deviations, "channel, sorted", "standard deviation")


def block_plot(blocks: dict[str, Any]) -> str:
    """Share of the blocks per 1 dB of PSNR, over the range that occurs."""
    counts = blocks["histogram_per_db"]
    present = [index for index, count in enumerate(counts) if count]
    if not present:
        return ""
    first, last = present[0], present[-1]
    shares = [100 * count / blocks["num_blocks"] for count in counts[first : last + 1]]
    return bar_plot("PSNR of blocks", shares, "PSNR, dB", "% of blocks", start=blocks["histogram_from_db"] + first)
