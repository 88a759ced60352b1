"""Workers on several machines: Ray Serve replicas in place of worker processes, behind the same queue and API.

The front keeps the data folder and has one thread for each replica, which takes jobs as a worker does and lets any free
replica make them. A replica that dies is replaced by Ray; its job goes on from its saved latents with another one.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dcvideogen.errors import UserError
from dcvideogen.serving.remote_maker import RemoteMakers
from dcvideogen.serving.replica import Event, Replica
from dcvideogen.serving.settings import ServeSettings
from dcvideogen.serving.work_queue import WorkerDied, WorkQueue
from dcvideogen.serving.worker import Worker

log = logging.getLogger("dcvideogen")

NAME = "dcvideogen"
STOP_S = 10.0  # for jobs to be given back when the server ends


class RayFleet:
    """Context manager: so many replicas, from its beginning to its end. device: "cpu" or "cuda", of each of them.

    The cluster is the one that RAY_ADDRESS names, or a new one of this machine alone. UserError: Ray is missing, or the
    cluster does not answer.
    """

    def __init__(self, settings: ServeSettings, replicas: int, device: str) -> None:
        self._settings, self._replicas, self._device = settings, replicas, device
        self._threads: list[tuple[threading.Thread, Worker, WorkQueue]] = []
        self._deaths = 0

    def __enter__(self) -> RayFleet:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray tells its makers of each start otherwise
        try:
            import ray
            from ray import serve
        except ImportError:
            raise UserError('--replicas needs Ray Serve; `pip install "dcvideogen[ray]"` brings it') from None
        self._ray, self._serve = ray, serve
        try:
            ray.init(log_to_driver=False, include_dashboard=False if "RAY_ADDRESS" not in os.environ else None)
        except ConnectionError as error:
            address = os.environ.get("RAY_ADDRESS")
            raise UserError(f"no Ray cluster answers at {address}; start one with `ray start --head`") from error
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(proxy_location="Disabled")  # requests come through our own interface alone
        models = [model.model_dump(mode="json") for model in self._settings.models]
        on_gpu = self._device.startswith("cuda")
        made = serve.deployment(Replica).options(
            num_replicas=self._replicas,
            max_ongoing_requests=1,
            ray_actor_options={"num_cpus": 1, "num_gpus": int(on_gpu)},
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
        application = made.bind(models, "cuda" if on_gpu else "cpu", self._settings.dtype)
        self._handle = serve.run(application, name=NAME, route_prefix=None)
        names = tuple(model.name for model in self._settings.models)
        for number in range(self._replicas):
            queue = WorkQueue(self._settings.data)
            worker = Worker(queue, RemoteMakers(names, f"replica of {self._device}", self._send))
            thread = threading.Thread(target=worker.run, name=f"replica {number}", daemon=True)
            self._threads.append((thread, worker, queue))
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for _thread, worker, _queue in self._threads:
            worker.ending.set()
        for thread, _worker, queue in self._threads:
            thread.join(STOP_S)
            if not thread.is_alive():
                queue.close()
        self._serve.shutdown()
        self._ray.shutdown()

    def up(self) -> int:
        """Replicas that run now."""
        deployment = self._serve.status().applications[NAME].deployments[Replica.__name__]
        return sum(count for state, count in deployment.replica_states.items() if state == "RUNNING")

    def restarts(self) -> int:
        """Replicas that died under a job."""
        return self._deaths

    @contextmanager
    def _send(self, job_id: str, request: str, files: dict[str, bytes]) -> Iterator[Iterator[Event]]:
        answer = self._handle.options(stream=True).make.remote(job_id, request, files)
        try:
            yield self._events(answer)
        finally:
            answer.cancel()

    def _events(self, answer: Any) -> Iterator[Event]:
        try:
            yield from answer
        except self._ray.exceptions.RayActorError as error:
            self._deaths += 1
            raise WorkerDied(str(error)) from error
