"""What generating would take: ways to do it, with the memory and the time of each, and the choice among them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch

from dcvideogen.adaptation.folder import SamplingDefaults, Trained
from dcvideogen.adaptation.wan_configs import WAN_CONFIGS
from dcvideogen.cli.console import out
from dcvideogen.conditioning import ImageCondition
from dcvideogen.pipelines.hub import hub_folder, is_hub_id
from dcvideogen.pipelines.loading import Task, hide_progress_bars, load_pipeline
from dcvideogen.pipelines.memory_budget import available_memory
from dcvideogen.pipelines.memory_counts import Rates, measure_rates
from dcvideogen.pipelines.memory_models import Asked as AskedVideo
from dcvideogen.pipelines.memory_models import Networks
from dcvideogen.pipelines.memory_plan import Plan, choose_plan, plans_for, told, told_all
from dcvideogen.pipelines.placement import networks_in, networks_named
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
class Source:
    """Where the model comes from, and where it runs; see `load_pipeline`. download: whether `model` may be fetched from
    the hub. dtype: None: the device's usual one."""

    model: str
    adapter: Path | None
    autoencoder: str | None
    download: bool
    device: torch.device
    dtype: torch.dtype | None

    @property
    def own_dtype(self) -> torch.dtype:
        return self.dtype or (torch.float32 if self.device.type == "cpu" else torch.bfloat16)

    def load(self, task: Task) -> DCVideoGenPipeline:
        """On the CPU."""
        hide_progress_bars()
        model = hub_folder(self.model, download=self.download) if is_hub_id(self.model) else self.model
        pipeline = load_pipeline(
            model, task=task, adapter=self.adapter, autoencoder=self.autoencoder, dtype=self.own_dtype
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


@dataclass(frozen=True)
class Ways:
    """Plans for one video, fastest first, and the speeds that their times come from."""

    plans: tuple[Plan, ...]
    rates: Rates


def asked_size(pipeline: DCVideoGenPipeline, asked: Asked) -> VideoSize:
    height, width = asked.height, asked.width
    if asked.image is not None and height is None and width is None:
        height, width = pipeline.size_of(asked.image)
    return pipeline.asked_size(height, width, asked.num_frames)


def ways_of(pipeline: DCVideoGenPipeline, size: VideoSize, asked: Asked, device: torch.device) -> Ways:
    info = pipeline.adaptation
    tokens, condition = info.trained.max_sequence_length, info.image_condition
    return count_ways(networks_in(pipeline), size, asked, info.sampling, tokens, device, condition)


def count_ways(
    networks: Networks,
    size: VideoSize,
    asked: Asked,
    defaults: SamplingDefaults,
    text_tokens: int,
    device: torch.device,
    condition: ImageCondition = "zeros",
) -> Ways:
    guidance = defaults.guidance if asked.guidance is None else asked.guidance
    steps = asked.steps or defaults.steps
    if image_guidance := asked.guided_by_image(defaults):
        # Plans count two passes a step; three are as many in half as many steps more. They are run one by one.
        steps = math.ceil(1.5 * steps) if guidance > 1 else steps
        guidance = max(guidance, image_guidance)
    wanted = AskedVideo(
        size.height, size.width, size.num_frames, steps, guided=guidance > 1, text_tokens=text_tokens,
        images=max(1, len(asked.images)), condition=condition,
    )  # fmt: skip
    there = device.type == "cpu" or torch.cuda.is_available()
    rates = measure_rates(networks, device) if there else PAPER_RATES
    return Ways(plans_for(networks, wanted, on_cpu=device.type == "cpu", rates=rates), rates)


def tell_plans(asked: Asked, source: Source, budget: int | None) -> Plan:
    """Prints all ways to make one of the videos, and the one that would be taken, which it returns; for a published
    name without its files.

    For a GPU that is not there the speed and the memory of an H100 are taken. UserError, after the list, where nothing
    fits into the budget (bytes; None: what is free).
    """
    if source.model in WAN_CONFIGS:
        networks = networks_named(source.model, source.dtype or torch.bfloat16)
        size = VideoSize(asked.height or 480, asked.width or 832, asked.num_frames or 80)
        tokens = Trained().max_sequence_length
        ways = count_ways(networks, size, asked, SamplingDefaults(), tokens, source.device)
    else:
        pipeline = source.load("t2v" if asked.image is None else "i2v")
        ways = ways_of(pipeline, asked_size(pipeline, asked), asked, source.device)
    if budget is None and source.device.type == "cuda" and not torch.cuda.is_available():
        budget = PAPER_MEMORY
    limit = available_memory(source.device) if budget is None else budget
    chosen = next((plan for plan in ways.plans if plan.peak <= limit), None)
    for line in (*told_all(ways.plans, chosen), *told(chosen or ways.plans[-1], ways.rates)):
        out.print(line, markup=False, soft_wrap=True)
    return chosen or choose_plan(ways.plans, limit)  # which says what is missing
