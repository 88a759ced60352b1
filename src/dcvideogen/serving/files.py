"""Where the files of jobs and uploads lie: names are made of our own ids, never of what a client sent."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dcvideogen.pipelines.jobs import LATENTS_SUFFIX
from dcvideogen.serving.jobs import CLIP_ID, IMAGE_ID, JOB_ID
from dcvideogen.serving.upload_terms import CLIP, PICTURE

_COPIES = {"image": "image.png", "last_image": "last_image.png", "clip": CLIP}


@dataclass(frozen=True)
class Usage:
    """Bytes on disk by what they are for; what two share is counted twice."""

    jobs: int
    uploads: int
    incoming: int


class JobFiles:
    """The files of a data folder. Asking for a path makes nothing, except the job's folder with `adopt`.

        jobs/video_.../     video.mp4, video.latents.safetensors, preview.webp, metrics.json,
                            side_by_side.mp4,
                            image.png, last_image.png, clip.mp4 (copies of uploads)
        uploads/image_.../  picture.png          uploads/clip_.../  clip.mp4
        incoming/...        an upload while it comes and is read

    ValueError for an id that is not of our form: ids of clients must have been looked up in the database before.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def job_folder(self, job_id: str) -> Path:
        return self.folder / "jobs" / _checked(JOB_ID, job_id)

    def video(self, job_id: str) -> Path:
        """The finished video: H.264 in mp4. Whole or not there; a worker that finds it has only to finish the job."""
        return self.job_folder(job_id) / "video.mp4"

    def latents(self, job_id: str) -> Path:
        """What was denoised, until the video is written: where a job goes on whose worker died. As `Job.latents`."""
        return self.job_folder(job_id) / f"video{LATENTS_SUFFIX}"

    def preview(self, job_id: str) -> Path:
        """The latest preview, WebP, perhaps moving; replaced as a whole."""
        return self.job_folder(job_id) / "preview.webp"

    def side_by_side(self, job_id: str) -> Path:
        """Of a reconstruction: the clip and beside it what came back; H.264 in mp4."""
        return self.job_folder(job_id) / "side_by_side.mp4"

    def metrics(self, job_id: str) -> Path:
        """Of a reconstruction: its measures as JSON."""
        return self.job_folder(job_id) / "metrics.json"

    def copy(self, job_id: str, name: str) -> Path:
        """The job's own copy of an upload. name: the field of the request, "image", "last_image" or "clip"."""
        return self.job_folder(job_id) / _COPIES[name]

    def upload(self, upload_id: str) -> Path:
        """The picture (PNG) or clip (H.264 in mp4) of an upload, as it was written anew here."""
        name = PICTURE if re.match(IMAGE_ID, upload_id) else CLIP
        return self.folder / "uploads" / _checked(f"{IMAGE_ID}|{CLIP_ID}", upload_id) / name

    def adopt(self, job_id: str, uploads: Mapping[str, str]) -> None:
        """Makes the job's folder, with copies of its uploads by field, which outlive the uploads.

        Links to the same bytes where the disk can. FileNotFoundError: an upload is gone.
        """
        folder = self.job_folder(job_id)
        folder.mkdir(parents=True, mode=0o700)
        for name, upload_id in uploads.items():
            try:
                os.link(self.upload(upload_id), folder / _COPIES[name])
            except FileNotFoundError:
                raise
            except OSError:
                shutil.copyfile(self.upload(upload_id), folder / _COPIES[name])

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A new folder for an upload that comes; gone with all that is in it when the context is left."""
        folder = self.folder / "incoming" / secrets.token_hex(16)
        folder.mkdir(parents=True, mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def drop_latents(self, job_id: str) -> None:
        """Of a job that ended: nobody goes on from them. No error if there are none."""
        self.latents(job_id).unlink(missing_ok=True)

    def remove_job(self, job_id: str) -> None:
        """Its folder with all files; no error if there is none."""
        _remove(self.job_folder(job_id))

    def remove_upload(self, upload_id: str) -> None:
        """Its folder; copies that jobs have stay."""
        _remove(self.upload(upload_id).parent)

    def job_bytes(self, job_id: str) -> int:
        """Of all its files; 0 if there are none."""
        return _bytes_under(self.job_folder(job_id))

    def usage(self) -> Usage:
        """Counted now, by a walk over all files."""
        return Usage(*(_bytes_under(self.folder / name) for name in ("jobs", "uploads", "incoming")))


def _checked(form: str, text: str) -> str:
    # `$` also matches before a line's end, which fullmatch does not allow.
    if not re.fullmatch(form, text):
        raise ValueError(f"{text!r} is no id of ours")
    return text


def _remove(folder: Path) -> None:
    """Out of sight first: nobody reads a folder that is half removed, and a sweep removes it if this process dies."""
    hidden = folder.with_name(f".{folder.name}.removed")
    try:
        folder.rename(hidden)
    except FileNotFoundError:
        return
    shutil.rmtree(hidden, ignore_errors=True)


def _bytes_under(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue  # removed meanwhile
    return total
