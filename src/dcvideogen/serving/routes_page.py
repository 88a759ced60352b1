"""The page: files that came with the package, read once at the start; no name of a client's reaches the disk."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response

from dcvideogen.serving.request_error import RequestError

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True)
class PageFile:
    content: bytes
    media_type: str
    tag: str


def page_files() -> dict[str, PageFile]:
    """By name; one flat folder."""
    found = {}
    for path in sorted(FOLDER.iterdir()) if FOLDER.is_dir() else ():
        if path.suffix in TYPES and re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", path.name):
            content = path.read_bytes()
            found[path.name] = PageFile(content, TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:16]}"')
    return found


def page_router() -> APIRouter:
    """Not in the OpenAPI document: it is for people."""
    router, files = APIRouter(include_in_schema=False), page_files()

    def answer(request: Request, name: str) -> Response:
        file = files.get(name)
        if file is None:
            raise RequestError("not_found", "there is nothing of this name", "open /", 404)
        headers = {"ETag": file.tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    @router.get("/")
    def get_index(request: Request) -> Response:
        return answer(request, INDEX)

    @router.get("/page/{name}")
    def get_file(name: str, request: Request) -> Response:
        return answer(request, name)

    return router
