"""The generated videos of the demo: each with a note of what making it took."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dcvideogen.adaptation.device_speed import device_name
from dcvideogen.adaptation.folder import AdaptationInfo
from dcvideogen.autoencoder.loading import usual_dtype
from dcvideogen.cli.progress import PhaseProgress
from dcvideogen.evaluation.run_report_files import FIGURES_SUFFIX
from dcvideogen.files import write_json
from dcvideogen.pipelines.asking import Asked, asked_size, ways_of
from dcvideogen.pipelines.base_pipeline import BaseTextToVideo
from dcvideogen.pipelines.jobs import Job
from dcvideogen.pipelines.loading import find_model, load_pipeline, without_progress_bars
from dcvideogen.pipelines.making import DENOISING, TEXT, WRITING, run_job, shared_settings
from dcvideogen.pipelines.memory_budget import available_memory
from dcvideogen.pipelines.memory_plan import choose_plan
from dcvideogen.pipelines.placement import place
from dcvideogen.pipelines.resources import PeakMemory
from dcvideogen.pipelines.sizes import VideoSize
from dcvideogen.version import __version__
from dcvideogen.video import write_video
from dcvideogen.video.metadata import SETTINGS_KEY

CRF = 18  # of H.264, as `dcvideogen generate` has it


@dataclass
class Network:
    """What a network was asked for: videos through it (two for each guided step), seconds, tokens of one video."""

    passes: int = 0
    seconds: float = 0.0
    tokens: int = 0
    _began: list[float] = field(default_factory=list)


@contextmanager
def watched(network: nn.Module, device: torch.device) -> Iterator[Network]:
    """Takes the time of every forward pass until the context is left."""
    found = Network()

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def before(_module: nn.Module, _inputs: Any, named: dict[str, Any]) -> None:
        latents = named.get("hidden_states")
        if latents is not None:
            found.passes += latents.shape[0]
            sides = zip(latents.shape[2:], network.config.patch_size, strict=True)
            found.tokens = math.prod(side // patch for side, patch in sides)
        found._began.append(now())

    def after(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        found.seconds += now() - found._began.pop()

    hooks = (network.register_forward_pre_hook(before, with_kwargs=True), network.register_forward_hook(after))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def noted(output: Path, transformer: nn.Module, decoder: nn.Module, device: torch.device) -> Iterator[None]:
    """Writes beside a video what making it took: `Generated.figures`."""
    memory, began = PeakMemory(device), time.perf_counter()
    with watched(transformer, device) as denoising, watched(decoder, device) as decoding:
        yield
    seconds = {
        "transformer": denoising.seconds,
        "decoder": decoding.seconds,
        "total": time.perf_counter() - began,
    }
    figures = {
        "tokens": denoising.tokens,
        "passes": denoising.passes,
        "seconds": seconds,
        "peak_memory": memory.report(),
        "device": device_name(device),
        "version": __version__,
    }
    write_json(output.with_name(output.stem + FIGURES_SUFFIX), figures)


def make_adapted(model: str, jobs: Sequence[tuple[Job, Path | None]], device: torch.device) -> None:
    """With one of our pipelines, as its makers recommend. jobs: each with its first picture, for image to video."""
    with without_progress_bars():
        pipeline = load_pipeline(model, dtype=usual_dtype(device))
    pipeline.set_progress_bar_config(disable=True)
    plan = None
    for job, image in jobs:
        asked = Asked(None, None, None, None, None, None, None, image, None, CRF, keep_latents=False)
        size = asked_size(pipeline, asked)
        if plan is None:  # one for all: they differ in words and pictures alone
            plan = choose_plan(ways_of(pipeline, size, asked, device).plans, available_memory(device))
            place(pipeline, plan, device)
        job.latents.unlink(missing_ok=True)  # of a demo that was stopped: all of the work is to be timed
        shared = shared_settings(pipeline, asked, size, model)
        with noted(job.output, pipeline.transformer, pipeline.autoencoder.decoder, device):
            run_job(pipeline, job, shared, size, asked, plan, PhaseProgress)


def make_base(model: str, jobs: Sequence[Job], like: AdaptationInfo, device: torch.device) -> None:
    """With a base model as it came. like: of the model that was made of it, whose sizes and sampling are taken: as many
    of its frames as the base makes in whole latents."""
    with without_progress_bars():
        base = BaseTextToVideo(find_model(model), usual_dtype(device))
    base.to(device)
    height, width, num_frames = like.trained.sizes[0]
    ratio = base.pipeline.vae_scale_factor_temporal
    size = VideoSize(height, width, (num_frames - 1) // ratio * ratio + 1)
    shared = {
        "negative_prompt": like.trained.null_prompt,
        "steps": like.sampling.steps,
        "guidance": like.sampling.guidance,
        "height": size.height,
        "width": size.width,
        "num_frames": size.num_frames,
        "fps": str(Fraction(like.trained.fps).limit_denominator(1001)),
        "model": model,
        "version": __version__,
    }
    for job in jobs:
        job.output.parent.mkdir(parents=True, exist_ok=True)
        with noted(job.output, base.pipeline.transformer, base.pipeline.vae.decoder, device):
            _make_with_base(base, job, size, shared, like.trained.max_sequence_length)


def _make_with_base(base: BaseTextToVideo, job: Job, size: VideoSize, shared: dict[str, Any], text_tokens: int) -> None:
    phases = {TEXT: 1, DENOISING: shared["steps"], WRITING: size.num_frames}
    with PhaseProgress(job.output.name, phases) as progress:
        progress.begin(TEXT)
        latents = base.latents(
            job.prompt,
            shared["negative_prompt"],
            size,
            steps=shared["steps"],
            guidance=shared["guidance"],
            seed=job.seed,
            text_tokens=text_tokens,
            after_step=lambda _index, _latents: progress.advance(DENOISING),
        )
        progress.begin(WRITING)
        metadata = {SETTINGS_KEY: json.dumps(job.settings(shared))}
        write_video(job.output, base.decode(latents, size), Fraction(shared["fps"]), CRF, metadata)
