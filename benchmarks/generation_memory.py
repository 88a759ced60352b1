"""Memory of generating a video on a CPU: what the plan says beforehand against what a process then holds.

Each case runs in a fresh process: it plans, makes the networks (random weights, and the bundled text encoder), encodes
two texts, denoises for a step, decodes and writes an mp4. For each phase the high-water mark of resident memory is set
beside the plan's figure. Steps, cores and cases are few, because this is about memory: seconds prove little.

    python benchmarks/generation_memory.py -o benchmarks/results/generation_memory_cpu.md
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

MIB = 2**20
# Sizes of transformers: the bundled base's, and one of 0.27 B parameters.
SMALL = {"num_attention_heads": 6, "attention_head_dim": 32, "num_layers": 7, "ffn_dim": 640, "text_dim": 64}
LARGE = {"num_attention_heads": 16, "attention_head_dim": 64, "num_layers": 16, "ffn_dim": 4096, "text_dim": 64}
TRANSFORMERS = {"small": SMALL, "large": LARGE}
# transformer, autoencoder, height, width, frames, guidance as one batch, rows per step, dtype
CASES = (
    ("small", "dcae-shapes-f32t4c32", 64, 64, 16, True, None, "float32"),
    ("small", "dcae-small-f32t4c128", 256, 256, 80, True, None, "float32"),
    ("large", "dcae-shapes-f32t4c32", 256, 256, 40, True, None, "float32"),
    ("small", "dcae-small-f32t4c128", 480, 832, 40, True, None, "float32"),
    ("small", "dcae-small-f32t4c128", 320, 576, 80, False, 16, "float32"),
    ("large", "dcae-shapes-f32t4c32", 320, 576, 40, False, None, "bfloat16"),
    ("small", "f32t4c32-quarter", 128, 128, 80, True, None, "float32"),
)
COLUMNS = (
    "transformer", "autoencoder", "size", "dtype", "guidance", "rows per step", "libraries", "text", "denoising",
    "decoding", "peak", "without libraries", "text s", "denoising s", "decoding s",
)  # fmt: skip


def resident_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (high-water mark) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


class Watch:
    """Peaks and seconds by phase."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self.seconds: dict[str, float] = {}

    def phase(self, name: str, run: object) -> object:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        start = time.process_time()
        result = run()
        self.seconds[name] = time.process_time() - start
        self.peaks[name] = resident_bytes("VmHWM")
        return result


def measure(
    size: str, preset: str, height: int, width: int, num_frames: int, as_batch: bool, rows: int | None, dtype: str
) -> dict:
    """Runs one case in this process."""
    import torch
    from diffusers import UniPCMultistepScheduler, WanTransformer3DModel

    from dcvideogen.adaptation.text import load_text_encoder
    from dcvideogen.autoencoder.presets import PRESETS, make_autoencoder
    from dcvideogen.pipelines.decoding import decode_pieces
    from dcvideogen.pipelines.denoise import Conditions, Expert, denoise
    from dcvideogen.pipelines.memory_autoencoder import DecodePlan
    from dcvideogen.pipelines.memory_counts import Counts, measure_rates
    from dcvideogen.pipelines.memory_models import Asked, networks_from_configs
    from dcvideogen.pipelines.memory_plan import RESIDENT, make_plan
    from dcvideogen.video import BackgroundWriter, VideoWriter, video_to_frames
    from dcvideogen.weights import bundled_pipelines

    precision = getattr(torch, dtype)
    base = bundled_pipelines()["shapes-base"]
    channels = PRESETS[preset]["latent_channels"]
    config = {
        **TRANSFORMERS[size], "in_channels": channels, "out_channels": channels, "patch_size": (1, 1, 1),
        "freq_dim": 64, "cross_attn_norm": True, "rope_max_seq_len": 1024,
    }  # fmt: skip
    asked = Asked(height, width, num_frames, steps=1, text_tokens=128)
    text_config = json.loads((base / "text_encoder" / "config.json").read_text())
    named = {**config, "_class_name": "WanTransformer3DModel"}
    networks = networks_from_configs(text_config, [named], PRESETS[preset], dtype=precision)
    rates = measure_rates(networks, torch.device("cpu"))
    counts = Counts(networks, asked, rates, on_cpu=True)
    plan = make_plan(counts, RESIDENT, as_batch, DecodePlan(rows))
    del networks, counts
    gc.collect()
    libraries = resident_bytes("VmRSS")

    torch.manual_seed(0)
    encoder = load_text_encoder(base, max_sequence_length=128, device=torch.device("cpu"), dtype=precision)
    transformer = WanTransformer3DModel(**config).eval().to(precision)
    autoencoder = make_autoencoder(preset).eval().to(precision).to(memory_format=torch.channels_last_3d)
    watch = Watch()
    ids = torch.randint(0, 255, (2, 128))
    with torch.inference_mode():
        text = watch.phase("text", lambda: encoder.model(ids).last_hidden_state).float()
        scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
        scheduler.set_timesteps(1)
        noise = torch.randn(1, channels, *autoencoder.geometry.latent_shape(num_frames, height, width))
        given = Conditions(text[:1], text[1:])

        def denoise_all() -> torch.Tensor:
            return denoise(
                scheduler, noise, lambda _timestep: Expert(transformer, 3.0), given, as_batch=as_batch,
                attention_kwargs=None, after_step=lambda _i, _t, latents, given: (latents, given, True),
            )  # fmt: skip

        latents = watch.phase("denoising", denoise_all)

        def decode() -> None:
            pieces = decode_pieces(
                autoencoder, latents.to(precision), height, width, num_frames, [DecodePlan(rows)], print
            )
            with TemporaryDirectory() as folder, BackgroundWriter(VideoWriter(Path(folder) / "a.mp4", fps=16)) as out:
                for video in pieces:
                    for frame in video_to_frames(video):
                        out.write(frame)

        watch.phase("decoding", decode)
    return {
        "libraries": libraries,
        "told": {phase.name: phase.device for phase in plan.phases},
        "measured": watch.peaks,
        "told_seconds": {phase.name: phase.seconds for phase in plan.phases},
        "seconds": watch.seconds,
    }


def run_case(*case: object) -> dict:
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def row(case: tuple, result: dict) -> str:
    size, preset, height, width, num_frames, as_batch, rows, dtype = case
    told, measured = result["told"], result["measured"]
    phases = " | ".join(f"{told[name] / MIB:.0f} / {measured[name] / MIB:.0f}" for name in told)
    peak = max(told.values()) / max(measured.values()) - 1
    over = (max(told.values()) - result["libraries"]) / (max(measured.values()) - result["libraries"]) - 1
    seconds = " | ".join(f"{result['told_seconds'][name]:.2g} / {result['seconds'][name]:.2g}" for name in told)
    return (
        f"| {size} | {preset} | {height}x{width}x{num_frames} | {dtype} | {'one batch' if as_batch else 'two passes'} "
        f"| {rows or 'all'} | {result['libraries'] / MIB:.0f} | {phases} | {peak:+.0%} | {over:+.0%} | {seconds} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--hardware", default="2 cores of an Intel Xeon, 24 GiB, shared with other work")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(*json.loads(arguments.case))))
        return

    lines = [
        f"# Memory of generating, {arguments.hardware}",
        "",
        "Made by `python benchmarks/generation_memory.py`. Told / measured: what the plan says before anything runs "
        "and the high-water mark of the process's resident memory in each phase, in MiB. Libraries: resident memory "
        "after planning, before the networks are made; the plan takes a constant for it. Peak: the largest phase told "
        "against the largest measured, in all, and without the libraries. Seconds of one step: told of the wall clock, "
        "from speeds measured in a moment when the other work took what it took, / spent by the process on its cores; "
        "they compare only on a quiet machine. Transformers: small 3.7 M, large 0.27 B parameters, random; text "
        "encoder: bundled.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
    ]
    for case in CASES:
        lines.append(row(case, run_case(*case)))
        print(lines[-1], flush=True)
        if arguments.output:
            arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
