"""Around every request: whom a browser sends it for, its number, the headers of every answer, and the last resort."""

from __future__ import annotations

import logging
import re
import secrets
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dcvideogen.serving.request_error import RequestError
from dcvideogen.serving.settings import ServeSettings

log = logging.getLogger("dcvideogen")

# The page brings all it needs: its own files, pictures and films that it made of what it fetched.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware. counts: of answers by ("requests", method, route, status), for metrics.

    On loopback without keys anyone whose browser runs here could be made to send requests: those for another site
    (Sec-Fetch-Site, Origin) are refused, and those for another host's name (DNS rebinding). With keys there is nothing
    that a browser adds by itself, so nothing to refuse.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, counts: Counter) -> None:
        self._app, self._settings, self._counts = app, settings, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        number, started = secrets.token_hex(8), False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = {"x-request-id": number, **{name.lower(): text for name, text in HEADERS.items()}}
                there = {name.lower() for name, _ in message["headers"]}
                own.setdefault("cache-control", "no-store")
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), text.encode()) for name, text in own.items() if name.encode() not in there),
                ]
                self._note(scope, message["status"])
            await send(message)

        try:
            refused = None if self._settings.keys_required else cross_site(scope, self._settings.own_hosts)
            if refused is not None:
                response = JSONResponse(refused.body(), refused.http_status)
                await response(scope, receive, answer)
                return
            await self._app(scope, receive, answer)
        except Exception:
            log.exception("request %s failed", number)
            if started:
                raise
            error = RequestError(
                "internal_error", "the server failed at this request",
                f"try again, or tell the operator the request's number {number}", 500,
            )  # fmt: skip
            await JSONResponse(error.body(), 500)(scope, receive, answer)

    def _note(self, scope: Scope, status: int) -> None:
        route = getattr(scope.get("route"), "path", "other")  # never a client's text: it would be a label without end
        method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "HEAD") else "other"
        self._counts["requests", method, route, status] += 1


def cross_site(scope: Scope, own_hosts: frozenset[str]) -> RequestError | None:
    """Why a request may not come from where it says, or None. A page of another site may link to ours, no more."""
    headers: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.lower(), []).append(value.decode("latin-1").strip().lower())
    hosts = headers.get(b"host", [])
    if len(hosts) != 1 or hosts[0] not in own_hosts:
        return _forbidden("foreign_host", "the request is for another host's name", "open the address that it printed")
    for origin in headers.get(b"origin", []):
        if not _is_own(origin, own_hosts):
            return _forbidden("cross_site", "another site sent the request", "open this server's own page")
    linked = scope["path"] == "/" and scope["method"] == "GET" and headers.get(b"sec-fetch-mode") == ["navigate"]
    for site in headers.get(b"sec-fetch-site", []):
        if site not in ("same-origin", "none") and not linked:
            return _forbidden("cross_site", "another site sent the request", "open this server's own page")
    return None


def _is_own(origin: str, own_hosts: frozenset[str]) -> bool:
    try:
        parts: Any = urlsplit(origin)
    except ValueError:
        return False
    return bool(re.fullmatch(r"https?://[^/]+", origin)) and parts.netloc in own_hosts


def _forbidden(code: str, message: str, hint: str) -> RequestError:
    return RequestError(code, message, hint, 403)
