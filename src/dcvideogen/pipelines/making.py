"""Makes one video: text and noise to latents, the latents to disk, and from there to the video."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from dcvideogen.data.latents_file import read_latents, read_latents_info
from dcvideogen.errors import UserError
from dcvideogen.pipelines.asking import Asked
from dcvideogen.pipelines.decoding import decode_pieces, decode_plans, plans_from
from dcvideogen.pipelines.jobs import Job
from dcvideogen.pipelines.long_video import window_frames
from dcvideogen.pipelines.making_latents import Look, Progress, generate_latents, windows
from dcvideogen.pipelines.memory_plan import Plan
from dcvideogen.pipelines.sizes import VideoSize
from dcvideogen.pipelines.streaming import model_name
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline
from dcvideogen.version import __version__
from dcvideogen.video import BackgroundWriter, VideoWriter, video_to_frames
from dcvideogen.video.metadata import SETTINGS_KEY
from dcvideogen.weights import sha256

log = logging.getLogger(__name__)

TEXT, DENOISING, WRITING = "reading the text", "denoising", "decoding and writing"
# What progress is shown by, given a title and the phases' numbers of steps.
Show = Callable[[str, dict[str, int]], Progress]


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
        **({"window_frames": window} if (window := window_frames(trained, pipeline.task, size)) else {}),
        # Pictures by what is in them: a file of the same name may be another one tomorrow.
        **{name: f"{path.name} {sha256(path)[:16]}" for name, path in asked.images.items()},
    }


def run_job(
    pipeline: DCVideoGenPipeline,
    job: Job,
    shared: dict[str, Any],
    size: VideoSize,
    asked: Asked,
    plan: Plan,
    show: Show,
    look: Look | None = None,
) -> None:
    """One video. What was computed is on disk before decoding begins, and goes when the video is written.

    shared: `shared_settings`; the pipeline is placed as `plan` says. look: is shown the latents on the way.
    """
    settings = job.settings(shared)
    phases = {TEXT: 1, DENOISING: shared["steps"] * windows(pipeline, shared), WRITING: size.num_frames}
    with show(job.output.name, phases) as progress:
        if not has_latents(job, settings):
            generate_latents(pipeline, job, shared, asked.images, plan, progress, look)
        progress.begin(WRITING)
        try:
            write_video(pipeline, job, settings, size, asked.crf, plan, progress)
        except BaseException:
            log.info(
                "the latents are in %s; the same command goes on from there, and so does `dcvideogen decode %s -o %s`",
                job.latents,
                job.latents,
                job.output,
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
    progress: Progress,
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
                progress.advance(WRITING)
