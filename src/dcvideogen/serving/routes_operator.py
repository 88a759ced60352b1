"""For those who run the server: whether it lives, and its figures in Prometheus' text format."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Response

from dcvideogen.serving.answers import HealthAnswer
from dcvideogen.serving.server import Here, KeyId, Server

router = APIRouter(tags=["operation"])

# Format: prometheus.io/docs/instrumenting/exposition_formats
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get("/healthz", response_model=HealthAnswer)
def get_health(server: Here) -> HealthAnswer:
    """Answers while the server can reach its queue. Needs no key."""
    server.store.counts()
    return HealthAnswer()


@router.get("/metrics", responses=_TEXT, response_class=Response)
def get_metrics(server: Here, key_id: KeyId) -> Response:
    """Figures over all keys together."""
    return Response("".join(_lines(server)), media_type=METRICS_TYPE)


def _lines(server: Server) -> Iterator[str]:
    store = server.store
    yield from _metric(
        "jobs", "gauge", "Jobs there are now.", {f'status="{name}"': count for name, count in store.counts().items()}
    )
    ended = {f'status="{name}"': count for name, count in store.totals().items()}
    yield from _metric("jobs_ended_total", "counter", "Jobs that ended, also those removed since.", ended)
    seconds = store.seconds_per_job()
    if seconds is not None:
        yield from _metric("job_seconds", "gauge", "Mean time of the last completed jobs.", {"": seconds})
    usage = store.files.usage()
    sizes = {'of="jobs"': usage.jobs, 'of="uploads"': usage.uploads, 'of="incoming"': usage.incoming}
    yield from _metric("bytes", "gauge", "Bytes on disk.", sizes)
    if server.fleet is not None:
        yield from _metric("workers_up", "gauge", "Worker processes that run.", {"": server.fleet.up()})
        restarts = {"": server.fleet.restarts()}
        yield from _metric("worker_restarts_total", "counter", "Workers that died or had to be ended.", restarts)
    answers = {
        f'method="{method}",route="{route}",status="{status}"': count
        for (_, method, route, status), count in sorted(server.counts.items(), key=str)
    }
    yield from _metric("http_requests_total", "counter", "Answers by route and status.", answers)
    yield from _metric("uptime_seconds", "gauge", "Since the server started.", {"": round(time.time() - server.began)})


def _metric(name: str, kind: str, told: str, values: dict[str, float]) -> Iterator[str]:
    yield f"# HELP dcvideogen_{name} {told}\n# TYPE dcvideogen_{name} {kind}\n"
    for labels, value in values.items():
        yield f"dcvideogen_{name}{f'{{{labels}}}' if labels else ''} {value:g}\n"
