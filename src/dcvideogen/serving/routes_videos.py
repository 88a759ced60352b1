"""Videos: asking for them, looking at them, and stopping or removing them."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool

from dcvideogen.serving.answers import DeletedAnswer, JobAnswer, JobListAnswer
from dcvideogen.serving.bodies import media_type, read_form, read_json
from dcvideogen.serving.jobs import JOB_ID, Job, JobRequest
from dcvideogen.serving.request_error import RequestError, not_found
from dcvideogen.serving.server import Here, KeyId, Server
from dcvideogen.serving.store import MAX_PAGE
from dcvideogen.serving.wanted import (
    ReconstructionBody,
    VideoBody,
    invalid,
    job_request,
    parsed,
    parsed_fields,
    reconstruct_request,
)

router = APIRouter(tags=["videos"])


def json_body(kind: type) -> dict[str, Any]:
    """For the OpenAPI document: bodies are read by hand, within limits."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _schema(kind)}}}}


def _schema(kind: type) -> dict[str, Any]:
    return kind.model_json_schema(ref_template="#/components/schemas/{model}")


_FORM = _schema(VideoBody)
_VIDEO_BODY = json_body(VideoBody)
_VIDEO_BODY["requestBody"]["content"]["multipart/form-data"] = {
    "schema": {
        **_FORM,
        "title": "VideoForm",
        "properties": {
            **_FORM["properties"],
            "input_reference": {
                "type": "string", "format": "binary", "description": "The first picture: PNG, JPEG or WebP."
            },
        },
    }
}  # fmt: skip


@router.post("/v1/videos", response_model=JobAnswer, openapi_extra=_VIDEO_BODY)
async def create_video(request: Request, server: Here, key_id: KeyId) -> JobAnswer:
    """Queues a video: JSON, or a form with the picture in it."""
    if media_type(request)[0] == "multipart/form-data":
        return await _create_from_form(request, server, key_id)
    body = parsed(VideoBody, await read_json(request))
    wanted = job_request(body, server.settings.models)
    return await run_in_threadpool(_queue, server, key_id, wanted)


@router.post("/v1/reconstructions", response_model=JobAnswer, openapi_extra=json_body(ReconstructionBody))
async def create_reconstruction(request: Request, server: Here, key_id: KeyId) -> JobAnswer:
    """Queues a clip to go through an autoencoder and back; the job's metrics say how well it came through."""
    body = parsed(ReconstructionBody, await read_json(request))
    return await run_in_threadpool(_queue, server, key_id, reconstruct_request(body, server.settings.models))


@router.get("/v1/videos", response_model=JobListAnswer)
def list_videos(
    server: Here,
    key_id: KeyId,
    after: Annotated[str | None, Query(pattern=JOB_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    order: Literal["desc"] = "desc",
) -> JobListAnswer:
    """The key's own videos, newest first."""
    page = server.store.list_jobs(key_id, after=after, limit=limit)
    data = [server.answer(job) for job in page.jobs]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return JobListAnswer(data=data, has_more=page.has_more, first_id=first, last_id=last)


@router.get("/v1/videos/{video_id}", response_model=JobAnswer)
def get_video(video_id: str, server: Here, key_id: KeyId) -> JobAnswer:
    """The job as it stands."""
    return server.answer(own_job(server, key_id, video_id))


@router.post("/v1/videos/{video_id}/cancel", response_model=JobAnswer)
def cancel_video(video_id: str, server: Here, key_id: KeyId) -> JobAnswer:
    """Cancels a queued video at once, and a running one within two seconds."""
    own_job(server, key_id, video_id)
    return server.answer(server.store.request_cancel(key_id, video_id))


@router.delete("/v1/videos/{video_id}", response_model=DeletedAnswer)
def delete_video(video_id: str, server: Here, key_id: KeyId) -> DeletedAnswer:
    """Removes an ended video with its files; cancels one that is queued or running."""
    ended = own_job(server, key_id, video_id).status.is_final
    if not ended:
        try:
            server.store.request_cancel(key_id, video_id)
        except RequestError as error:
            if error.code != "already_ended":
                raise
            ended = True  # at this moment
    if ended:
        server.store.delete(key_id, video_id)
    return DeletedAnswer(id=video_id, deleted=ended)


def own_job(server: Server, key_id: str, video_id: str) -> Job:
    """RequestError 404, for texts that are no id of ours too."""
    if not re.fullmatch(JOB_ID, video_id):
        raise not_found("job")
    return server.store.get(key_id, video_id)


def _queue(server: Server, key_id: str, wanted: JobRequest) -> JobAnswer:
    return server.answer(server.store.add(key_id, wanted, server.settings.limits))


async def _create_from_form(request: Request, server: Server, key_id: str) -> JobAnswer:
    limits = server.settings.limits
    async with AsyncExitStack() as stack:
        stack.enter_context(server.receiving.taken(key_id))
        incoming = await stack.enter_async_context(contextmanager_in_threadpool(server.uploads.receive(key_id)))
        form = await read_form(request, "input_reference", incoming.write, limits.upload_bytes)
        body = parsed_fields(VideoBody, form.fields)
        if form.has_file:
            if body.image is not None:
                raise invalid("image and input_reference came; one of them is enough")
            # Before the picture is read: most mistakes are elsewhere.
            job_request(body.model_copy(update={"image": "image_" + 32 * "0"}), server.settings.models)
            upload = await run_in_threadpool(server.uploads.add, key_id, "image", incoming)
            body = body.model_copy(update={"image": upload.id})
    wanted = job_request(body, server.settings.models)
    try:
        return await run_in_threadpool(_queue, server, key_id, wanted)
    except RequestError:
        if form.has_file:  # nobody was told its id
            await run_in_threadpool(server.uploads.delete, key_id, upload.id)
        raise
