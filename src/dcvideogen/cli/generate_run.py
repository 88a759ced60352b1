"""Runs generation jobs: those whose videos are not there yet, in the way that fits into the memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dcvideogen.cli.console import err, out
from dcvideogen.cli.generate_plan import Source
from dcvideogen.cli.progress import PhaseProgress
from dcvideogen.errors import UserError
from dcvideogen.pipelines.asking import Asked, asked_size, ways_of
from dcvideogen.pipelines.jobs import Job
from dcvideogen.pipelines.making import run_job, shared_settings
from dcvideogen.pipelines.memory_budget import available_memory
from dcvideogen.pipelines.memory_plan import choose_plan, told
from dcvideogen.pipelines.placement import place
from dcvideogen.pipelines.sizes import VideoSize
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline
from dcvideogen.video.metadata import SETTINGS_KEY, read_metadata


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
        run_job(pipeline, job, shared[asked], size, asked, plan, PhaseProgress)
        fps = shared[asked]["fps"]
        told_size = f"{size.num_frames} frames of {size.width}x{size.height} at {fps} frames per second"
        out.print(f"{job.output}: {told_size}", markup=False, soft_wrap=True)


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
