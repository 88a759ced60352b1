"""What makes the video of a job, for each kind of served model; each keeps its model loaded."""

from __future__ import annotations

import gc
import logging
import os
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import torch

from dcvideogen.autoencoder.loading import load_autoencoder
from dcvideogen.files import write_json
from dcvideogen.pipelines.asking import Asked, ways_of
from dcvideogen.pipelines.decoding import is_out_of_memory
from dcvideogen.pipelines.jobs import Job as VideoJob
from dcvideogen.pipelines.loading import load_pipeline, without_progress_bars
from dcvideogen.pipelines.making import run_job, shared_settings
from dcvideogen.pipelines.memory_budget import available_memory
from dcvideogen.pipelines.memory_plan import RESIDENT, Plan, choose_plan
from dcvideogen.pipelines.placement import place
from dcvideogen.pipelines.reconstruct_clip import Outputs, reconstruct_clip
from dcvideogen.pipelines.sizes import VideoSize
from dcvideogen.pipelines.streaming import ClipOptions, RunOptions
from dcvideogen.serving.base_maker import CRF, BaseMaker
from dcvideogen.serving.files import JobFiles
from dcvideogen.serving.jobs import Job
from dcvideogen.serving.preview import Previews
from dcvideogen.serving.settings import ServedModel
from dcvideogen.serving.watch import Watch

log = logging.getLogger("dcvideogen")

KEPT_KINDS = 256  # of videos, whose plans are remembered
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Of a reconstruction's figures; those frame by frame would make the lists of jobs long.
_SHOWN, _MEANS = ("num_frames", "height", "width", "latent_shape", "compression_ratio"), ("psnr_db", "ssim")


class Maker(Protocol):
    def make(self, job: Job, files: JobFiles, watch: Watch) -> None:
        """Writes files.video(job.id), from files.latents(job.id) if these are there.

        UserError: it cannot be made. What `watch` raises, and what says that memory is short, comes through.
        """


def load_maker(model: ServedModel, device: torch.device, dtype: torch.dtype) -> Maker:
    """Takes as long as reading the weights does. UserError: they cannot be loaded."""
    if model.task == "autoencoder":
        return ReconstructionMaker(model, device, dtype)
    with without_progress_bars():
        return BaseMaker(model, device, dtype) if model.is_base else AdaptedMaker(model, device, dtype)


class AdaptedMaker:
    """Generates with our pipelines, in the fastest way that fits into the memory there is."""

    def __init__(self, model: ServedModel, device: torch.device, dtype: torch.dtype) -> None:
        self._model, self._device, self._dtype = model, device, dtype
        self._pipeline: Any = None
        self._placement: str | None = None
        self._counted: dict[tuple, tuple[Plan, ...]] = {}

    def make(self, job: Job, files: JobFiles, watch: Watch) -> None:
        self._load()
        asked, size = _asked(job, files), _size(job)
        shared = shared_settings(self._pipeline, asked, size, self._model.name)
        ways = self._ways(size, asked)
        chosen = choose_plan(ways, available_memory(self._device))
        plans = [chosen, *(plan for plan in ways if plan.peak < chosen.peak)]
        video = VideoJob(job.request.prompt, job.request.seed, 0, files.video(job.id))
        for plan, is_last in zip(plans, [False] * (len(plans) - 1) + [True], strict=True):
            self._place(plan)
            autoencoder, rows = self._pipeline.autoencoder, plan.decode.rows_per_step
            frames = autoencoder.geometry.num_latent_frames(autoencoder.config.chunk_frames)

            def decode(latents: torch.Tensor, frames: int = frames, rows: int | None = rows) -> torch.Tensor:
                autoencoder = self._pipeline.autoencoder
                first = latents[:, :, :frames].to(autoencoder.dtype)
                return autoencoder.decode(first, height=size.height, width=size.width, rows_per_step=rows)

            previews = Previews(files.preview(job.id), decode, watch.note_preview, job.request.fps)
            # Where weights come and go, a look between the steps would bring the wrong ones.
            look = previews.look if plan.placement == RESIDENT else None
            try:
                run_job(self._pipeline, video, shared, size, asked, plan, watch.phases, look)
                return
            except RuntimeError as error:
                if is_last or not is_out_of_memory(error):
                    raise
                log.warning("out of memory by %s: a smaller way is tried", plan)
            free_memory()

    def _ways(self, size: VideoSize, asked: Asked) -> tuple[Plan, ...]:
        """Counted once for all videos of a kind: that may take longer than making a small one."""
        kind = (size, asked.steps, asked.guidance, len(asked.images))
        if kind not in self._counted:
            if len(self._counted) == KEPT_KINDS:
                self._counted.clear()
            self._counted[kind] = ways_of(self._pipeline, size, asked, self._device).plans
        return self._counted[kind]

    def _load(self) -> None:
        if self._pipeline is None:
            with without_progress_bars():
                self._pipeline = load_pipeline(self._model.source, task=self._model.task, dtype=self._dtype)
            self._pipeline.set_progress_bar_config(disable=True)

    def _place(self, plan: Any) -> None:
        if self._placement not in (None, plan.placement):
            self._pipeline = None  # hooks of diffusers are left behind otherwise
            free_memory()
            self._load()
        if self._placement != plan.placement:
            place(self._pipeline, plan, self._device)
            self._placement = plan.placement


class ReconstructionMaker:
    """Sends clips through an autoencoder and back, and measures what came through."""

    def __init__(self, model: ServedModel, device: torch.device, dtype: torch.dtype) -> None:
        self._name = model.name
        self._autoencoder = load_autoencoder(model.source, device=device, dtype=dtype)
        self._runs = (RunOptions(), RunOptions(64), RunOptions(16, offload_state=device.type != "cpu"))

    def make(self, job: Job, files: JobFiles, watch: Watch) -> None:
        folder, clip = files.job_folder(job.id), files.copy(job.id, "clip")
        outputs = Outputs(folder)
        for run in self._runs:
            try:
                result = reconstruct_clip(
                    self._autoencoder, self._name, clip, outputs, ClipOptions(), run, CRF, watch.stages
                )
                break
            except RuntimeError as error:
                if run is self._runs[-1] or not is_out_of_memory(error):
                    raise
                log.warning("out of memory when reconstructing by %s: a smaller way is tried", run)
            free_memory()
        for path in (outputs.latents, outputs.strip):
            path.unlink(missing_ok=True)
        shown = {name: result[name] for name in _SHOWN} | {name: result[name]["mean"] for name in _MEANS}
        write_json(files.metrics(job.id), shown)
        os.replace(outputs.side_by_side, files.side_by_side(job.id))
        os.replace(outputs.reconstruction, files.video(job.id))  # last: where it is, the job is done


def free_memory(*, failed: bool = True) -> None:
    """What a try has left. failed: also what its error still holds, which takes a third of a second to find."""
    if failed:
        gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _size(job: Job) -> VideoSize:
    request = job.request
    return VideoSize(request.height, request.width, request.num_frames)


def _asked(job: Job, files: JobFiles) -> Asked:
    request = job.request
    images: dict[str, Path | None] = {
        name: files.copy(job.id, name) if getattr(request, name) else None for name in ("image", "last_image")
    }
    return Asked(
        height=request.height,
        width=request.width,
        num_frames=request.num_frames,
        fps=Fraction(request.fps).limit_denominator(1001),
        steps=request.steps,
        guidance=request.guidance,
        negative_prompt=request.negative_prompt,
        crf=CRF,
        keep_latents=False,
        **images,
    )
