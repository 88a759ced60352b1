"""Bodies of requests, read piece by piece within limits: nothing is held before it is known to be small."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from dcvideogen.serving.limits import MIB, size_in_words
from dcvideogen.serving.request_error import RequestError
from dcvideogen.serving.wanted import invalid

MAX_JSON = MIB  # the longest prompts that any limit allows, in JSON's longest way to write them
MAX_FIELD, MAX_FIELDS = 512 * 1024, 32  # bytes and number of a form's fields
FORM_ROOM = 64 * 1024  # for a form's headers and boundaries, beside file and fields
# Of a part's headers, of which we read one: name and file name.
MAX_HEADERS, MAX_HEADER = 8, 4096
STALL_S, TOTAL_S = 30.0, 900.0  # without a byte; for a whole body: sockets are not held for those who trickle


def media_type(request: Request) -> tuple[str, dict[bytes, bytes]]:
    """("application/json", options) of Content-Type."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    return kind.decode("latin-1").lower(), options


def unsupported_media(allowed: str) -> RequestError:
    return RequestError("unsupported_media_type", f"Content-Type is not {allowed}", f"send {allowed}", 415)


async def read_json(request: Request) -> bytes:
    """At most MAX_JSON bytes. RequestError: 415 another type, 413 too many, 408 too slow."""
    if media_type(request)[0] != "application/json":
        raise unsupported_media("application/json")
    body = bytearray()
    async for piece in pieces(request, MAX_JSON):
        body += piece
    return bytes(body)


async def pieces(request: Request, most: int) -> AsyncIterator[bytes]:
    """The body as it comes. RequestError 413 from Content-Length, or as soon as there is more; 408 when it stalls."""
    too_large = RequestError(
        "body_too_large", f"more than {size_in_words(most)} came, that much is allowed", "send less", 413
    )
    length = request.headers.get("content-length", "")
    if length.isdigit() and (len(length) > 15 or int(length) > most):
        raise too_large
    came, began, stream = 0, time.monotonic(), request.stream().__aiter__()
    while True:
        try:
            with anyio.fail_after(min(STALL_S, began + TOTAL_S - time.monotonic())):
                piece = await stream.__anext__()
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise RequestError("too_slow", "the body did not come in time", "send it faster, or less", 408) from None
        came += len(piece)
        if came > most:
            raise too_large
        yield piece


async def read_form(request: Request, file_field: str, write: Callable[[bytes], object], most: int) -> Form:
    """A multipart form: its fields, and of its one file what goes to `write`, in a worker thread.

    most: bytes of the file. RequestError: 400 malformed, too many or too large fields, a file in another field or a
    second one; what `write` raises; as `pieces`.
    """
    kind, options = media_type(request)
    if kind != "multipart/form-data":
        raise unsupported_media("multipart/form-data")
    form = Form(file_field, write)
    try:
        parser = MultipartParser(
            options.get(b"boundary", b""), form.callbacks(), max_header_count=MAX_HEADERS, max_header_size=MAX_HEADER
        )
        if len(parser.boundary) <= len(b"\r\n--"):
            raise invalid("the form has no boundary")
        async for piece in pieces(request, most + MAX_FIELD + FORM_ROOM):
            if piece:
                await run_in_threadpool(parser.write, piece)
        parser.finalize()
    except (FormParserError, ValueError):
        raise invalid("the form is malformed", "send multipart/form-data as browsers and curl -F do") from None
    if not form.ended:
        raise invalid("the form ends too early", "send it as a whole")
    return form


class Form:
    """What is known of a form so far. fields: text by name; has_file: whether `file_field` came as a file."""

    def __init__(self, file_field: str, write: Callable[[bytes], object]) -> None:
        self._file_field, self._write = file_field, write
        self.fields: dict[str, str] = {}
        self.has_file = self.ended = False
        self._parts = self._size = 0
        self._header, self._value, self._headers = bytearray(), bytearray(), {}
        self._name, self._text = "", bytearray()
        self._to_file = False

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_FIELDS:
            raise invalid(f"the form has more than {MAX_FIELDS} fields")
        self._headers, self._text, self._to_file = {}, bytearray(), False

    def _header_end(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _headers_end(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if kind != b"form-data" or b"name" not in options:
            raise invalid("a part of the form has no name")
        self._name = options[b"name"].decode("utf-8", "replace")
        # The file's own name is not looked at: it is a client's text, and nothing here is named by it.
        self._to_file = self._name == self._file_field
        if self._to_file and self.has_file:
            raise invalid(f"{self._file_field} came twice")
        if not self._to_file and (b"filename" in options or self._name in self.fields or len(self._name) > 100):
            raise invalid("a field came twice, is a file, or is unknown")
        self.has_file = self.has_file or self._to_file

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._to_file:
            self._write(data[start:end])
            return
        self._size += end - start
        if self._size > MAX_FIELD:
            raise RequestError(
                "body_too_large", f"the form's fields have more than {size_in_words(MAX_FIELD)}", "send less", 413
            )
        self._text += data[start:end]

    def _part_end(self) -> None:
        if self._to_file:
            return
        try:
            self.fields[self._name] = self._text.decode("utf-8")
        except UnicodeDecodeError:
            raise invalid("a field of the form is not UTF-8") from None

    def _end(self) -> None:
        self.ended = True
