"""Scans items in processes of their own, so that a decoder that crashes or hangs takes one file down and not the check.

Parent and child speak JSON, one line per item: no pickle, and nothing of the parent's main program is imported again.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from dataclasses import asdict
from pathlib import Path

from dcvideogen.data.index import Record, parse_record
from dcvideogen.data.items import Item
from dcvideogen.data.scan import measurement, scan
from dcvideogen.data.settings import CheckSettings

COMMAND = ("-m", __name__)
_SECONDS_TO_END = 5.0  # they are daemons, and a child ends with its parent's end of the pipe


def scan_all(
    items: Sequence[Item], root: Path, settings: CheckSettings, *, jobs: int, seconds_per_item: float
) -> Generator[Record, None, None]:
    """A record per item, in any order; closing it early ends the processes.

    jobs: processes; with 1 everything runs in this one, without a time limit.
    """
    if jobs == 1:
        for item in items:
            yield scan(item, root, settings)
        return
    todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in items:
        todo.put(item)
    done: queue.SimpleQueue[Record | BaseException] = queue.SimpleQueue()
    stop = threading.Event()
    workers = [_Worker(root, settings, seconds_per_item) for _ in range(min(jobs, len(items)))]

    def drive(worker: _Worker) -> None:
        try:
            while not stop.is_set():
                done.put(worker.scan(todo.get_nowait()))
        except queue.Empty:
            pass
        except BaseException as error:
            done.put(error)
        finally:
            worker.close()

    threads = [threading.Thread(target=drive, args=(worker,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        for _ in items:
            record = done.get()
            if isinstance(record, BaseException):
                raise record
            yield record
    except BaseException:
        # Ctrl-C, above all: what is being decoded is not waited for.
        stop.set()
        for worker in workers:
            worker.kill()
        raise
    finally:
        for thread in threads:
            thread.join(_SECONDS_TO_END)


class _Worker:
    """One child process, started when there is something to do and again after it died."""

    def __init__(self, root: Path, settings: CheckSettings, seconds: float) -> None:
        self.root, self.settings, self.seconds = root, settings, seconds
        self.process: subprocess.Popen[str] | None = None

    def scan(self, item: Item) -> Record:
        if self.process is None:
            self.process = _start(self.root, self.settings)
        timer = threading.Timer(self.seconds, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps({**asdict(item), "path": str(item.path)}) + "\n")
            self.process.stdin.flush()
            return parse_record(self.process.stdout.readline())
        except (OSError, ValueError):
            self.process.kill()
            code = self.process.wait()
            self.process = None
            timed_out = timer.finished.is_set()
            detail = f"took more than {self.seconds:g} s" if timed_out else f"its decoder crashed (exit code {code})"
            return Record.of(item, self.root, measured=measurement(self.settings), reason="corrupt", detail=detail)
        finally:
            timer.cancel()

    def kill(self) -> None:
        process = self.process
        if process is not None:
            process.kill()

    def close(self) -> None:
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()


def _start(root: Path, settings: CheckSettings) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, *COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    process.stdin.write(json.dumps({"root": str(root), "settings": settings.model_dump(mode="json")}) + "\n")
    return process


def _serve() -> None:
    # Ctrl-C is the parent's to handle: it closes our input, and we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    head = json.loads(sys.stdin.readline())
    root, settings = Path(head["root"]), CheckSettings.model_validate(head["settings"])
    for line in sys.stdin:
        values = json.loads(line)
        problem = None if values["problem"] is None else tuple(values["problem"])
        record = scan(Item(**{**values, "path": Path(values["path"]), "problem": problem}), root, settings)
        print(record.line(), flush=True)


if __name__ == "__main__":
    _serve()
