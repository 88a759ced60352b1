"""Runs generation jobs: text and noise to latents, the latents to disk, and from there to the video."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from dcvideogen.cli.console import err, out
from dcvideogen.cli.generate_latents import generate_latents, window_frames, windows
from dcvideogen.cli.generate_plan import Asked, Source, asked_size, ways_of
from dcvideogen.cli.progress import PhaseProgress
from dcvideogen.cli.streaming import model_name
from dcvideogen.data.latents_file import read_latents, read_latents_info
from dcvideogen.errors import UserError
from dcvideogen.pipelines.decoding import decode_pieces, decode_plans, plans_from
from dcvideogen.pipelines.jobs import Job
from dcvideogen.pipelines.memory_budget import available_memory
from dcvideogen.pipelines.memory_plan import Plan, choose_plan, told
from dcvideogen.pipelines.placement import place
from dcvideogen.pipelines.sizes import VideoSize
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline
from dcvideogen.version import __version__
from dcvideogen.video import BackgroundWriter, VideoWriter, video_to_frames
from dcvideogen.video.metadata import SETTINGS_KEY, read_metadata
from dcvideogen.weights import sha256

log = logging.getLogger(__name__)


def run_jobs(jobs: list[Job], asked: Asked, source: Source, budget: int | None) -> None:
    """Makes all videos that are not there yet, one after the other. budget: bytes; None: what is free."""
    pipeline = source.load("t2v" if asked.image is None else "i2v")
    size = asked_size(pipeline, asked)
    make_videos(pipeline, {asked: jobs}, size, source, budget, alone=len(jobs) == 1)


def make_videos(
    pipeline: DCVideoGenPipeline,
    batches: Mapping[Asked, list[Job]],
    size: VideoSize,
    source: Source,
    budget: int | None,
    *,
    alone: bool,
) -> None:
    """As `run_jobs`, for a loaded pipeline. batches: jobs by what is asked of them, which may differ in the images and
    in nothing else. alone: the only video is made again where it is there."""
    shared = {asked: shared_settings(pipeline, asked, size, source.model) for asked in batches}
    jobs = [(asked, job) for asked, some in batches.items() for job in some]
    todo = [(asked, job) for asked, job in jobs if not is_there(job, shared[asked], alone=alone)]
    if len(todo) < len(jobs):
        err.print(f"note: {len(jobs) - len(todo)} of {len(jobs)} videos are there", markup=False, soft_wrap=True)
    if not todo:
        return
    ways = ways_of(pipeline, size, todo[0][0], source.device)
    plan = choose_plan(ways.plans, available_memory(source.device) if budget is None else budget)
    for line in told(plan, ways.rates):
        err.print(f"note: {line}", markup=False, soft_wrap=True)
    place(pipeline, plan, source.device)
    for asked, job in todo:
        run_job(pipeline, job, shared[asked], size, asked, plan)
        fps = shared[asked]["fps"]
        told_size = f"{size.num_frames} frames of {size.width}x{size.height} at {fps} frames per second"
        out.print(f"{job.output}: {told_size}", markup=False, soft_wrap=True)


def shared_settings(pipeline: DCVideoGenPipeline, asked: Asked, size: VideoSize, model: str) -> dict[str, Any]:
    """All that the videos of a call have in common and depend on, as plain values."""
    defaults, trained = pipeline.adaptation.sampling, pipeline.adaptation.trained
    negative = trained.null_prompt if asked.negative_prompt is None else asked.negative_prompt
    return {
        "negative_prompt": negative,
        "steps": asked.steps or defaults.steps,
        "guidance": defaults.guidance if asked.guidance is None else asked.guidance,
        **({"image_guidance": scale} if (scale := asked.guided_by_image(defaults)) else {}),
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
        **({"window_frames": window} if (window := window_frames(pipeline, size)) else {}),
        # Pictures by what is in them: a file of the same name may be another one tomorrow.
        **{name: f"{path.name} {sha256(path)[:16]}" for name, path in asked.images.items()},
    }


def is_there(job: Job, shared: dict[str, Any], *, alone: bool) -> bool:
    """Whether a video of these settings is there. UserError: another one is where one of many would go."""
    if alone or not job.output.exists():
        return False
    try:
        found = json.loads(read_metadata(job.output).get(SETTINGS_KEY, ""))
    except (UserError, ValueError):
        found = None
    if found != job.settings(shared):
        raise UserError(f"{job.output} is another video, or one of other settings; choose another folder")
    return True


def run_job(
    pipeline: DCVideoGenPipeline, job: Job, shared: dict[str, Any], size: VideoSize, asked: Asked, plan: Plan
) -> None:
    """One video. What was computed is on disk before decoding begins, and goes when the video is written."""
    settings = job.settings(shared)
    phases = {"reading the text": 1, "denoising": shared["steps"] * windows(pipeline, shared)}
    phases["decoding and writing"] = size.num_frames
    with PhaseProgress(job.output.name, phases) as progress:
        if not has_latents(job, settings):
            generate_latents(pipeline, job, shared, asked.images, plan, progress)
        progress.begin("decoding and writing")
        try:
            write_video(pipeline, job, settings, size, asked.crf, plan, progress)
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


def write_video(
    pipeline: DCVideoGenPipeline,
    job: Job,
    settings: dict[str, Any],
    size: VideoSize,
    crf: int,
    plan: Plan,
    progress: PhaseProgress,
) -> None:
    latents, info = read_latents(job.latents)
    autoencoder = pipeline.autoencoder
    plans = plans_from(decode_plans(autoencoder, size.height, size.width), plan.decode)
    pieces = decode_pieces(autoencoder, latents[None], size.height, size.width, size.num_frames, plans, log.warning)
    job.output.parent.mkdir(parents=True, exist_ok=True)
    writer = VideoWriter(job.output, fps=info.fps, crf=crf, metadata={SETTINGS_KEY: json.dumps(settings)})
    with BackgroundWriter(writer) as background:
        for video in pieces:
            frames = video_to_frames(video)
            del video  # it would be held while the next chunk is decoded
            for frame in frames:
                background.write(frame)
                progress.advance("decoding and writing")
