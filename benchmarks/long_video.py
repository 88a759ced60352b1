"""Longer videos than a model was trained for: what of the caption is still seen, by window of the trained length.

One pass (any model): all frames at once, at positions that the model never saw. Windows (image to video): each begins
with the last frame of the one before; decoded as one stream. The shapes world's scorer reads every window by itself.
A moving object travels 0.35 to 0.6 of the side in one window, so after the second there is no way left to go: from
there on `motion` tells what a model does at the frame's edge, not whether it is right.

    python benchmarks/long_video.py shapes-dc shapes-i2v -o out/long --report benchmarks/results/long_video_cpu
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from time import perf_counter

import torch
from study_runs import write_json
from torch import Tensor

from dcvideogen.data.shapes import render
from dcvideogen.evaluation.shapes_reading import read_shapes
from dcvideogen.files import write_text
from dcvideogen.pipelines.loading import load_pipeline
from dcvideogen.pipelines.long_video import GIVEN_LATENTS, generate_windows
from dcvideogen.pipelines.noise import video_generator
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline
from dcvideogen.recipes.shapes_i2v_scoring import CLIP_SEED
from dcvideogen.recipes.shapes_scoring import STRIP_ROWS, frames_of, held_out_combinations, save_strip
from dcvideogen.shapes_world import ATTRIBUTES, Combination, caption

WINDOW = 32  # frames of the clips that the shapes world's models were trained on
SIDE = 128
COLUMNS = ("background", "color", "size", "shape", "motion", "persistence", "jump")


def generate(pipeline: DCVideoGenPipeline, asked: Combination, seed: int, num_frames: int, given: int) -> Tensor:
    """Video (3, T, H, W) in about [-1, 1]: in windows with an image-to-video model, in one pass with another."""
    generator = video_generator(seed, asked.index)

    def make(image: object, frames: int, _number: int = 0) -> Tensor:
        pictures = {} if image is None else {"image": image}
        return pipeline(
            **pictures, prompt=caption(asked), height=SIDE, width=SIDE, num_frames=frames,
            generator=generator, output_type="latent",
        ).frames  # fmt: skip

    model = pipeline.autoencoder
    if pipeline.task == "i2v":
        picture = render(asked, CLIP_SEED + asked.index, size=SIDE)[None, :, 0]
        windows = generate_windows(
            model, picture, model.geometry.num_latent_frames(num_frames),
            window=model.geometry.num_latent_frames(WINDOW), given=given, size=(SIDE, SIDE), generate=make,
        )  # fmt: skip
        latents = torch.cat(list(windows), dim=2)
    else:
        latents = make(None, num_frames)
    with torch.inference_mode():
        return model.decode(latents, height=SIDE, width=SIDE, num_frames=num_frames)[0]


def measure(video: Tensor, asked: Combination) -> Iterator[dict[str, float]]:
    """Of each window: 1 for an attribute that is as asked, persistence, and the jump from the window before: the mean
    step of its first frame over the mean step of its others (1: no seam)."""
    for start in range(0, video.shape[1], WINDOW):
        window = video[:, start : start + WINDOW]
        seen = read_shapes(window)
        found = {name: float(getattr(seen, name) == getattr(asked, name)) for name in ATTRIBUTES}
        found["persistence"] = seen.persistence
        inside = (window[:, 1:] - window[:, :-1]).abs().mean().clamp(min=1e-4)
        found["jump"] = float((window[:, 0] - video[:, start - 1]).abs().mean() / inside) if start else 1.0
        yield found


def table(windows: list[list[dict[str, float]]]) -> str:
    """A line per window: means over videos."""
    lines = ["| frames | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for number, rows in enumerate(zip(*windows, strict=True)):
        means = [f"{fmean(row[name] for row in rows):.2f}" for name in COLUMNS]
        lines.append(f"| {number * WINDOW} to {(number + 1) * WINDOW - 1} | " + " | ".join(means) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="what of the caption is still seen in long videos, by window")
    add = parser.add_argument
    add("models", nargs="+", help="bundled names or folders")
    add("-o", "--output", type=Path, required=True, help="gets a strip of pictures per model")
    add("--report", type=Path, required=True, help="where to write the .md and .json, without the suffix")
    add("--num-frames", type=int, default=320)
    add("--captions", type=int, default=16)
    add("--given", type=int, nargs="+", default=[GIVEN_LATENTS], help="latents that a window is given of the last one")
    add("--hardware", default="2 CPU cores")
    arguments = parser.parse_args()
    asked = held_out_combinations(arguments.captions)
    parts, numbers = [], {}
    for model in arguments.models:
        pipeline = load_pipeline(model)
        pipeline.set_progress_bar_config(disable=True)
        for given in arguments.given if pipeline.task == "i2v" else [0]:
            name = f"{model}, " + (f"windows given {given} latents" if pipeline.task == "i2v" else "one pass")
            began, windows, rows = perf_counter(), [], []
            for one in asked:
                video = generate(pipeline, one, 0, arguments.num_frames, given)
                windows.append(list(measure(video, one)))
                if len(rows) < STRIP_ROWS:
                    rows.append((caption(one), frames_of(video)))
            save_strip(arguments.output / f"{model}-{given}.png", rows)
            seconds = (perf_counter() - began) / len(asked)
            numbers[name] = {"windows": windows, "seconds": seconds}
            parts.append(f"## {name}\n\n{seconds:.1f} s per video.\n\n{table(windows)}")
            print(parts[-1], flush=True)
    head = (
        f"# Videos of {arguments.num_frames} frames, {arguments.hardware}\n\nWritten by benchmarks/long_video.py: "
        f"{len(asked)} held-out captions, {SIDE}x{SIDE}; models trained on {WINDOW} frames. Share of the videos in "
        "whose window an attribute is read as the caption says; `jump`: the step into a window over the steps inside "
        "it. A moving object has crossed the frame after two windows: behind them `motion` cannot be right for it."
    )
    write_text(arguments.report.with_suffix(".md"), "\n\n".join([head, *parts]) + "\n")
    write_json(arguments.report.with_suffix(".json"), numbers)


if __name__ == "__main__":
    main()
