"""Makes videos with a base model as it came, to be seen beside those of the model that was made of it."""

from __future__ import annotations

import json
from fractions import Fraction

import torch

from dcvideogen.data.latents_file import LatentsInfo, read_latents, write_latents
from dcvideogen.errors import UserError
from dcvideogen.pipelines.base_pipeline import BaseTextToVideo
from dcvideogen.pipelines.jobs import Job as VideoJob
from dcvideogen.pipelines.loading import find_model
from dcvideogen.pipelines.making import DENOISING, TEXT, WRITING, has_latents
from dcvideogen.pipelines.sizes import VideoSize
from dcvideogen.serving.files import JobFiles
from dcvideogen.serving.jobs import Job
from dcvideogen.serving.settings import ServedModel
from dcvideogen.serving.watch import Watch
from dcvideogen.version import __version__
from dcvideogen.video import VideoWriter, video_to_frames
from dcvideogen.video.metadata import SETTINGS_KEY

CRF = 18  # of H.264, as `dcvideogen generate` has it
_TEXT_TOKENS = 512  # Wan's own


class BaseMaker:
    """No previews: its autoencoder is slow, and they would take longer than they are worth."""

    def __init__(self, model: ServedModel, device: torch.device, dtype: torch.dtype) -> None:
        self._model = model
        self._base = BaseTextToVideo(find_model(model.source), dtype)
        self._base.to(device)

    def make(self, job: Job, files: JobFiles, watch: Watch) -> None:
        request = job.request
        size = VideoSize(request.height, request.width, request.num_frames)
        video = VideoJob(request.prompt, request.seed, 0, files.video(job.id))
        settings = video.settings(
            {
                "negative_prompt": request.negative_prompt,
                "steps": request.steps,
                "guidance": request.guidance,
                "height": size.height,
                "width": size.width,
                "num_frames": size.num_frames,
                "fps": str(Fraction(request.fps).limit_denominator(1001)),
                "model": self._model.name,
                "version": __version__,
            }
        )
        with watch.phases("", {TEXT: 1, DENOISING: request.steps, WRITING: size.num_frames}) as progress:
            if not has_latents(video, settings):
                progress.begin(TEXT)
                latents = self._base.latents(
                    request.prompt,
                    request.negative_prompt or "",
                    size,
                    steps=request.steps,
                    guidance=request.guidance,
                    seed=request.seed,
                    text_tokens=self._model.text_tokens or _TEXT_TOKENS,
                    after_step=lambda _index, _latents: progress.advance(DENOISING),
                )
                if not latents.isfinite().all():
                    raise UserError("the model gave numbers that are not finite; ask for other settings")
                info = LatentsInfo(
                    height=size.height,
                    width=size.width,
                    num_frames=size.num_frames,
                    fps=Fraction(settings["fps"]),
                    latent_space_id=f"of {self._model.name}",
                    model=self._model.name,
                    generation=settings,
                )
                write_latents(video.latents, latents[0], info)
            progress.begin(WRITING)
            latents, info = read_latents(video.latents)
            frames = video_to_frames(self._base.decode(latents[None], size))
            with VideoWriter(video.output, fps=info.fps, crf=CRF, metadata={SETTINGS_KEY: json.dumps(settings)}) as out:
                for frame in frames:
                    out.write(frame)
                    progress.advance(WRITING)
