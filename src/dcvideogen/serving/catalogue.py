"""What models are and what their videos would take, by the networks themselves: for the planner's process alone."""

from __future__ import annotations

import functools
import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dcvideogen.adaptation.folder import AdaptationInfo, fingerprint
from dcvideogen.errors import UserError
from dcvideogen.pipelines.asking import Asked, count_ways
from dcvideogen.pipelines.base_pipeline import BaseGrid, BaseTextToVideo, is_base
from dcvideogen.pipelines.loading import find_model, load_pipeline, without_progress_bars
from dcvideogen.pipelines.long_video import window_frames
from dcvideogen.pipelines.memory_budget import available_memory
from dcvideogen.pipelines.memory_counts import Rates, measure_rates
from dcvideogen.pipelines.memory_models import Networks
from dcvideogen.pipelines.memory_plan import in_gib
from dcvideogen.pipelines.placement import networks_in
from dcvideogen.pipelines.sizes import VideoSize
from dcvideogen.serving.jobs import JobRequest, VideoDefaults
from dcvideogen.serving.settings import ServedModel
from dcvideogen.weights import bundled_models

log = logging.getLogger("dcvideogen")

# Wan 2.1's own (arXiv 2503.20314), for a base that nothing served was made of.
_BASE_DEFAULTS = {"height": 480, "width": 832, "num_frames": 81, "fps": 16.0, "steps": 50, "guidance": 5.0}
_ALL_OF_A_GPU = 0.95  # what a worker that is alone on it may take; the rest is CUDA's own


@dataclass(frozen=True)
class _Known:
    """networks, info: of an adapted model. base, grid: the fingerprint of a base's transformer, and its tokens."""

    model: ServedModel
    networks: Networks | None = None
    info: AdaptationInfo | None = None
    base: str | None = None
    grid: BaseGrid | None = None


class Catalogue:
    """Loads every model once, on the CPU, and keeps what is needed to plan. UserError: one cannot be served."""

    def __init__(self, sources: list[str], device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        with without_progress_bars():
            known = [_look(source, dtype) for source in sources]
        names = [one.model.name for one in known]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UserError(f"two models are named {min(twice)}; rename the folder of one of them")
        bases = {one.base: one.model.name for one in known if one.base}
        made_of = {one.info.base: one for one in known if one.info is not None}
        self.models = tuple(_completed(one, bases, made_of) for one in known)
        self._known = {one.model.name: one for one in known}
        self._rates: Rates | None = None

    def estimate(self, request: JobRequest) -> dict[str, Any]:
        """The fields of `server.Estimate`, of a completed request."""
        known = self._known[request.model]
        size = VideoSize(request.height, request.width, request.num_frames)
        if known.networks is None or known.info is None:
            return {
                "memory_bytes": None,
                "seconds": None,
                "tokens": known.grid.tokens(size) if known.grid else None,
                "plan": "as diffusers runs it; memory and time are not planned",
                "fits": True,
                "warnings": (),
            }
        geometry, transformer = known.networks.autoencoder.geometry, known.networks.transformers[0]
        grid = size.latent_shape(geometry, transformer.config.patch_size)
        plans = self._plans(request.model, size, request.steps, request.guidance, bool(request.image))
        budget = self._budget()
        plan = next((plan for plan in plans if plan.peak <= budget), None)
        smallest = min(plans, key=lambda one: one.peak)
        warnings = [size.told_padding(geometry, grid), size.told_untrained(known.info.trained.sizes)]
        if plan is None:
            warnings.append(f"{in_gib(smallest.peak)} of memory are needed at least, and {in_gib(budget)} are there")
        shown = plan or smallest
        return {
            "memory_bytes": int(shown.peak),
            "seconds": round(shown.seconds, 2),
            "tokens": math.prod(grid) // math.prod(transformer.config.patch_size),
            "plan": str(shown),
            "fits": plan is not None,
            "warnings": tuple(told for told in warnings if told),
        }

    @functools.lru_cache(maxsize=256)  # noqa: B019 - as long as the process lives
    def _plans(self, name: str, size: VideoSize, steps: int, guidance: float, with_image: bool) -> tuple:
        known = self._known[name]
        if self._rates is None:
            self._rates = measure_rates(known.networks, self._device)
        asked = Asked(
            size.height, size.width, size.num_frames, None, steps, guidance, None,
            Path("image.png") if with_image else None, None, 18, False,
        )  # fmt: skip
        info, window = known.info, window_frames(known.info.trained, known.model.task, size)
        return count_ways(
            known.networks, size, asked, info.sampling, info.trained.max_sequence_length, self._device,
            info.image_condition, self._rates, window,
        ).plans  # fmt: skip

    def _budget(self) -> int:
        """What a worker could have: on a GPU nearly all of it, on a CPU what is free."""
        if self._device.type == "cuda":
            return int(_ALL_OF_A_GPU * torch.cuda.mem_get_info(self._device)[1])
        return available_memory(self._device)


def _look(source: str, dtype: torch.dtype) -> _Known:
    name = source if not Path(source).is_dir() else Path(source).resolve().name
    folder = bundled_models().get(source, Path(source))
    config = folder / "config.json"
    if config.is_file() and json.loads(config.read_text(encoding="utf-8")).get("_class_name") == "AutoencoderDCV":
        return _Known(ServedModel(name=name, source=source, task="autoencoder"))
    folder = find_model(source)
    if is_base(folder):
        base = BaseTextToVideo(folder, dtype)
        model = ServedModel(name=name, source=source, task="t2v", is_base=True)
        return _Known(model, base=fingerprint(base.pipeline.transformer), grid=base.grid)
    pipeline = load_pipeline(source, dtype=dtype)
    info = pipeline.adaptation
    size = pipeline.asked_size(None, None, None)
    defaults = VideoDefaults(
        height=size.height,
        width=size.width,
        num_frames=size.num_frames,
        fps=info.trained.fps,
        steps=info.sampling.steps,
        guidance=info.sampling.guidance,
        negative_prompt=info.trained.null_prompt,
    )
    sizes = tuple((width, height, frames) for height, width, frames in info.trained.sizes)
    model = ServedModel(name=name, source=source, task=pipeline.task, defaults=defaults, sizes=sizes)
    return _Known(model, networks_in(pipeline), info)


def _completed(one: _Known, bases: dict[str, str], made_of: dict[str, _Known]) -> ServedModel:
    """With what it has in common with others: an adapted one's base, a base's defaults."""
    if one.info is not None:
        return one.model.model_copy(update={"base": bases.get(one.info.base)})
    if one.base is None:
        return one.model
    child = made_of.get(one.base)
    if child is None:
        return one.model.model_copy(update={"defaults": VideoDefaults(**_BASE_DEFAULTS)})
    return one.model.model_copy(
        update={
            "defaults": child.model.defaults,
            "sizes": child.model.sizes,
            "text_tokens": child.info.trained.max_sequence_length,
        }
    )
