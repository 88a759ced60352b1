"""The error that a client can mend, or wait out."""

from __future__ import annotations

from typing import Any

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class RequestError(Exception):
    """A refused request: what came and what is allowed (`message`), what to do (`hint`), and a `code` for programs.

    http_status: of the answer. retry_after: whole seconds until the same request may succeed, for the header of that
    name (429 and 503); None where waiting does not help. Message and hint hold nothing of the server's inside (paths,
    other keys' ids) and may be shown as they are.
    """

    def __init__(self, code: str, message: str, hint: str, http_status: int, retry_after: int | None = None) -> None:
        super().__init__(f"{message}; {hint}")
        self.code = code
        self.message = message
        self.hint = hint
        self.http_status = http_status
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The JSON answer: {"error": {...}} with `message`, `type` and `code` where OpenAI's clients look for them."""
        kind = _TYPES.get(self.http_status, "server_error" if self.http_status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "code": self.code, "hint": self.hint}}

    def headers(self) -> dict[str, str]:
        """`Retry-After` where waiting helps."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def not_found(what: str) -> RequestError:
    """Of an id that does not exist, or that is another key's: the answer does not tell which."""
    return RequestError("not_found", f"there is no {what} of this id", "check the id; old ones are removed", 404)
