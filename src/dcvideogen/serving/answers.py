"""What the server answers, as types: the OpenAPI document is made of them, so that it is true."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dcvideogen.serving.jobs import Job, Status
from dcvideogen.serving.limits import Limits
from dcvideogen.serving.queue_figures import Waiting
from dcvideogen.serving.settings import Task
from dcvideogen.serving.store import JobStore
from dcvideogen.serving.uploads import Upload


class Answer(BaseModel):
    """Has exactly the fields it names."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(Answer):
    """message: what came and what is allowed; hint: what to do; code: for programs; type: in OpenAI's words."""

    message: str
    type: str
    code: str
    hint: str


class ErrorAnswer(Answer):
    error: ErrorDetail


class JobStage(Answer):
    """What a running job is at, and how far it is in steps or frames."""

    name: Literal["text", "denoising", "encoding", "decoding", "writing"]
    done: int
    total: int


class JobError(Answer):
    code: str
    message: str
    hint: str


class JobAnswer(Answer):
    """A video on its way. Times are Unix seconds; progress: percent; preview: rises with each new preview, 0: none.

    queue_position: queued jobs that will be taken before it. seconds: of the video. image, last_image, clip: ids of
    the uploads it was made with. metrics: of a finished reconstruction, PSNR in dB.
    """

    id: str
    object: Literal["video"] = "video"
    kind: Literal["generate", "reconstruct"]
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled"]
    model: str
    prompt: str
    negative_prompt: str | None
    size: str | None
    seconds: float | None
    num_frames: int | None
    fps: float | None
    steps: int | None
    guidance: float | None
    seed: int | None
    image: str | None
    last_image: str | None
    clip: str | None
    created_at: int
    started_at: int | None
    completed_at: int | None
    expires_at: int | None
    progress: int = Field(ge=0, le=100)
    stage: JobStage | None
    queue_position: int | None
    estimated_wait_seconds: float | None
    preview: int
    error: JobError | None
    metrics: dict[str, Any] | None


class JobListAnswer(Answer):
    """Newest first. has_more: ask for the older ones with after=last_id."""

    object: Literal["list"] = "list"
    data: list[JobAnswer]
    has_more: bool
    first_id: str | None
    last_id: str | None


class DeletedAnswer(Answer):
    """deleted: it is gone; otherwise it was queued or running, and was cancelled."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool


class UploadAnswer(Answer):
    """Of the file as it is kept; fps: frames per second, perhaps a fraction, of a clip; shortened: its end was left
    out. expires_at: Unix seconds."""

    id: str
    object: Literal["upload"] = "upload"
    purpose: Literal["image", "clip"]
    width: int
    height: int
    num_frames: int
    fps: str | None
    shortened: bool
    created_at: int
    expires_at: int


class UploadDeletedAnswer(Answer):
    id: str
    object: Literal["upload.deleted"] = "upload.deleted"
    deleted: Literal[True] = True


class ModelDefaults(Answer):
    size: str
    num_frames: int
    fps: float
    steps: int
    guidance: float
    negative_prompt: str


class ModelSize(Answer):
    width: int
    height: int
    num_frames: int


class ModelAnswer(Answer):
    """task: t2v: from text, i2v: from a picture and text, autoencoder: reconstructions. base: what it was made of."""

    id: str
    object: Literal["model"] = "model"
    task: Task
    defaults: ModelDefaults | None
    sizes: list[ModelSize]
    base: str | None


class ModelListAnswer(Answer):
    object: Literal["list"] = "list"
    data: list[ModelAnswer]


class PlanAnswer(Answer):
    """What a video would take. memory_bytes: at the peak; seconds: once it runs; tokens: of the transformer per pass;
    None: nobody knows. fits: whether the memory is there. queue_position: jobs that would be taken before it."""

    memory_bytes: int | None
    seconds: float | None
    tokens: int | None
    plan: str
    fits: bool
    warnings: list[str]
    queue_position: int
    estimated_wait_seconds: float | None


class HealthAnswer(Answer):
    status: Literal["ok"] = "ok"


def job_answer(store: JobStore, job: Job, limits: Limits) -> JobAnswer:
    """The job as its own client may see it."""
    request, at, waiting = job.request, job.progress, None
    if job.status is Status.QUEUED:
        waiting = store.waiting(job.key_id, job.id)
    return JobAnswer(
        id=job.id,
        kind=request.kind,
        status=job.status.value,
        model=request.model,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        size=None if request.width is None else f"{request.width}x{request.height}",
        seconds=None if not request.num_frames or not request.fps else round(request.num_frames / request.fps, 3),
        num_frames=request.num_frames,
        fps=request.fps,
        steps=request.steps,
        guidance=request.guidance,
        seed=request.seed,
        image=request.image,
        last_image=request.last_image,
        clip=request.clip,
        created_at=int(job.created),
        started_at=None if job.started is None else int(job.started),
        completed_at=None if job.finished is None else int(job.finished),
        expires_at=None if job.finished is None else int(job.finished + limits.output_age_s),
        progress=job.percent,
        stage=at and JobStage(name=at.stage.value, done=at.done, total=at.total),
        preview=job.preview,
        error=job.failure and JobError(code=job.failure.code, message=job.failure.message, hint=job.failure.hint),
        metrics=_metrics(store, job),
        **_waiting(waiting),
    )


def upload_answer(upload: Upload, limits: Limits) -> UploadAnswer:
    facts = upload.facts
    return UploadAnswer(
        id=upload.id,
        purpose="image" if upload.id.startswith("image_") else "clip",
        width=facts.width,
        height=facts.height,
        num_frames=facts.num_frames,
        fps=facts.fps,
        shortened=facts.shortened,
        created_at=int(upload.created),
        expires_at=int(upload.created + limits.upload_age_s),
    )


def _waiting(waiting: Waiting | None) -> dict[str, Any]:
    # Whole seconds: who follows a job is told of every change.
    seconds = None if waiting is None or waiting.seconds is None else round(waiting.seconds)
    return {"queue_position": waiting and waiting.ahead, "estimated_wait_seconds": seconds}


def _metrics(store: JobStore, job: Job) -> dict[str, Any] | None:
    if job.request.kind != "reconstruct" or job.status is not Status.COMPLETED:
        return None
    try:
        return json.loads(store.files.metrics(job.id).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # removed at this moment
        return None
