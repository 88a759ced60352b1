"""Writes shards in several processes of one machine, which take the next shard whenever they have done one.

Parent and child speak JSON, one line per message: no pickle, and nothing of the parent's main program is imported
again. A child whose parent is killed ends after its shard.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from dcvideogen.adaptation.cache_plan import Plan, Progress
from dcvideogen.adaptation.cache_settings import CacheSettings
from dcvideogen.adaptation.cache_shards import write_shard
from dcvideogen.errors import UserError

COMMAND = ("-m", __name__)


def write_shards(
    settings: CacheSettings, place: Path, plan: Plan, shards: Sequence[int], workers: int, told: Progress
) -> None:
    """Writes these shards of the cache planned in `place`. told: clips done and to do, those of before included.

    Raises the first UserError of a worker, after ending the others. With several GPUs and device auto the workers go
    round them.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in shards:
        todo.put(index)
    messages: queue.SimpleQueue[dict | BaseException] = queue.SimpleQueue()
    children = [_start(settings, place, number) for number in range(min(workers, len(shards)))]

    def drive(child: subprocess.Popen[str]) -> None:
        try:
            while True:
                _write(child, todo.get_nowait(), messages)
        except queue.Empty:
            messages.put({"ended": True})
        except BaseException as error:
            messages.put(error)

    total = len(plan.clips)
    done = total - sum(plan.shards[i].stop - plan.shards[i].start for i in shards if plan.shards[i].kind == "clips")
    told(done, total)
    threads = [threading.Thread(target=drive, args=(child,), daemon=True) for child in children]
    for thread in threads:
        thread.start()
    running = len(children)
    try:
        while running:
            message = messages.get()
            if isinstance(message, BaseException):
                raise message
            running -= "ended" in message
            done += message.get("clips", 0)
            told(done, total)
    except BaseException:
        for child in children:
            child.kill()
        raise
    finally:
        for child in children:
            if child.poll() is None:
                child.stdin.close()
            child.wait()
            child.stdout.close()


def _write(child: subprocess.Popen[str], index: int, messages: queue.SimpleQueue) -> None:
    try:
        child.stdin.write(f"{index}\n")
        child.stdin.flush()
        while True:
            message = json.loads(child.stdout.readline())
            if "error" in message:
                raise UserError(message["error"])
            if "written" in message:
                return
            messages.put(message)
    except (OSError, json.JSONDecodeError) as error:
        code = child.wait()
        raise UserError(
            f"a worker ended (exit code {code}) while it wrote shard {index}; what is written stays: run the same "
            "command again, with fewer workers if memory was short"
        ) from error


def _start(settings: CacheSettings, place: Path, number: int) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, *COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    head = {"settings": settings.model_dump(mode="json"), "place": str(place), "number": number}
    child.stdin.write(json.dumps(head) + "\n")
    return child


def _serve() -> None:
    # Ctrl-C is the parent's to handle: it kills us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    head = json.loads(sys.stdin.readline())
    settings, place = CacheSettings.model_validate(head["settings"]), Path(head["place"])
    settings = settings.model_copy(update={"device": _device(settings.device, head["number"])})

    def say(**message: object) -> None:
        print(json.dumps(message), file=answers, flush=True)

    for line in sys.stdin:
        try:
            write_shard(settings, place, int(line), lambda clips: say(clips=clips))
            say(written=True)
        except UserError as error:
            say(error=str(error))


def _device(name: str, number: int) -> str:
    import torch

    count = torch.cuda.device_count() if name == "auto" and torch.cuda.is_available() else 0
    return f"cuda:{number % count}" if count else name


if __name__ == "__main__":
    _serve()
