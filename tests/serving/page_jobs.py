"""The queue of the page's test server: jobs as the HTTP contract tells them, whose progress only counts."""

from __future__ import annotations

import secrets
import threading
import time

FINAL = ("completed", "failed", "cancelled")


def served_model(name: str, task: str, size: str, num_frames: int, base: str | None = None) -> dict:
    width, height = map(int, size.split("x"))
    defaults = {"size": size, "num_frames": num_frames, "fps": 12.0, "steps": 8, "guidance": 3.0, "negative_prompt": ""}
    return {
        "id": name, "object": "model", "task": task, "base": base,
        "defaults": None if task == "autoencoder" else defaults,
        "sizes": [] if task == "autoencoder" else [{"width": width, "height": height, "num_frames": num_frames}],
    }  # fmt: skip


MODELS = [
    served_model("shapes-dc", "t2v", "160x96", 33, base="shapes-base"),
    served_model("shapes-base", "t2v", "160x96", 33),
    served_model("shapes-i2v", "i2v", "160x96", 33),
    served_model("dcae-small", "autoencoder", "160x96", 33),
]


class Refusal(Exception):
    def __init__(self, status: int, code: str, message: str, hint: str) -> None:
        self.status, self.code, self.message, self.hint = status, code, message, hint


class CannedJobs:
    """jobs: as the API tells them, in the order of queueing. Change them only with `changed` held."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict] = {}
        self.uploads: set[str] = set()
        self.changed = threading.Condition()

    def add(self, body: dict, kind: str = "generate", **changes: object) -> dict:
        model = next((model for model in MODELS if model["id"] == body.get("model")), None)
        if model is None:
            raise Refusal(404, "model_not_found", "this server has no model of that name", "ask /v1/models")
        if kind == "generate" and not str(body.get("prompt", "")).strip():
            raise Refusal(400, "invalid_request", "the prompt is empty", "say in words what should be seen")
        if {body.get("image"), body.get("last_image"), body.get("clip")} - self.uploads - {None}:
            raise Refusal(404, "upload_not_found", "there is no upload of this id", "upload the file again")
        job = {
            "id": f"video_{secrets.token_hex(16)}", "object": "video", "kind": kind, "status": "queued",
            "model": model["id"], "prompt": "", "negative_prompt": None, "size": None, "seconds": None,
            "num_frames": None, "fps": None, "steps": None, "guidance": None, "seed": None, "image": None,
            "last_image": None, "clip": None, "created_at": int(time.time()), "started_at": None, "completed_at": None,
            "expires_at": None, "progress": 0, "stage": None, "queue_position": 0, "estimated_wait_seconds": None,
            "preview": 0, "error": None, "metrics": None,
        }  # fmt: skip
        job |= (model["defaults"] or {}) | {"seed": secrets.randbits(32)} | body | changes
        if job["num_frames"]:
            job["seconds"] = round(job["num_frames"] / job["fps"], 3)
        with self.changed:
            self.jobs[job["id"]] = job
            self._told()
        return job

    def cancel(self, job: dict) -> None:
        if job["status"] in FINAL:
            raise Refusal(409, "already_ended", f"the job is {job['status']}", "delete it to remove its files")
        self._end(job, "cancelled")

    def fail(self, job: dict, message: str) -> None:
        job["error"] = {"code": "failed", "message": message, "hint": "ask for fewer frames"}
        self._end(job, "failed")

    def finish(self, job: dict) -> None:
        if job["kind"] == "reconstruct":
            job["metrics"] = {"psnr_db": {"mean": 31.42}, "ssim": {"mean": 0.9213}, "compression_ratio": 96.0}
        job["progress"] = 100
        self._end(job, "completed")

    def _end(self, job: dict, status: str) -> None:
        now = int(time.time())
        with self.changed:
            job |= {"status": status, "stage": None, "completed_at": now, "expires_at": now + 604_800}
            job["started_at"] = job["started_at"] or now
            self._told()

    def _told(self) -> None:
        """Call with `changed` held: places in the queue follow from the order."""
        for place, job in enumerate(job for job in self.jobs.values() if job["status"] == "queued"):
            job |= {"queue_position": place, "estimated_wait_seconds": 4.0 * place + 2}
        for job in self.jobs.values():
            if job["status"] != "queued":
                job |= {"queue_position": None, "estimated_wait_seconds": None}
        self.changed.notify_all()

    def step(self) -> None:
        """The running job goes on by one step, or else the next one starts."""
        active = [job for job in list(self.jobs.values()) if job["status"] not in FINAL]
        running = [job for job in active if job["status"] == "in_progress"]
        if running:
            self._step(running[0])
        elif active:
            with self.changed:
                active[0] |= {"status": "in_progress", "started_at": int(time.time())}
                self._told()

    def step_to(self, status: str, stage: str | None = None) -> None:
        """Steps until some job stands like that."""
        while not any(
            job["status"] == status and stage in (None, job["stage"] and job["stage"]["name"])
            for job in list(self.jobs.values())  # the page may ask for another one meanwhile
        ):
            self.step()

    def _step(self, job: dict) -> None:
        steps = job["steps"] or 4
        first = ("text", 1) if job["kind"] == "generate" else ("encoding", 2)
        second = ("denoising", steps) if job["kind"] == "generate" else ("decoding", steps)
        parts = [first, second, ("decoding", 3), ("writing", 1)]
        path = [(name, done, total) for name, total in parts for done in range(total + 1)]
        now = (job["stage"]["name"], job["stage"]["done"], job["stage"]["total"]) if job["stage"] else None
        place = path.index(now) + 1 if now else 0
        if place == len(path):
            self.finish(job)
            return
        name, done, total = path[place]
        with self.changed:
            job |= {"stage": {"name": name, "done": done, "total": total}, "progress": 99 * place // len(path)}
            if name == "denoising" and job["kind"] == "generate":
                job["preview"] = max(1, 4 * done // total)
            self._told()
