"""What clients may send, as types, and how it becomes a job's request."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dcvideogen.serving.jobs import MAX_SEED, ImageId, JobRequest, Sides, Text
from dcvideogen.serving.request_error import RequestError
from dcvideogen.serving.settings import MODEL_NAME, ServedModel

Body = TypeVar("Body", bound=BaseModel)
SIZE = r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$"
Seconds = Annotated[float, Field(gt=0, le=10_000)]
SecondsText = Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,3})?$")]


class VideoBody(BaseModel):
    """A video that is wanted; what is left out is as the model recommends.

    size: "WIDTHxHEIGHT", or else height and width. seconds or num_frames: how long. image, last_image: ids of uploads.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Annotated[Text, Field(min_length=1, max_length=100_000)]
    model: Annotated[str, Field(pattern=MODEL_NAME)] | None = None
    negative_prompt: Annotated[Text, Field(max_length=100_000)] | None = None
    size: Annotated[str, Field(pattern=SIZE)] | None = None
    height: Sides | None = None
    width: Sides | None = None
    seconds: Seconds | SecondsText | None = None
    num_frames: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    guidance: Annotated[float, Field(ge=0, le=1000)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    image: ImageId | None = None
    last_image: ImageId | None = None


class ReconstructionBody(BaseModel):
    """A clip that shall go through an autoencoder and back. clip: the id of an upload."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: Annotated[str, Field(pattern=MODEL_NAME)]
    clip: Annotated[str, Field(pattern=r"^clip_[0-9a-f]{32}$")]


class Purpose(BaseModel):
    """The fields of an upload beside its file."""

    model_config = ConfigDict(extra="forbid")

    purpose: Literal["image", "clip"]


def invalid(message: str, hint: str = "see /openapi.json for what is allowed") -> RequestError:
    return RequestError("invalid_request", message, hint, 400)


def parsed(kind: type[Body], body: bytes) -> Body:
    """JSON to the type. RequestError 400 says where it is wrong, in words of ours and pydantic's."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise invalid(first_error(error)) from None


def parsed_fields(kind: type[Body], fields: dict[str, str]) -> Body:
    """A form's fields, which are all text, to the type."""
    try:
        return kind.model_validate_strings(fields)
    except ValidationError as error:
        raise invalid(first_error(error)) from None


def first_error(error: ValidationError) -> str:
    """In half a sentence, without the value that came: it may be long."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or re.fullmatch(r"\w{1,40}", part))
    told = first["msg"].removeprefix("Value error, ")
    return f"{where}: {told}" if where else told


def job_request(body: VideoBody, models: tuple[ServedModel, ...]) -> JobRequest:
    """Completed by the model's defaults. RequestError 400 for what does not go together, 404 for an unknown model."""
    model = chosen_model(body, models)
    values: dict[str, Any] = body.model_dump(exclude={"size", "seconds"}, exclude_none=True)
    values["model"] = model.name
    if body.size is not None:
        if body.height is not None or body.width is not None:
            raise invalid("size and height or width came; one way is enough")
        values["width"], values["height"] = (int(side) for side in body.size.split("x"))
    if (values.get("height") is None) != (values.get("width") is None):
        raise invalid("only one of height and width came; give both or neither")
    if body.seconds is not None:
        if body.num_frames is not None:
            raise invalid("seconds and num_frames came; one of them is enough")
        fps = body.fps or model.defaults.fps
        values["num_frames"] = max(1, round(float(body.seconds) * fps))
    try:
        return JobRequest.model_validate(values).completed(model.defaults)
    except ValidationError as error:
        raise invalid(first_error(error)) from None


def chosen_model(body: VideoBody, models: tuple[ServedModel, ...]) -> ServedModel:
    """The one that was named, or the first that makes such videos."""
    task = "t2v" if body.image is None else "i2v"
    if body.model is None:
        for model in models:
            if model.task == task:
                return model
        raise RequestError(
            "model_not_found", "this server has no model for that" + (" with an image" if body.image else ""),
            "ask /v1/models for those that it has", 404,
        )  # fmt: skip
    model = named_model(body.model, models)
    if model.task == "autoencoder":
        raise invalid(f"{model.name} is an autoencoder", "ask for a reconstruction, or name a model that makes videos")
    if model.task != task:
        came, hint = ("no image came", "give one") if task == "t2v" else ("an image came", "leave it out")
        raise invalid(f"{came}, and {model.name} makes videos from {_FROM[model.task]}", f"{hint}, or name another one")
    return model


def reconstruct_request(body: ReconstructionBody, models: tuple[ServedModel, ...]) -> JobRequest:
    model = named_model(body.model, models)
    if model.task != "autoencoder":
        raise invalid(f"{model.name} is no autoencoder", "name one of task autoencoder")
    return JobRequest(kind="reconstruct", model=model.name, clip=body.clip)


def named_model(name: str, models: tuple[ServedModel, ...]) -> ServedModel:
    for model in models:
        if model.name == name:
            return model
    raise RequestError(
        "model_not_found", "this server has no model of that name", "ask /v1/models for those that it has", 404
    )


_FROM = {"t2v": "text alone", "i2v": "an image and text"}
