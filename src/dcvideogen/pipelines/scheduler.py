"""A pipeline's scheduler, from the configuration in its folder."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dcvideogen.errors import UserError

CONFIG = "scheduler_config.json"
FLOW = "flow_prediction"  # what the schedulers for several kinds of model call the velocity


def load_scheduler(folder: Path, shift: float | None = None) -> Any:
    """The scheduler of diffusers that a `scheduler/` folder names, as it is configured there.

    Where there is no such folder: UniPC with the sigmas of flow matching, as Wan is sampled (arXiv 2503.20314). shift:
    of the noise levels towards noise; None: as configured, 5 without a configuration. UserError: a file that is no
    configuration, a class that diffusers does not have, one that is not set to flow matching.
    """
    import diffusers

    if not folder.is_dir():
        return diffusers.UniPCMultistepScheduler(
            prediction_type=FLOW, use_flow_sigmas=True, flow_shift=5.0 if shift is None else shift
        )
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        name = str(config.get("_class_name"))
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is no JSON object that can be read ({error}); get the folder again") from error
    scheduler_class = getattr(diffusers, name, None)
    if not isinstance(scheduler_class, type) or not issubclass(scheduler_class, diffusers.SchedulerMixin):
        raise UserError(f"{path} names the scheduler {name}, which diffusers {diffusers.__version__} does not have")
    if shift is not None:
        config = {**config, shift_field(config): shift}
    try:
        scheduler = scheduler_class.from_config(config)
    except (TypeError, ValueError, ImportError, NotImplementedError) as error:
        raise UserError(f"{path} does not fit {name}: {' '.join(str(error).split())}; get the folder again") from error
    predicted = scheduler.config.get("prediction_type", FLOW)
    if predicted != FLOW:
        raise UserError(f"{path} is for transformers that predict {predicted}; prediction_type {FLOW} is allowed")
    return scheduler


def step_noise(scheduler: Any, generators: Sequence[torch.Generator] | None) -> dict[str, Any]:
    """What `scheduler.step` is told besides, where it may draw noise: a generator for each video. Otherwise it would
    draw from torch's global one, and the seed would not decide the video."""
    takes = "generator" in inspect.signature(scheduler.step).parameters
    return {"generator": list(generators)} if takes and generators is not None else {}


def shift_field(config: Any) -> str:
    """How a scheduler's configuration calls the shift: UniPC and its like flow_shift, FlowMatchEuler shift."""
    return "flow_shift" if "flow_shift" in config else "shift"
