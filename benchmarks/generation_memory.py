"""Memory of generating a video on a CPU: what the plan says beforehand against what a process then holds.

Each case runs in a fresh process: it plans, makes the networks (random weights, and the bundled text encoder), encodes
two texts and perhaps an image, denoises for a step, decodes and writes an mp4. For each phase the high-water mark of
resident memory is set beside the plan's figure. Steps, cores and cases are few, because this is about
memory: seconds prove little.

    python benchmarks/generation_memory.py -o benchmarks/results/generation_memory_cpu.md
"""

from __future__ import annotations

import gc
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fresh_process import arguments, reset_peak, resident_bytes, run_case
from generation_memory_models import planned_networks, random_pipeline, transformer_config

MIB = 2**20
# transformer, autoencoder, height, width, frames, guidance as one batch, rows per step, dtype, image: none, with the
# condition alone, or with CLIP too
CASES = (
    ("small", "dcae-shapes-f32t4c32", 64, 64, 16, True, None, "float32", None),
    ("small", "dcae-small-f32t4c128", 256, 256, 80, True, None, "float32", None),
    ("large", "dcae-shapes-f32t4c32", 256, 256, 40, True, None, "float32", None),
    ("small", "dcae-small-f32t4c128", 480, 832, 40, True, None, "float32", None),
    ("small", "dcae-small-f32t4c128", 320, 576, 80, False, 16, "float32", None),
    ("large", "dcae-shapes-f32t4c32", 320, 576, 40, False, None, "bfloat16", None),
    ("small", "f32t4c32-quarter", 128, 128, 80, True, None, "float32", None),
    ("large", "dcae-shapes-f32t4c32", 256, 256, 40, True, None, "float32", "CLIP"),
    ("small", "dcae-small-f32t4c128", 320, 576, 40, False, 16, "float32", "condition"),
)
COLUMNS = (
    "transformer", "autoencoder", "size", "dtype", "guidance", "rows per step", "libraries", "text", "image",
    "denoising", "decoding", "peak", "without libraries", "text s", "image s", "denoising s", "decoding s",
)  # fmt: skip


class Watch:
    """Peaks and seconds by phase."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self.seconds: dict[str, float] = {}

    def phase(self, name: str, run: object) -> object:
        gc.collect()
        reset_peak()
        start = time.process_time()
        result = run()
        self.seconds[name] = time.process_time() - start
        self.peaks[name] = resident_bytes("VmHWM")
        return result


def measure(
    size: str,
    preset: str,
    height: int,
    width: int,
    num_frames: int,
    as_batch: bool,
    rows: int | None,
    dtype: str,
    image: str | None,
) -> dict:
    """Runs one case in this process."""
    import torch

    from dcvideogen.pipelines.memory_autoencoder import DecodePlan
    from dcvideogen.pipelines.memory_counts import Counts, measure_rates
    from dcvideogen.pipelines.memory_models import Asked
    from dcvideogen.pipelines.memory_plan import RESIDENT, make_plan
    from dcvideogen.weights import bundled_pipelines

    precision, base = getattr(torch, dtype), bundled_pipelines()["shapes-base"]
    config = transformer_config(size, preset, image)
    networks = planned_networks(base, config, preset, image, precision)
    asked = Asked(height, width, num_frames, steps=1, text_tokens=128)
    counts = Counts(networks, asked, measure_rates(networks, torch.device("cpu")), on_cpu=True)
    plan = make_plan(counts, RESIDENT, as_batch, DecodePlan(rows))
    del networks, counts
    gc.collect()
    libraries = resident_bytes("VmRSS")

    torch.manual_seed(0)
    pipeline, watch = random_pipeline(base, config, preset, image, precision), Watch()
    with torch.inference_mode():
        run_phases(pipeline, watch, (height, width, num_frames), as_batch, rows)
    return {
        "libraries": libraries,
        "told": {phase.name: phase.device for phase in plan.phases},
        "measured": watch.peaks,
        "told_seconds": {phase.name: phase.seconds for phase in plan.phases},
        "seconds": watch.seconds,
    }


def run_phases(pipeline: Any, watch: Watch, size: tuple[int, int, int], as_batch: bool, rows: int | None) -> None:
    """As a call of the pipeline, and the writing of the video."""
    import torch
    from PIL import Image

    from dcvideogen.pipelines.decoding import decode_pieces
    from dcvideogen.pipelines.denoise import Conditions, Expert, denoise
    from dcvideogen.pipelines.memory_autoencoder import DecodePlan
    from dcvideogen.pipelines.sizes import VideoSize
    from dcvideogen.video import BackgroundWriter, VideoWriter, video_to_frames

    autoencoder, scheduler = pipeline.autoencoder, pipeline.scheduler
    height, width, num_frames = size
    ids = torch.randint(0, 255, (2, 128))
    text = watch.phase("text", lambda: pipeline.text_encoder(ids).last_hidden_state).float()
    scheduler.set_timesteps(1)
    grid = autoencoder.geometry.latent_shape(num_frames, height, width)
    noise = torch.randn(1, autoencoder.config.latent_channels, *grid)
    given = Conditions(text[:1], text[1:])
    if pipeline.task == "i2v":
        picture = Image.new("RGB", (width, height))
        how = {"rows_per_step": rows, "offload_state": False}
        given = watch.phase("image", lambda: pipeline.with_images(given, picture, None, VideoSize(*size), noise, **how))

    def denoise_all() -> torch.Tensor:
        return denoise(
            scheduler, noise, lambda _timestep: Expert(pipeline.transformer, 3.0), given, as_batch=as_batch,
            attention_kwargs=None, after_step=lambda _i, _t, latents, given: (latents, given, True),
        )  # fmt: skip

    latents = watch.phase("denoising", denoise_all)

    def decode() -> None:
        pieces = decode_pieces(autoencoder, latents.to(autoencoder.dtype), *size, [DecodePlan(rows)], print)
        with TemporaryDirectory() as folder, BackgroundWriter(VideoWriter(Path(folder) / "a.mp4", fps=16)) as out:
            for video in pieces:
                for frame in video_to_frames(video):
                    out.write(frame)

    watch.phase("decoding", decode)


def row(case: tuple, result: dict) -> str:
    size, preset, height, width, num_frames, as_batch, rows, dtype, image = case
    told, measured = result["told"], result["measured"]

    def columns(told: dict[str, float], found: dict[str, float], unit: int, digits: str) -> str:
        names = ("text", "image", "denoising", "decoding")
        pairs = (
            f"{told[name] / unit:{digits}} / {found[name] / unit:{digits}}" if name in told else "" for name in names
        )
        return " | ".join(pairs)

    peak = max(told.values()) / max(measured.values()) - 1
    over = (max(told.values()) - result["libraries"]) / (max(measured.values()) - result["libraries"]) - 1
    return (
        f"| {size}{', ' + image if image else ''} | {preset} | {height}x{width}x{num_frames} | {dtype} "
        f"| {'one batch' if as_batch else 'two passes'} | {rows or 'all'} | {result['libraries'] / MIB:.0f} "
        f"| {columns(told, measured, MIB, '.0f')} | {peak:+.0%} | {over:+.0%} "
        f"| {columns(result['told_seconds'], result['seconds'], 1, '.2g')} |"
    )


def main() -> None:
    given = arguments(__doc__, "2 cores of an Intel Xeon, 24 GiB, shared with other work", measure)
    lines = [
        f"# Memory of generating, {given.hardware}",
        "",
        "Made by `python benchmarks/generation_memory.py`. Told / measured: what the plan says before anything runs "
        "and the high-water mark of the process's resident memory in each phase, in MiB. Libraries: resident memory "
        "after planning, before the networks are made; the plan takes a constant for it. Peak: the largest phase told "
        "against the largest measured, in all, and without the libraries. Seconds of one step: told of the wall clock, "
        "from speeds measured in a moment when the other work took what it took, / spent by the process on its cores; "
        "they compare only on a quiet machine. Transformers: small 3.7 M, large 0.27 B parameters, random; "
        "condition: for image to video; CLIP: that and an image encoder of 0.08 B parameters, random; text encoder: "
        "bundled.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
    ]
    for case in CASES:
        lines.append(row(case, run_case(__file__, case)))
        print(lines[-1], flush=True)
        if given.output:
            given.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
