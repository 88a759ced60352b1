"""Uploaded pictures and clips: taken in, read by a process that may do little, and kept as they were written anew."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from dcvideogen.serving.database import Database
from dcvideogen.serving.files import JobFiles
from dcvideogen.serving.jobs import Frozen, Sides, new_id
from dcvideogen.serving.limits import Limits, too_many
from dcvideogen.serving.request_error import RequestError, not_found
from dcvideogen.serving.upload_terms import (
    CLIP,
    DAMAGED,
    PICTURE,
    RESULT,
    TOO_EXPENSIVE,
    TOO_LARGE,
    UNSUPPORTED,
    UPLOAD,
)

logger = logging.getLogger("dcvideogen")

# HTTP status and what to do.
_REFUSALS = {
    UNSUPPORTED: (415, "send PNG, JPEG or WebP pictures, and H.264, HEVC, VP8, VP9, AV1 or MPEG-4 clips"),
    DAMAGED: (422, "send an intact file"),
    TOO_LARGE: (413, "make it smaller"),
    TOO_EXPENSIVE: (422, "send a smaller or simpler file"),
}
_MAX_RESULT = 10_000  # bytes: a broken-in child must not fill the server's memory
# What the interpreter and its libraries may need to start; nothing else of the server's environment (its secrets).
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class UploadFacts(Frozen):
    """Of the file that was kept. Pictures have one frame and no fps; shortened: whether a clip's end was left out."""

    height: Sides
    width: Sides
    num_frames: int = Field(default=1, ge=1)
    fps: Annotated[str, Field(pattern=r"^[0-9]+(/[0-9]+)?$")] | None = None
    shortened: bool = False


class Upload(Frozen):
    """An upload of a key. created: Unix seconds; it is kept for `Limits.upload_age_s`."""

    id: str
    facts: UploadFacts
    created: float


class _Result(Frozen):
    """What the child says. It has read a stranger's file, so that it is believed no more than that."""

    facts: UploadFacts | None = None
    refused: Literal["unsupported", "damaged", "too_large", "too_expensive"] | None = None
    message: str = Field(default="", max_length=300)


class Incoming:
    """An upload on its way, in a folder of its own: write what comes, piece by piece, then `Uploads.add`."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self._limits, self._num_bytes = limits, 0
        self._file = (folder / UPLOAD).open("wb")

    def write(self, piece: bytes) -> None:
        """RequestError 413 upload_too_large as soon as more has come than is allowed."""
        self._num_bytes += len(piece)
        self._limits.check_upload_bytes(self._num_bytes)
        self._file.write(piece)

    def close(self) -> None:
        self._file.close()


class Uploads:
    """The uploads of a data folder. One object per server process: it counts the readings that go on at once.

        with uploads.receive(key.id) as incoming:
            for piece in body:
                incoming.write(piece)
            upload = uploads.add(key.id, "image", incoming)      # seconds: in a worker thread, not in an event loop

    Names, types and lengths that a client tells are not asked for: what a file is, its bytes say.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._database = Database(folder)
        self._limits = limits
        self._readings = threading.BoundedSemaphore(limits.readings_at_once)
        self.files = JobFiles(folder)

    @contextmanager
    def receive(self, key_id: str) -> Iterator[Incoming]:
        """Room for one upload; whatever is in it goes when the context is left. 429 too_many_uploads: as in `add`."""
        with self._database.read() as db:
            self._check_room(db.execute("SELECT count(*), min(created) FROM uploads WHERE key_id = ?", (key_id,)))
        with self.files.incoming() as folder:
            incoming = Incoming(folder, self._limits)
            try:
                yield incoming
            finally:
                incoming.close()

    def add(self, key_id: str, kind: Literal["image", "clip"], incoming: Incoming) -> Upload:
        """Reads what has come, in a process of its own, and keeps what that wrote: a PNG, or H.264 in mp4.

        RequestError: 415 upload_unsupported, 422 upload_damaged, 413 upload_too_large, 422 upload_too_expensive (more
        memory, time or output than `Limits` allow); 429 too_many_uploads, 503 uploads_busy (others are being read).
        """
        incoming.close()
        if not self._readings.acquire(blocking=False):
            raise RequestError("uploads_busy", "other uploads are being read", "try again in 5 s", 503, 5)
        try:
            facts = _read(kind, incoming.folder, self._limits)
        finally:
            self._readings.release()
        upload = Upload(id=new_id(kind), facts=facts, created=time.time())
        kept = self.files.upload(upload.id)
        kept.parent.mkdir(parents=True, mode=0o700)
        try:
            os.replace(incoming.folder / (PICTURE if kind == "image" else CLIP), kept)
            with self._database.write(durable=True) as db:
                self._check_room(db.execute("SELECT count(*), min(created) FROM uploads WHERE key_id = ?", (key_id,)))
                db.execute(
                    "INSERT INTO uploads VALUES (?, ?, ?, ?)",
                    (upload.id, key_id, facts.model_dump_json(), upload.created),
                )
        except BaseException:
            self.files.remove_upload(upload.id)
            raise
        return upload

    def get(self, key_id: str, upload_id: str) -> Upload:
        """RequestError 404 not_found; its file is `files.upload(upload.id)`."""
        with self._database.read() as db:
            row = db.execute("SELECT * FROM uploads WHERE id = ? AND key_id = ?", (upload_id, key_id)).fetchone()
        if row is None:
            raise not_found("upload")
        return Upload(id=row["id"], facts=UploadFacts.model_validate_json(row["facts"]), created=row["created"])

    def delete(self, key_id: str, upload_id: str) -> None:
        """Jobs that were queued with it have their own copies. RequestError 404 not_found."""
        with self._database.write(durable=True) as db:
            if not db.execute("DELETE FROM uploads WHERE id = ? AND key_id = ?", (upload_id, key_id)).rowcount:
                raise not_found("upload")
        self.files.remove_upload(upload_id)

    def close(self) -> None:
        self._database.close()

    def _check_room(self, counted: Iterator[tuple[int, float | None]]) -> None:
        count, oldest = next(counted)
        if count >= self._limits.uploads_per_key:
            raise too_many(
                "too_many_uploads", f"{count} uploads of this key are kept, {self._limits.uploads_per_key} are allowed",
                "delete one, or wait until the oldest goes", oldest + self._limits.upload_age_s - time.time(),
            )  # fmt: skip


def _read(kind: str, folder: Path, limits: Limits) -> UploadFacts:
    """Starts the child and waits for it; its output lies in the folder afterwards."""
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _ONE_THREAD
    # Without a shell, and -I: neither variables nor files of the folder are taken for code.
    command = [sys.executable, "-I", "-m", "dcvideogen.serving.upload_child", kind, str(folder.absolute())]
    child = subprocess.Popen(
        [*command, limits.model_dump_json()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    try:
        child.wait(limits.reading_wall_s)
    except subprocess.TimeoutExpired:
        raise _refusal(TOO_EXPENSIVE, "it takes too long to be read") from None
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    result = _result(folder / RESULT)
    if result is not None and result.refused is not None:
        raise _refusal(result.refused, result.message)
    if result is None or result.facts is None or child.returncode != 0:
        logger.warning("the process that read an upload ended with %d and no result", child.returncode)
        # Killed at a limit, or by its own libraries when they got no memory or something that they had not foreseen.
        raise _refusal(TOO_EXPENSIVE, "it cannot be read within the limits of memory, time and size")
    return result.facts


def _result(path: Path) -> _Result | None:
    try:
        with path.open("rb") as file:
            return _Result.model_validate_json(file.read(_MAX_RESULT))
    except (OSError, ValueError, ValidationError):
        return None


def _refusal(code: str, message: str) -> RequestError:
    status, hint = _REFUSALS[code]
    return RequestError(f"upload_{code}", message, hint, status)
