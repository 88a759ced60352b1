"""What generating would take: ways to do it, with the memory and the time of each, and the choice among them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from dcvideogen.adaptation.folder import SamplingDefaults, Trained
from dcvideogen.adaptation.wan_configs import WAN_CONFIGS
from dcvideogen.autoencoder.loading import usual_dtype
from dcvideogen.cli.console import out
from dcvideogen.pipelines.asking import Asked, asked_size, count_ways, ways_of
from dcvideogen.pipelines.hub import hub_folder, is_hub_id
from dcvideogen.pipelines.loading import Task, load_pipeline, without_progress_bars
from dcvideogen.pipelines.memory_budget import available_memory
from dcvideogen.pipelines.memory_plan import Plan, choose_plan, told, told_all
from dcvideogen.pipelines.placement import networks_named
from dcvideogen.pipelines.sizes import VideoSize
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline

PAPER_MEMORY = 80 * 10**9  # of the H100 of PAPER_RATES


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
        return self.dtype or usual_dtype(self.device)

    def load(self, task: Task) -> DCVideoGenPipeline:
        """On the CPU."""
        model = hub_folder(self.model, download=self.download) if is_hub_id(self.model) else self.model
        with without_progress_bars():
            pipeline = load_pipeline(
                model, task=task, adapter=self.adapter, autoencoder=self.autoencoder, dtype=self.own_dtype
            )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


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
