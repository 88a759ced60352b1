"""What is asked of the server, and what becomes of it: plain values without behaviour."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

# Ids are made here alone; clients' texts are compared with these before anything else is done with them.
JOB_ID = r"^video_[0-9a-f]{32}$"
IMAGE_ID = r"^image_[0-9a-f]{32}$"
CLIP_ID = r"^clip_[0-9a-f]{32}$"
# The largest whole number that JavaScript keeps exactly: a seed must survive a web page.
MAX_SEED = 2**53 - 1


def _unicode(text: str) -> str:
    """JSON can write halves of surrogate pairs, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text is not valid Unicode; send it as UTF-8") from None
    return text


Text = Annotated[str, AfterValidator(_unicode)]
ImageId = Annotated[str, Field(pattern=IMAGE_ID)]
Sides = Annotated[int, Field(ge=1, le=100_000)]


def new_id(prefix: Literal["video", "image", "clip"]) -> str:
    """128 random bits: nobody finds another's by trying."""
    return f"{prefix}_{secrets.token_hex(16)}"


class Frozen(BaseModel):
    """Fields cannot be changed, and unknown ones are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VideoDefaults(Frozen):
    """What a model makes when it is not told: pixels, frames, frames per second, denoising steps."""

    height: Sides
    width: Sides
    num_frames: int = Field(ge=1)
    fps: float = Field(gt=0, le=1000)
    steps: int = Field(ge=1)
    guidance: float = Field(ge=0)
    negative_prompt: Text = ""


class JobRequest(Frozen):
    """What is asked for. A pydantic ValidationError for what cannot be; how much is allowed is `Limits`' business.

    kind: "generate" (prompt, and first and last picture if given) or "reconstruct" (`clip` through an autoencoder).
    model: a served name, never a path. image, last_image, clip: ids of uploads of the same key. height, width: pixels;
    fps: frames per second; steps: of denoising; guidance: 1 and below: none; seed: None: drawn when queued, then kept.
    What is None is the model's (`completed`).
    """

    kind: Literal["generate", "reconstruct"] = "generate"
    model: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    prompt: Text = ""
    negative_prompt: Text | None = None
    image: ImageId | None = None
    last_image: ImageId | None = None
    clip: Annotated[str, Field(pattern=CLIP_ID)] | None = None
    height: Sides | None = None
    width: Sides | None = None
    num_frames: int | None = Field(default=None, ge=1, le=1_000_000)
    fps: float | None = Field(default=None, gt=0, le=1000)
    steps: int | None = Field(default=None, ge=1, le=1_000_000)
    guidance: float | None = Field(default=None, ge=0, le=1000)
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.kind == "generate":
            if not self.prompt.strip():
                raise ValueError("the prompt is empty; say in words what should be seen")
            if self.clip is not None:
                raise ValueError('a clip is for kind "reconstruct"; leave it out')
            if self.last_image is not None and self.image is None:
                raise ValueError("a last image needs a first one; give `image` too")
        else:
            if self.clip is None:
                raise ValueError('kind "reconstruct" needs `clip`, the id of an uploaded clip')
            given = self.model_fields_set - {"kind", "model", "clip", "seed"}
            if any(getattr(self, name) not in (None, "") for name in given):
                raise ValueError('kind "reconstruct" takes `model` and `clip` alone; leave the rest out')
        return self

    def completed(self, defaults: VideoDefaults) -> JobRequest:
        """The same with the model's defaults for what is None; a reconstruction stays as it is (the clip decides)."""
        if self.kind == "reconstruct":
            return self
        missing = {name: value for name, value in defaults if getattr(self, name) is None}
        return self.model_copy(update=missing)

    def seeded(self) -> JobRequest:
        """The same with a seed: its own, or one drawn now (32 bits: short enough to be read and typed)."""
        return self if self.seed is not None else self.model_copy(update={"seed": secrets.randbits(32)})

    def uploads(self) -> dict[str, str]:
        """Ids of the uploads that it needs, by field: "image", "last_image", "clip"."""
        names = ("image", "last_image", "clip")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class Status(StrEnum):
    """The words of OpenAI's video API, and `cancelled`."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Nothing more happens to the job."""
        return self not in (Status.QUEUED, Status.IN_PROGRESS)


class Stage(StrEnum):
    """What a running job is at, in this order: text and denoising of a generation, encoding of a reconstruction."""

    TEXT = "text"
    DENOISING = "denoising"
    ENCODING = "encoding"
    DECODING = "decoding"
    WRITING = "writing"


# Shares of the time in percent, for one bar over all stages; rough, and only the bar depends on them.
_SHARES = {
    "generate": {Stage.TEXT: 2, Stage.DENOISING: 78, Stage.DECODING: 15, Stage.WRITING: 5},
    "reconstruct": {Stage.ENCODING: 40, Stage.DECODING: 50, Stage.WRITING: 10},
}


@dataclass(frozen=True)
class Progress:
    """stage, and how far it is: `done` of `total` steps or frames, 0 <= done <= total, total >= 1."""

    stage: Stage
    done: int
    total: int


@dataclass(frozen=True)
class JobFailure:
    """Why a job failed: a code for programs, what happened, what to do."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True)
class Job:
    """One job as it stands; two readings are equal when nothing changed between them.

    number: rising in the order of queueing, of all keys together: never show it to a client. key_id: whose it is.
    created, started, finished: Unix seconds; started: the latest start. seconds: of work in the run that completed it.
    progress: while it runs. preview: rises by one with each new preview file; 0: there is none. deaths: how often its
    worker died under it. cancel_requested: a running one will stop soon. num_bytes: of the finished video.
    device: of the worker that took it last, in its own words: for the operator.
    """

    id: str
    number: int
    key_id: str
    request: JobRequest
    status: Status
    created: float
    started: float | None
    finished: float | None
    seconds: float | None
    progress: Progress | None
    preview: int
    deaths: int
    cancel_requested: bool
    failure: JobFailure | None
    num_bytes: int | None
    device: str | None

    @property
    def percent(self) -> int:
        """0 to 100 over all stages, for one bar; 100 is kept for a completed job."""
        if self.status is Status.COMPLETED:
            return 100
        shares = _SHARES[self.request.kind]
        if self.progress is None or self.progress.stage not in shares:
            return 0
        stages = list(shares)
        before = sum(shares[stage] for stage in stages[: stages.index(self.progress.stage)])
        return min(99, int(before + shares[self.progress.stage] * self.progress.done / self.progress.total))
