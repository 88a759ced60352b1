"""How much a client may ask for, and the refusals that say so."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dcvideogen.serving.jobs import Frozen, JobRequest
from dcvideogen.serving.request_error import RequestError

MIB, GIB = 2**20, 2**30


class Limits(Frozen):
    """All limits of a server; each check raises a RequestError that says what came and what is allowed.

    Queue: queue_length: queued jobs of all keys together; queued_per_key: of one key (its own quota goes first);
    videos_per_day: accepted per key and UTC day, None: any number. `LOCAL_KEY` is held by queue_length alone.
    A request: prompt_chars: of prompt and of negative prompt each; video_pixels: frames x height x width (the default
    is 145 frames of 1280x720); steps.
    Uploads: upload_bytes: as they come; upload_pixels: of one picture, counted before it is decoded; picture_side,
    clip_side: what is longer is made smaller; clip_frames: what is longer is cut; uploads_per_key, upload_age_s: how
    many are kept, and for how many seconds (a job has its own copy). Their reading, in a process of its own:
    reading_memory_bytes (address space), reading_cpu_s, reading_wall_s, reading_output_bytes, and readings_at_once.
    Measured: 0.2 s to start, 0.07 s for a frame of 1080 lines, 0.1 s for one of 2160, up to 0.53 GB resident.
    Outputs: output_age_s: how many seconds after its end a job is kept; output_bytes: of all jobs' files together,
    beyond which the oldest finished ones go.
    """

    queue_length: int = Field(default=100, ge=1)
    queued_per_key: int = Field(default=20, ge=1)
    videos_per_day: int | None = Field(default=None, ge=1)
    prompt_chars: int = Field(default=2_000, ge=1)
    video_pixels: int = Field(default=2**27, ge=1)
    steps: int = Field(default=100, ge=1)
    upload_bytes: int = Field(default=64 * MIB, ge=1)
    upload_pixels: int = Field(default=50_000_000, ge=1)
    picture_side: int = Field(default=2048, ge=16)
    clip_side: int = Field(default=1280, ge=16)
    clip_frames: int = Field(default=129, ge=1)
    uploads_per_key: int = Field(default=50, ge=1)
    upload_age_s: float = Field(default=6 * 3600, gt=0)
    reading_memory_bytes: int = Field(default=3 * GIB // 2, ge=1)
    reading_cpu_s: int = Field(default=30, ge=1)
    reading_wall_s: float = Field(default=60, gt=0)
    reading_output_bytes: int = Field(default=256 * MIB, ge=1)
    readings_at_once: int = Field(default=2, ge=1)
    output_age_s: float = Field(default=7 * 86_400, gt=0)
    output_bytes: int = Field(default=20 * GIB, ge=1)

    def check_request(self, request: JobRequest) -> None:
        """Of a completed request (`JobRequest.completed`; ValueError for another one).

        RequestError 400: prompt_too_long, video_too_large, too_many_steps.
        """
        for name, text in (("prompt", request.prompt), ("negative prompt", request.negative_prompt or "")):
            if len(text) > self.prompt_chars:
                raise RequestError(
                    "prompt_too_long", f"the {name} has {len(text)} characters, up to {self.prompt_chars} are allowed",
                    "say it in fewer words", 400,
                )  # fmt: skip
        if request.kind == "reconstruct":
            return  # its clip was cut to size when it was uploaded
        height, width, num_frames, steps = request.height, request.width, request.num_frames, request.steps
        if height is None or width is None or num_frames is None or steps is None:
            raise ValueError("fill in the model's defaults first, with JobRequest.completed")
        pixels = num_frames * height * width
        if pixels > self.video_pixels:
            raise RequestError(
                "video_too_large",
                f"{num_frames} frames of {width}x{height} are {pixels:,} pixels, up to {self.video_pixels:,} are "
                "allowed",
                f"ask for {max(1, self.video_pixels // (height * width))} frames of this size, or for smaller ones"
                if height * width <= self.video_pixels
                else "ask for smaller frames",
                400,
            )
        if steps > self.steps:
            raise RequestError(
                "too_many_steps", f"{steps} steps came, up to {self.steps} are allowed", "ask for fewer steps", 400
            )

    def check_upload_bytes(self, num_bytes: int) -> None:
        """Of a Content-Length, or of what has come so far. RequestError 413: upload_too_large."""
        if num_bytes > self.upload_bytes:
            raise RequestError(
                "upload_too_large", f"more than {size_in_words(self.upload_bytes)} came, that much is allowed",
                "make the file smaller", 413,
            )  # fmt: skip


def too_many(code: str, message: str, hint: str, wait_s: float | None) -> RequestError:
    """A 429: wait_s: the estimate of how long until there is room; None: unknown, then 30 s are said; 1 s to 1 day."""
    seconds = 30 if wait_s is None else min(86_400, max(1, round(wait_s)))
    return RequestError(code, message, f"{hint}; try again in {in_words(seconds)}", 429, seconds)


def in_words(seconds: float) -> str:
    """As people say it, in the unit that fits: "40 s", "5 min", "3 h"."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {unit}"
    return f"{round(seconds)} s"


def size_in_words(num_bytes: int) -> str:
    """ "64 MiB"."""
    amount: Any = num_bytes
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.4g} {unit}"
        amount /= 1024
    return f"{amount:.4g} GiB"
