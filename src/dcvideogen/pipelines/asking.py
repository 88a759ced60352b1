"""What is asked of a generation, completed by what its model recommends, and the ways there are to make it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch

from dcvideogen.adaptation.folder import SamplingDefaults
from dcvideogen.conditioning import ImageCondition
from dcvideogen.pipelines.long_video import window_frames
from dcvideogen.pipelines.memory_counts import Rates, measure_rates
from dcvideogen.pipelines.memory_models import Asked as AskedVideo
from dcvideogen.pipelines.memory_models import Networks
from dcvideogen.pipelines.memory_plan import Plan, plans_for
from dcvideogen.pipelines.placement import networks_in
from dcvideogen.pipelines.sizes import VideoSize
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline

# 100 passes of 5.4 PFLOP in 25.41 minutes: the paper's 1.3B at 2160x3840 (arXiv 2509.25182) on one H100.
PAPER_RATES = Rates(354e12, 354e12, "354 TFLOP/s, the paper's on an H100, no GPU being here; for convs a guess")
PAPER_MEMORY = 80 * 10**9  # of that H100


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
    image_guidance: float | None = None

    @property
    def images(self) -> dict[str, Path]:
        """By the names that the pipeline gives them."""
        named = {"image": self.image, "last_image": self.last_image}
        return {name: path for name, path in named.items() if path is not None}

    def guided_by_image(self, defaults: SamplingDefaults) -> float | None:
        """The image guidance, where there is any."""
        scale = defaults.image_guidance if self.image_guidance is None else self.image_guidance
        return scale if self.image is not None and scale > 1 else None


@dataclass(frozen=True)
class Ways:
    """Plans for one video, fastest first, and the speeds that their times come from."""

    plans: tuple[Plan, ...]
    rates: Rates


def asked_size(pipeline: DCVideoGenPipeline, asked: Asked) -> VideoSize:
    """As asked; else of the image's shape, else as the model was trained."""
    height, width = asked.height, asked.width
    if asked.image is not None and height is None and width is None:
        height, width = pipeline.size_of(asked.image)
    return pipeline.asked_size(height, width, asked.num_frames)


def ways_of(pipeline: DCVideoGenPipeline, size: VideoSize, asked: Asked, device: torch.device) -> Ways:
    """Of a loaded pipeline."""
    info = pipeline.adaptation
    return count_ways(
        networks_in(pipeline), size, asked, info.sampling, info.trained.max_sequence_length, device,
        info.image_condition, window=window_frames(info.trained, pipeline.task, size),
    )  # fmt: skip


def count_ways(
    networks: Networks,
    size: VideoSize,
    asked: Asked,
    defaults: SamplingDefaults,
    text_tokens: int,
    device: torch.device,
    condition: ImageCondition = "zeros",
    rates: Rates | None = None,
    window: int | None = None,
) -> Ways:
    """condition: how the model is told its image. rates: of the device; None: measured now. window: the frames of
    each, where the video is made in several."""
    guidance = defaults.guidance if asked.guidance is None else asked.guidance
    steps = asked.steps or defaults.steps
    if image_guidance := asked.guided_by_image(defaults):
        # Plans count two passes a step; three are as many in half as many steps more. They are run one by one.
        steps = math.ceil(1.5 * steps) if guidance > 1 else steps
        guidance = max(guidance, image_guidance)
    wanted = AskedVideo(
        size.height, size.width, size.num_frames, steps, guided=guidance > 1, text_tokens=text_tokens,
        images=len(asked.images) if networks.first_latent else max(1, len(asked.images)),
        condition=condition, window_frames=window,
    )  # fmt: skip
    if rates is None:
        there = device.type == "cpu" or torch.cuda.is_available()
        rates = measure_rates(networks, device) if there else PAPER_RATES
    return Ways(plans_for(networks, wanted, on_cpu=device.type == "cpu", rates=rates), rates)
