"""The latents of one video, in one pass or window by window, and on to the disk."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, Self

import torch

from dcvideogen.data.latents_file import LatentsInfo, write_latents
from dcvideogen.errors import UserError
from dcvideogen.pipelines.jobs import Job
from dcvideogen.pipelines.long_video import GIVEN_LATENTS, Generate, generate_windows, window_lengths
from dcvideogen.pipelines.memory_plan import Plan
from dcvideogen.pipelines.noise import video_generator
from dcvideogen.pipelines.streaming import model_name
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline

# Is shown the latents (1, C, t, h, w) after a step: its number from 0, and their noise level sigma.
Look = Callable[[int, float, torch.Tensor], object]


class Progress(Protocol):
    """Context manager that is told of phases which follow each other; whatever it raises ends the work."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: Any) -> None: ...

    def begin(self, phase: str) -> None: ...

    def advance(self, phase: str) -> None:
        """By one step or frame."""


def generate_latents(
    pipeline: DCVideoGenPipeline,
    job: Job,
    shared: dict[str, Any],
    images: dict[str, Path],
    plan: Plan,
    progress: Progress,
    look: Look | None = None,
) -> None:
    """Writes `job.latents`. shared: `making.shared_settings`. look: for previews. UserError: they are not finite."""
    progress.begin("reading the text")

    def step_done(_pipeline: Any, index: int, _timestep: Any, tensors: dict) -> dict:
        progress.advance("denoising")
        if look is not None:
            look(index, float(pipeline.scheduler.sigmas[index + 1]), tensors["latents"])
        return tensors

    generator, last = video_generator(job.seed, job.number), windows(pipeline, shared) - 1

    def generate(image: Any, num_frames: int, number: int) -> torch.Tensor:
        given: dict[str, Any] = dict(images) if image is None else {**images, "image": image}
        if number != last:
            given.pop("last_image", None)
        if given:
            given["image_guidance_scale"] = shared.get("image_guidance", 1.0)
        return pipeline(
            **given,
            prompt=job.prompt,
            negative_prompt=shared["negative_prompt"],
            height=shared["height"],
            width=shared["width"],
            num_frames=num_frames,
            num_inference_steps=shared["steps"],
            guidance_scale=shared["guidance"],
            generator=generator,
            output_type="latent",
            guidance_as_batch=plan.guidance_as_batch and "image_guidance" not in shared,  # it is planned for two
            rows_per_step=plan.decode.rows_per_step,
            offload_state=plan.decode.offload_state,
            callback_on_step_end=step_done,
        ).frames

    if "window_frames" in shared:
        latents = in_windows(pipeline, shared, generate)[0]
    else:
        latents = generate(None, shared["num_frames"], 0)[0]
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


def in_windows(pipeline: DCVideoGenPipeline, shared: dict[str, Any], generate: Generate) -> torch.Tensor:
    """Latents (1, C, t, h, w) of a video longer than the model's."""
    geometry = pipeline.autoencoder.geometry
    windows = generate_windows(
        pipeline.autoencoder,
        None,
        geometry.num_latent_frames(shared["num_frames"]),
        window=geometry.num_latent_frames(shared["window_frames"]),
        given=GIVEN_LATENTS,
        size=(shared["height"], shared["width"]),
        generate=generate,
    )
    return torch.cat(list(windows), dim=2)


def windows(pipeline: DCVideoGenPipeline, shared: dict[str, Any]) -> int:
    """How often the model is asked for one video."""
    if "window_frames" not in shared:
        return 1
    geometry = pipeline.autoencoder.geometry
    total, window = (geometry.num_latent_frames(shared[name]) for name in ("num_frames", "window_frames"))
    return len(window_lengths(total, window, GIVEN_LATENTS))


def autoencoder_name(pipeline: DCVideoGenPipeline) -> str:
    """What `dcvideogen decode` is to be told: a bundled name, or the folder's last part."""
    return model_name(pipeline.autoencoder.config.get("_name_or_path") or "the autoencoder")
