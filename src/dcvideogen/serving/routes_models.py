"""What the server has and what a video would take."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from dcvideogen.serving.answers import ModelAnswer, ModelDefaults, ModelListAnswer, ModelSize, PlanAnswer
from dcvideogen.serving.bodies import read_json
from dcvideogen.serving.jobs import JobRequest
from dcvideogen.serving.request_error import RequestError
from dcvideogen.serving.routes_videos import json_body
from dcvideogen.serving.server import Here, KeyId, Server
from dcvideogen.serving.settings import ServedModel
from dcvideogen.serving.wanted import VideoBody, job_request, parsed

router = APIRouter(tags=["models"])


@router.get("/v1/models", response_model=ModelListAnswer)
def list_models(server: Here, key_id: KeyId) -> ModelListAnswer:
    """The models that are served, and what each makes when it is not told."""
    return ModelListAnswer(data=[model_answer(model) for model in server.settings.models])


@router.post("/v1/plan", response_model=PlanAnswer, openapi_extra=json_body(VideoBody))
async def plan_video(request: Request, server: Here, key_id: KeyId) -> PlanAnswer:
    """What the same body would take at POST /v1/videos: memory, time and place in the queue. Nothing is queued."""
    wanted = job_request(parsed(VideoBody, await read_json(request)), server.settings.models)
    server.settings.limits.check_request(wanted)
    with server.planning.taken(key_id):
        return await run_in_threadpool(_plan, server, key_id, wanted)


def _plan(server: Server, key_id: str, wanted: JobRequest) -> PlanAnswer:
    if server.planner is None:
        raise RequestError("no_planner", "this server does not plan", "ask for the video", 503)
    for upload_id in wanted.uploads().values():
        server.uploads.get(key_id, upload_id)
    found = server.planner.estimate(wanted)
    waiting = server.store.waiting_if_added(wanted.model)
    return PlanAnswer(
        memory_bytes=found.memory_bytes,
        # What such jobs took is truer than what was computed, where anything is known at all.
        seconds=found.seconds if found.seconds is not None else server.store.seconds_per_job(wanted.model),
        tokens=found.tokens,
        plan=found.plan,
        fits=found.fits,
        warnings=list(found.warnings),
        queue_position=waiting.ahead,
        estimated_wait_seconds=None if waiting.seconds is None else round(waiting.seconds),
    )


def model_answer(model: ServedModel) -> ModelAnswer:
    made = model.defaults
    return ModelAnswer(
        id=model.name,
        task=model.task,
        defaults=made
        and ModelDefaults(
            size=f"{made.width}x{made.height}",
            num_frames=made.num_frames,
            fps=made.fps,
            steps=made.steps,
            guidance=made.guidance,
            negative_prompt=made.negative_prompt,
        ),
        sizes=[ModelSize(width=width, height=height, num_frames=frames) for width, height, frames in model.sizes],
        base=model.base,
    )
