"""Pictures and clips that clients send, to be named in later requests."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool

from dcvideogen.serving.answers import UploadAnswer, UploadDeletedAnswer, upload_answer
from dcvideogen.serving.bodies import read_form
from dcvideogen.serving.server import Here, KeyId
from dcvideogen.serving.wanted import Purpose, invalid, parsed_fields

router = APIRouter(tags=["uploads"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "title": "UploadForm",
                    "type": "object",
                    "required": ["purpose", "file"],
                    "additionalProperties": False,
                    "properties": {
                        "purpose": {"type": "string", "enum": ["image", "clip"]},
                        "file": {"type": "string", "format": "binary"},
                    },
                }
            }
        },
    }
}


@router.post("/v1/uploads", response_model=UploadAnswer, openapi_extra=_BODY)
async def create_upload(request: Request, server: Here, key_id: KeyId) -> UploadAnswer:
    """Keeps a picture (PNG, JPEG, WebP) or a clip (mp4, mov, webm, mkv), as it is written anew here."""
    limits = server.settings.limits
    async with AsyncExitStack() as stack:
        stack.enter_context(server.receiving.taken(key_id))
        incoming = await stack.enter_async_context(contextmanager_in_threadpool(server.uploads.receive(key_id)))
        form = await read_form(request, "file", incoming.write, limits.upload_bytes)
        purpose = parsed_fields(Purpose, form.fields).purpose
        if not form.has_file:
            raise invalid("the form has no file", "send it as the field `file`")
        upload = await run_in_threadpool(server.uploads.add, key_id, purpose, incoming)
    return upload_answer(upload, limits)


@router.delete("/v1/uploads/{upload_id}", response_model=UploadDeletedAnswer)
def delete_upload(upload_id: str, server: Here, key_id: KeyId) -> UploadDeletedAnswer:
    """Removes an upload; jobs that were asked for with it have copies of their own."""
    server.uploads.delete(key_id, upload_id)
    return UploadDeletedAnswer(id=upload_id)
