"""What a job made, as bytes, and how it goes, as server-sent events."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import anyio
from fastapi import APIRouter, Header, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from dcvideogen.serving.jobs import Job, Status
from dcvideogen.serving.request_error import RequestError
from dcvideogen.serving.routes_videos import own_job
from dcvideogen.serving.server import Here, KeyId, Server

router = APIRouter(tags=["videos"])

POLL_S, SILENCE_S = 0.15, 15.0
PIECE = 256 * 1024
Variant = Literal["video", "preview", "side_by_side"]
_TYPES = {"video": "video/mp4", "preview": "image/webp", "side_by_side": "video/mp4"}
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": {"video/mp4": _BINARY, "image/webp": _BINARY}},
    206: {"description": "The bytes that `Range` asked for.", "content": {"video/mp4": _BINARY, "image/webp": _BINARY}},
    416: {"description": "No such bytes."},
}


@router.get("/v1/videos/{video_id}/content", responses=_CONTENT, response_class=Response)
def get_content(
    video_id: str,
    server: Here,
    key_id: KeyId,
    variant: Variant = "video",
    range: Annotated[str | None, Header()] = None,
) -> Response:
    """The finished video, a preview while it runs, or a reconstruction beside its clip."""
    job = own_job(server, key_id, video_id)
    try:
        # Once open it can be read to its end, whoever removes it meanwhile.
        file = _path(server, job, variant).open("rb")
    except FileNotFoundError:
        raise _not_ready(job, variant) from None
    size = file.seek(0, 2)
    try:
        start, end = _asked_bytes(range, size)
    except RequestError:
        file.close()
        raise
    headers = {
        "Content-Type": _TYPES[variant],
        "Content-Length": str(end - start),
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'inline; filename="{job.id}.{"webp" if variant == "preview" else "mp4"}"',
    }
    if end - start < size:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return StreamingResponse(_read(file, start, end), 206 if end - start < size else 200, headers)


def _path(server: Server, job: Job, variant: Variant) -> Path:
    files = server.store.files
    if variant == "preview":
        if not job.preview:
            raise _not_ready(job, variant)
        return files.preview(job.id)
    if job.status is not Status.COMPLETED:
        raise _not_ready(job, variant)
    return files.video(job.id) if variant == "video" else files.side_by_side(job.id)


def _not_ready(job: Job, variant: Variant) -> RequestError:
    if variant == "side_by_side" and job.request.kind != "reconstruct":
        return RequestError("not_ready", "the job is no reconstruction", "ask for variant=video", 409)
    hint = "wait until it is completed" if not job.status.is_final else "look at its error, and ask for it again"
    return RequestError("not_ready", f"there is no {variant} yet, the job is {job.status}", hint, 409)


def _asked_bytes(asked: str | None, size: int) -> tuple[int, int]:
    """[start, end) of one range; all, where it is none that we know (RFC 9110, 14.2 allows that). RequestError 416."""
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", asked or "")
    if not found or not (found[1] or found[2]):
        return 0, size
    if found[1]:
        start, end = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
    else:
        start, end = max(0, size - int(found[2])), size
    if found[1] and found[2] and int(found[2]) < int(found[1]):
        return 0, size
    if start >= size:
        raise RequestError("no_such_range", f"the file has {size} bytes", "ask for some of these", 416)
    return start, end


def _read(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        while start < end and (piece := file.read(min(PIECE, end - start))):
            start += len(piece)
            yield piece


_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`event: job` with the job as JSON at every change; the stream ends when nothing more happens.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get("/v1/videos/{video_id}/events", responses=_EVENTS, response_class=Response)
async def get_events(video_id: str, server: Here, key_id: KeyId) -> Response:
    """Follows the job until it has ended."""
    await run_in_threadpool(own_job, server, key_id, video_id)
    return _EventStream(server, key_id, video_id)


class _EventStream(StreamingResponse):
    """Counts as open exactly while it is. RequestError 429 before it begins."""

    def __init__(self, server: Server, key_id: str, video_id: str) -> None:
        # nginx would collect events before it hands them on.
        super().__init__(
            _events(server, key_id, video_id), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )
        self._server, self._key_id = server, key_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._server.events.taken(self._key_id):
            await super().__call__(scope, receive, send)


async def _events(server: Server, key_id: str, video_id: str) -> AsyncIterator[str]:
    last, said = None, time.monotonic()
    while not server.closing.is_set():
        try:
            answer = await run_in_threadpool(lambda: server.answer(own_job(server, key_id, video_id)))
        except RequestError:
            return  # removed meanwhile
        text = answer.model_dump_json()
        if text != last:
            last, said = text, time.monotonic()
            yield f"event: job\ndata: {text}\n\n"
            if Status(answer.status).is_final:
                return
        elif time.monotonic() - said > SILENCE_S:
            said = time.monotonic()
            yield ": still here\n\n"
        await anyio.sleep(POLL_S)
