"""A worker that writes small files where a real one denoises and decodes: `python file_worker.py '{"data": FOLDER}'`.

It ends with its parent, as a real one does. Whatever must not happen (a file made twice, a job held by two) is a line
in FOLDER/violations.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import sys
import time
from pathlib import Path

from dcvideogen.serving.child import end_with_parent
from dcvideogen.serving.jobs import Stage
from dcvideogen.serving.work_queue import Lease, WorkQueue


def work(folder: Path) -> None:
    queue = WorkQueue(folder)
    while True:
        lease = queue.claim(["shapes-dc"], device=f"cpu {os.getpid()}")
        if lease is None:
            time.sleep(0.01)
            continue
        with (queue.files.job_folder(lease.job.id) / "held").open("a") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process
            except BlockingIOError:
                violation(folder, f"{lease.job.id} is held by two")
                continue
            make(folder, queue, lease)


def make(folder: Path, queue: WorkQueue, lease: Lease) -> None:
    job_id = lease.job.id
    for path, stage in ((queue.files.latents(job_id), Stage.DENOISING), (queue.files.video(job_id), Stage.DECODING)):
        if stage is Stage.DENOISING and queue.files.video(job_id).exists():
            continue  # the one before died after writing it
        if not path.exists():
            for step in range(2):
                queue.progress(lease, stage, step, 2)
                time.sleep(random.uniform(0, 0.006))
            write_once(folder, path, f"{job_id} {lease.job.request.seed} {stage}")
    queue.finish(lease)


def write_once(folder: Path, path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.write_text(text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        violation(folder, f"{path} was made twice")
    temporary.unlink()


def violation(folder: Path, text: str) -> None:
    with (folder / "violations").open("a") as file:
        file.write(text + "\n")


if __name__ == "__main__":
    end_with_parent()
    work(Path(json.loads(sys.argv[1])["data"]))
