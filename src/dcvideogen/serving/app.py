"""The HTTP interface as an app: routes, errors as JSON, and an OpenAPI document that is true.

No neural network is imported here: the models run in worker processes, and what a video would take is asked of a
planner, a process of its own too.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from dcvideogen.serving import (
    routes_content,
    routes_models,
    routes_operator,
    routes_uploads,
    routes_videos,
    upkeep,
)
from dcvideogen.serving.answers import ErrorAnswer
from dcvideogen.serving.guard import Guard
from dcvideogen.serving.request_error import RequestError
from dcvideogen.serving.routes_page import page_router
from dcvideogen.serving.server import Fleet, Planner, Server
from dcvideogen.serving.settings import ServeSettings
from dcvideogen.serving.wanted import invalid
from dcvideogen.serving.work_queue import WorkQueue
from dcvideogen.version import __version__

UPKEEP_S = 60.0
_OPEN = ("/healthz",)  # without a key
_ERRORS = {
    400: "What came cannot be meant.",
    401: "No valid key came.",
    403: "A browser sent it for another site.",
    404: "There is nothing of this id or name.",
    405: "Not this method.",
    408: "The body came too slowly.",
    409: "Not in the state that the job is in.",
    413: "Too much came.",
    415: "Not of this type.",
    422: "The file cannot be read.",
    429: "Too many; Retry-After says when to try again.",
    500: "The server failed.",
    503: "Not now; Retry-After says when to try again.",
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": told} for status, told in _ERRORS.items()
}


def create_app(settings: ServeSettings, planner: Planner | None = None, fleet: Fleet | None = None) -> FastAPI:
    """The app over a data folder, which it makes and keeps in order. UserError: the folder cannot be used."""
    server = Server(settings, planner, fleet)

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        _set_right(settings)
        ended = threading.Event()
        keeper = threading.Thread(target=_keep, args=(settings, ended), name="upkeep", daemon=True)
        keeper.start()
        yield
        server.closing.set()
        ended.set()
        keeper.join(10)
        server.close()

    app = FastAPI(
        title="dcvideogen",
        summary="Videos from text and pictures, as jobs of a queue.",
        version=__version__,
        lifespan=life,
        docs_url=None,  # both load their scripts from another host
        redoc_url=None,
        responses=_RESPONSES,
        redirect_slashes=False,
    )
    app.state.server = server
    for router in (routes_videos, routes_content, routes_uploads, routes_models, routes_operator):
        app.include_router(router.router)
    app.include_router(page_router())
    app.add_exception_handler(RequestError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_invalid)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.add_exception_handler(sqlite3.OperationalError, _refuse_busy)
    app.add_middleware(Guard, settings=settings, counts=server.counts)
    app.openapi = lambda: _document(app, settings)  # type: ignore[method-assign] - FastAPI's own way to extend it
    return app


def _set_right(settings: ServeSettings) -> None:
    """What a server that was killed has left, and jobs that nobody would take."""
    upkeep.sweep(settings.data)
    queue = WorkQueue(settings.data)
    try:
        queue.fail_unserved([model.name for model in settings.models])
        queue.reclaim()
    finally:
        queue.close()


def _keep(settings: ServeSettings, ended: threading.Event) -> None:
    while not ended.wait(UPKEEP_S):
        try:
            upkeep.expire(settings.data, settings.limits)
        except (sqlite3.OperationalError, OSError) as error:
            upkeep.logger.warning("old files could not be removed: %s", error)


def _refuse(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    headers = error.headers()
    if error.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error.body(), error.http_status, headers)


def _refuse_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _refuse(request, invalid(f"{first['loc'][-1]}: {first['msg']}"))


def _refuse_route(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code, message = {
        404: ("not_found", "there is nothing here"),
        405: ("method_not_allowed", "this method is not for this path"),
    }.get(error.status_code, ("invalid_request", "the request cannot be read"))
    answer = _refuse(request, RequestError(code, message, "/openapi.json says what there is", error.status_code))
    answer.headers.update(error.headers or {})
    return answer


def _refuse_busy(request: Request, error: Exception) -> JSONResponse:
    upkeep.logger.warning("the database does not answer: %s", error)
    return _refuse(request, RequestError("busy", "the server's disk is busy or full", "try again in 10 s", 503, 10))


def _document(app: FastAPI, settings: ServeSettings) -> dict[str, Any]:
    """FastAPI's, without its own answer to invalid requests, and with the key where one is needed."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, summary=app.summary, version=app.version, routes=app.routes)
        document["info"]["license"] = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
        if settings.keys_required:
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    operation["security"] = [] if path in _OPEN else [{"key": []}]
        app.openapi_schema = document
    return app.openapi_schema
