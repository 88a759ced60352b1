"""Runs generation jobs: text and noise to latents, the latents to disk, and from there to the video."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import diffusers
import torch

from dcvideogen.cli.console import err, out
from dcvideogen.cli.progress import PhaseProgress
from dcvideogen.cli.streaming import model_name
from dcvideogen.data.latents_file import LatentsInfo, read_latents, read_latents_info, write_latents
from dcvideogen.errors import UserError
from dcvideogen.pipelines.decoding import decode_pieces, decode_plans
from dcvideogen.pipelines.jobs import Job
from dcvideogen.pipelines.loading import Task, lay_out, load_pipeline
from dcvideogen.pipelines.noise import video_generator
from dcvideogen.pipelines.sizes import VideoSize
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline
from dcvideogen.version import __version__
from dcvideogen.video import BackgroundWriter, VideoWriter, video_to_frames
from dcvideogen.video.metadata import read_metadata
from dcvideogen.weights import sha256

log = logging.getLogger(__name__)

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
    image: Path | None
    last_image: Path | None
    crf: int
    keep_latents: bool

    @property
    def images(self) -> dict[str, Path]:
        """By the names that the pipeline gives them."""
        named = {"image": self.image, "last_image": self.last_image}
        return {name: path for name, path in named.items() if path is not None}


@dataclass(frozen=True)
class Source:
    """Where the model comes from, and where it runs; see `load_pipeline`. dtype: None: the device's usual one."""

    model: str
    adapter: Path | None
    autoencoder: str | None
    device: torch.device
    dtype: torch.dtype | None

    def load(self, task: Task) -> DCVideoGenPipeline:
        diffusers.utils.logging.disable_progress_bar()  # a bar for the parts, before ours
        dtype = self.dtype or (torch.float32 if self.device.type == "cpu" else torch.bfloat16)
        pipeline = load_pipeline(self.model, task=task, adapter=self.adapter, autoencoder=self.autoencoder, dtype=dtype)
        lay_out(pipeline, self.device)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(self.device)


def run_jobs(jobs: list[Job], asked: Asked, source: Source) -> None:
    """Makes all videos that are not there yet, one after the other."""
    pipeline = source.load("t2v" if asked.image is None else "i2v")
    size = asked_size(pipeline, asked)
    shared = shared_settings(pipeline, asked, size, source.model)
    todo = [job for job in jobs if not is_there(job, shared, alone=len(jobs) == 1)]
    if len(todo) < len(jobs):
        err.print(f"note: {len(jobs) - len(todo)} of {len(jobs)} videos are there", markup=False, soft_wrap=True)
    for job in todo:
        run_job(pipeline, job, shared, size, asked)
        told = f"{size.num_frames} frames of {size.width}x{size.height} at {shared['fps']} frames per second"
        out.print(f"{job.output}: {told}", markup=False, soft_wrap=True)


def asked_size(pipeline: DCVideoGenPipeline, asked: Asked) -> VideoSize:
    height, width = asked.height, asked.width
    if asked.image is not None and height is None and width is None:
        height, width = pipeline.size_of(asked.image)
    return pipeline.asked_size(height, width, asked.num_frames)


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
        # Pictures by what is in them: a file of the same name may be another one tomorrow.
        **{name: f"{path.name} {sha256(path)[:16]}" for name, path in asked.images.items()},
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
            generate_latents(pipeline, job, shared, asked.images, progress)
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


def generate_latents(
    pipeline: DCVideoGenPipeline, job: Job, shared: dict[str, Any], images: dict[str, Path], progress: PhaseProgress
) -> None:
    progress.begin("reading the text")

    def step_done(_pipeline: Any, _index: int, _timestep: Any, tensors: dict) -> dict:
        progress.advance("denoising")
        return tensors

    latents = pipeline(
        **images,
        prompt=job.prompt,
        negative_prompt=shared["negative_prompt"],
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
    plans = decode_plans(autoencoder, size.height, size.width)
    pieces = decode_pieces(autoencoder, latents[None], size.height, size.width, size.num_frames, plans, log.warning)
    job.output.parent.mkdir(parents=True, exist_ok=True)
    writer = VideoWriter(job.output, fps=info.fps, crf=crf, metadata={METADATA_KEY: json.dumps(settings)})
    with BackgroundWriter(writer) as background:
        for video in pieces:
            for frame in video_to_frames(video):
                background.write(frame)
                progress.advance("decoding and writing")
