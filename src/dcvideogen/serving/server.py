"""What the routes share: store, uploads, keys, the planner, and how many of each kind of open request there are."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Protocol

from fastapi import Depends, Request

from dcvideogen.serving.answers import JobAnswer, job_answer
from dcvideogen.serving.database import LOCAL_KEY
from dcvideogen.serving.jobs import Job, JobRequest
from dcvideogen.serving.keys import Keys
from dcvideogen.serving.request_error import RequestError
from dcvideogen.serving.settings import ServeSettings
from dcvideogen.serving.store import JobStore
from dcvideogen.serving.uploads import Uploads

# Sockets that stay open, of one key and of all: enough for some tabs, and no client takes them all.
EVENTS_PER_KEY, EVENTS = 16, 256
RECEIVING_PER_KEY, RECEIVING = 4, 16


class Estimate(Protocol):
    """What a planner knows; see `PlanAnswer`."""

    memory_bytes: int | None
    seconds: float | None
    tokens: int | None
    plan: str
    fits: bool
    warnings: tuple[str, ...]


class Planner(Protocol):
    def estimate(self, request: JobRequest) -> Estimate:
        """Of a completed request, within seconds. RequestError 503: not now."""


class Fleet(Protocol):
    """The worker processes."""

    def up(self) -> int: ...

    def restarts(self) -> int: ...


class Server:
    """Everything behind the routes of one app. counts: of answers, by the guard."""

    def __init__(self, settings: ServeSettings, planner: Planner | None, fleet: Fleet | None) -> None:
        self.settings, self.planner, self.fleet = settings, planner, fleet
        self.store = JobStore(settings.data)
        self.uploads = Uploads(settings.data, settings.limits)
        self.keys = Keys(settings.data)
        self.events = Slots(EVENTS_PER_KEY, EVENTS, "event streams")
        self.receiving = Slots(RECEIVING_PER_KEY, RECEIVING, "uploads on their way")
        self.planning = Slots(RECEIVING_PER_KEY, RECEIVING, "plans")
        self.counts: Counter = Counter()
        self.began = time.time()
        self.closing = threading.Event()  # event streams end

    def answer(self, job: Job) -> JobAnswer:
        return job_answer(self.store, job, self.settings.limits)

    def close(self) -> None:
        for part in (self.store, self.uploads, self.keys):
            part.close()


class Slots:
    """Counts what is open at once. Used from the event loop alone."""

    def __init__(self, per_key: int, total: int, what: str) -> None:
        self._per_key, self._total, self._what = per_key, total, what
        self._open: Counter[str] = Counter()

    @contextmanager
    def taken(self, key_id: str) -> Iterator[None]:
        """RequestError 429 when there are too many already."""
        if self._open[key_id] >= self._per_key or self._open.total() >= self._total:
            raise RequestError(
                "too_many_open", f"too many {self._what} are open", "close one; try again in 5 s", 429, 5
            )
        self._open[key_id] += 1
        try:
            yield
        finally:
            self._open[key_id] -= 1
            if not self._open[key_id]:
                del self._open[key_id]


def server_of(request: Request) -> Server:
    return request.app.state.server


def key_of(request: Request) -> str:
    """The id of the key whose client asks; on loopback without keys `LOCAL_KEY`. RequestError 401.

    There a key of ours is looked at if one comes; any other text is what OpenAI's clients insist on sending.
    """
    server: Server = request.app.state.server
    given = request.headers.getlist("authorization")
    scheme, _, text = (given[0] if len(given) == 1 else "").partition(" ")
    key = text.strip() if scheme.lower() == "bearer" else None
    if not server.settings.keys_required and not (key or "").startswith("dcvk_"):
        return LOCAL_KEY
    return server.keys.check(key).id


Here = Annotated[Server, Depends(server_of)]
KeyId = Annotated[str, Depends(key_of)]
