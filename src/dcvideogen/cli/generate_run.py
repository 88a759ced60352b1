"""Runs generation jobs: text and noise to latents, the latents to disk, and from there to the video."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from dcvideogen.cli.console import err, out
from dcvideogen.cli.progress import PhaseProgress
from dcvideogen.cli.streaming import RunOptions, decode_pieces, model_name
from dcvideogen.data.latents_file import LatentsInfo, read_latents, read_latents_info, write_latents
from dcvideogen.errors import UserError
from dcvideogen.pipelines.jobs import Job
from dcvideogen.pipelines.loading import lay_out, load_pipeline
from dcvideogen.pipelines.noise import video_generator
from dcvideogen.pipelines.sizes import VideoSize
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline
from dcvideogen.version import __version__
from dcvideogen.video import BackgroundWriter, VideoWriter, video_to_frames
from dcvideogen.video.metadata import read_metadata

METADATA_KEY = "comment"


@dataclass(frozen=True)
class Asked:
    """What the user said of all videos; None: as the model recommends."""

    height: int | None
    width: int | None
    num_frames: int | None
    fps: Fraction | None
    steps: int | None
    guidance: float | None
    negative_prompt: str | None
    crf: int
    keep_latents: bool


def run_jobs(
    jobs: list[Job],
    asked: Asked,
    model: str,
    adapter: Path | None,
    autoencoder: str | None,
    device: torch.device,
    dtype: torch.dtype | None,
) -> None:
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    pipeline = load_pipeline(model, adapter=adapter, autoencoder=autoencoder, dtype=dtype)
    lay_out(pipeline, device)
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    size = pipeline.asked_size(asked.height, asked.width, asked.num_frames)
    shared = shared_settings(pipeline, asked, size, model)
    todo = [job for job in jobs if not is_there(job, shared, alone=len(jobs) == 1)]
    if len(todo) < len(jobs):
        err.print(f"note: {len(jobs) - len(todo)} of {len(jobs)} videos are there", markup=False, soft_wrap=True)
    for job in todo:
        run_job(pipeline, job, shared, size, asked)
        told = f"{size.num_frames} frames of {size.width}x{size.height} at {shared['fps']} frames per second"
        out.print(f"{job.output}: {told}", markup=False, soft_wrap=True)


def shared_settings(pipeline: DCVideoGenPipeline, asked: Asked, size: VideoSize, model: str) -> dict[str, Any]:
    """All that the videos of a call have in common and depend on, as plain values."""
    defaults, trained = pipeline.adaptation.sampling, pipeline.adaptation.trained
    negative = trained.null_prompt if asked.negative_prompt is None else asked.negative_prompt
    return {
        "negative_prompt": negative,
        "steps": asked.steps or defaults.steps,
        "guidance": defaults.guidance if asked.guidance is None else asked.guidance,
        "scheduler": type(pipeline.scheduler).__name__,
        "shift": defaults.shift,
        "height": size.height,
        "width": size.width,
        "num_frames": size.num_frames,
        "fps": str(asked.fps or Fraction(trained.fps).limit_denominator(1001)),
        "model": model_name(model),
        "base": pipeline.adaptation.base,
        "latent_space_id": pipeline.adaptation.latent_space_id,
        "dtype": str(pipeline.transformer.dtype).removeprefix("torch."),
        "version": __version__,
    }


def is_there(job: Job, shared: dict[str, Any], *, alone: bool) -> bool:
    """Whether a video of these settings is there. UserError: another one is where one of many would go."""
    if alone or not job.output.exists():
        return False
    try:
        found = json.loads(read_metadata(job.output).get(METADATA_KEY, ""))
    except (UserError, ValueError):
        found = None
    if found != job.settings(shared):
        raise UserError(f"{job.output} is another video, or one of other settings; choose another folder")
    return True


def run_job(pipeline: DCVideoGenPipeline, job: Job, shared: dict[str, Any], size: VideoSize, asked: Asked) -> None:
    """One video. What was computed is on disk before decoding begins, and goes when the video is written."""
    settings = job.settings(shared)
    phases = {"reading the text": 1, "denoising": shared["steps"], "decoding and writing": size.num_frames}
    with PhaseProgress(job.output.name, phases) as progress:
        if not has_latents(job, settings):
            generate_latents(pipeline, job, shared, progress)
        progress.begin("decoding and writing")
        try:
            write_video(pipeline, job, settings, size, asked.crf, progress)
        except BaseException:
            err.print(
                f"note: the latents are in {job.latents}; the same command goes on from there, and so does "
                f"`dcvideogen decode {job.latents} -o {job.output}`",
                markup=False,
                soft_wrap=True,
            )
            raise
    if not asked.keep_latents:
        job.latents.unlink()


def has_latents(job: Job, settings: dict[str, Any]) -> bool:
    """Whether a call of the same settings came as far as the latents."""
    if not job.latents.is_file():
        return False
    try:
        return read_latents_info(job.latents).generation == settings
    except UserError:
        return False  # broken, or of another program: made again


def generate_latents(pipeline: DCVideoGenPipeline, job: Job, shared: dict[str, Any], progress: PhaseProgress) -> None:
    progress.begin("reading the text")

    def step_done(_pipeline: Any, _index: int, _timestep: Any, tensors: dict) -> dict:
        progress.advance("denoising")
        return tensors

    latents = pipeline(
        job.prompt,
        shared["negative_prompt"],
        height=shared["height"],
        width=shared["width"],
        num_frames=shared["num_frames"],
        num_inference_steps=shared["steps"],
        guidance_scale=shared["guidance"],
        generator=video_generator(job.seed, job.number),
        output_type="latent",
        callback_on_step_end=step_done,
    ).frames[0]
    if not latents.isfinite().all():
        raise UserError(
            f"{job.output.name}: the model gave numbers that are not finite; try --dtype fp32, or other settings"
        )
    info = LatentsInfo(
        height=shared["height"],
        width=shared["width"],
        num_frames=shared["num_frames"],
        fps=Fraction(shared["fps"]),
        latent_space_id=shared["latent_space_id"],
        model=autoencoder_name(pipeline),
        generation=job.settings(shared),
    )
    write_latents(job.latents, latents, info)


def autoencoder_name(pipeline: DCVideoGenPipeline) -> str:
    """What `dcvideogen decode` is to be told: a bundled name, or the folder's last part."""
    return model_name(pipeline.autoencoder.config.get("_name_or_path") or "the autoencoder")


def write_video(
    pipeline: DCVideoGenPipeline,
    job: Job,
    settings: dict[str, Any],
    size: VideoSize,
    crf: int,
    progress: PhaseProgress,
) -> None:
    latents, info = read_latents(job.latents)
    autoencoder = pipeline.autoencoder
    pieces: Iterable = (
        piece[None].to(autoencoder.device) for piece in latents.split(autoencoder.geometry.chunk_latent_frames, dim=1)
    )
    left = size.num_frames
    writer = VideoWriter(job.output, fps=info.fps, crf=crf, metadata={METADATA_KEY: json.dumps(settings)})
    job.output.parent.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode(), BackgroundWriter(writer) as background:
        for video in decode_pieces(autoencoder, pieces, RunOptions(), size.height, size.width):
            for frame in video_to_frames(video[:, :, :left]):
                background.write(frame)
                progress.advance("decoding and writing")
            left -= min(left, video.shape[2])
