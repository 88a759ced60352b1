"""The page's files and a stand-in for the server behind them: the HTTP contract with jobs that only count.

The page can be tried by hand without a model: `python tests/serving/page_server.py [PORT] [KEY]`.
"""

from __future__ import annotations

import email
import email.policy
import json
import re
import secrets
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from page_films import film, preview
from page_jobs import FINAL, MODELS, CannedJobs, Refusal

PAGE = Path(__file__).parents[2] / "src" / "dcvideogen" / "serving" / "page"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# The real server's, which a test compares.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)


class PageServer(CannedJobs):
    """One worker that takes `pace` seconds for each step. `held` set: nothing moves. key: asked for, if there is one.

    Jobs are kept over `stop` and `start`. seen, posted: requests, and their JSON, for tests.
    """

    def __init__(self, *, port: int = 0, pace: float = 0.05, key: str | None = None) -> None:
        super().__init__()
        self.port, self.pace, self.key = port, pace, key
        self.seen: list[tuple[str, str]] = []
        self.posted: list[tuple[str, dict]] = []
        self.held = threading.Event()
        self._ended = threading.Event()
        self._http: ThreadingHTTPServer | None = None

    def start(self) -> PageServer:
        handler = type("Handler", (Handler,), {"server_state": self})
        self._ended = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._http.daemon_threads, self._http.block_on_close = True, False
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        threading.Thread(target=self._work, args=(self._ended,), daemon=True).start()
        return self

    def stop(self) -> None:
        self._ended.set()
        with self.changed:
            self.changed.notify_all()  # ends the event streams
        self._http.shutdown()
        self._http.server_close()

    @property
    def running(self) -> bool:
        return not self._ended.is_set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def _work(self, ended: threading.Event) -> None:
        while not ended.wait(self.pace):
            if not self.held.is_set():
                self.step()


class Handler(BaseHTTPRequestHandler):
    server_state: PageServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        address = urlsplit(self.path)
        if not self.server_state.running:  # a connection that outlived the server
            self.close_connection = True
            return
        self.server_state.seen.append((self.command, self.path))
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if body and self.headers.get("Content-Type") == "application/json":
                self.server_state.posted.append((address.path, json.loads(body)))
            if address.path == "/" or address.path.startswith("/page/"):
                self._file(address.path.removeprefix("/page/").strip("/") or "index.html")
            elif address.path == "/healthz":
                self._json({"status": "ok"})
            else:
                self._api(address.path, {name: values[0] for name, values in parse_qs(address.query).items()}, body)
        except Refusal as error:
            detail = {"code": error.code, "message": error.message, "hint": error.hint, "type": "invalid_request_error"}
            self._json({"error": detail}, error.status)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _api(self, path: str, query: dict[str, str], body: bytes) -> None:
        state = self.server_state
        if state.key and self.headers.get("Authorization") != f"Bearer {state.key}":
            raise Refusal(401, "invalid_key", "this API key is not valid here", "send a valid one")
        match (self.command, path):
            case ("GET", "/v1/models"):
                self._json({"object": "list", "data": MODELS})
            case ("POST", "/v1/plan"):
                self._json(self._plan(json.loads(body)))
            case ("POST", "/v1/uploads"):
                self._json(self._upload(body))
            case ("POST", "/v1/videos"):
                self._json(state.add(json.loads(body)))
            case ("POST", "/v1/reconstructions"):
                self._json(state.add(json.loads(body), "reconstruct"))
            case ("GET", "/v1/videos"):
                self._json(self._list(query))
            case _:
                found = re.fullmatch(r"/v1/videos/(video_[0-9a-f]{32})(/\w+)?", path)
                job = state.jobs.get(found[1]) if found else None
                if job is None:
                    raise Refusal(404, "not_found", "there is no job of this id", "check the id; old ones are removed")
                self._job(job, found[2], query)

    def _job(self, job: dict, part: str | None, query: dict[str, str]) -> None:
        state = self.server_state
        match (self.command, part):
            case ("GET", None):
                self._json(job)
            case ("GET", "/events"):
                self._events(job)
            case ("GET", "/content"):
                self._content(job, query.get("variant", "video"))
            case ("POST", "/cancel"):
                state.cancel(job)
                self._json(job)
            case ("DELETE", None):
                ended = job["status"] in FINAL
                if ended:
                    del state.jobs[job["id"]]
                else:
                    state.cancel(job)
                self._json({"id": job["id"], "object": "video.deleted", "deleted": ended})

    def _plan(self, body: dict) -> dict:
        width, height = map(int, body["size"].split("x"))
        tokens = width * height * body["num_frames"] // (64 if body["model"] == "shapes-base" else 2048)
        waiting = [job for job in self.server_state.jobs.values() if job["status"] == "queued"]
        warnings = ["Frames beyond 97 were not seen in training"] if body["num_frames"] > 97 else []
        return {
            "memory_bytes": 400 * 2**20 + 4 * width * height * body["num_frames"], "seconds": tokens / 1000 + 0.8,
            "tokens": tokens, "plan": "whole", "fits": body["num_frames"] < 1000, "warnings": warnings,
            "queue_position": len(waiting), "estimated_wait_seconds": 4.0 * len(waiting),
        }  # fmt: skip

    def _upload(self, body: bytes) -> dict:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        form = email.message_from_bytes(head + body, policy=email.policy.default)
        fields = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        purpose = fields["purpose"].get_content().strip()
        if b"broken" in fields["file"].get_payload(decode=True)[:20]:
            raise Refusal(422, "upload_damaged", "the file cannot be read", "send an intact file")
        upload_id = f"{purpose}_{secrets.token_hex(16)}"
        self.server_state.uploads.add(upload_id)
        now = int(time.time())
        return {
            "id": upload_id, "object": "upload", "purpose": purpose, "width": 160, "height": 96, "shortened": False,
            "num_frames": 1 if purpose == "image" else 33, "fps": None if purpose == "image" else "12",
            "created_at": now, "expires_at": now + 3600,
        }  # fmt: skip

    def _list(self, query: dict[str, str]) -> dict:
        jobs = list(self.server_state.jobs.values())[::-1]
        ids, limit = [job["id"] for job in jobs], int(query.get("limit", 20))
        start = ids.index(query["after"]) + 1 if "after" in query else 0
        page = jobs[start : start + limit]
        return {
            "object": "list", "data": page, "has_more": len(jobs) > start + limit,
            "first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None,
        }  # fmt: skip

    def _content(self, job: dict, variant: str) -> None:
        width, height = map(int, (job["size"] or "160x96").split("x"))
        if variant == "preview" and job["preview"]:
            self._bytes(preview(job["prompt"], width, height, job["preview"]), "image/webp")
        elif job["status"] != "completed":
            raise Refusal(409, "not_ready", "there is no video yet", "wait until it is completed")
        else:
            beside = variant == "side_by_side"
            frames, fps = min(33, job["num_frames"] or 33), job["fps"] or 12
            self._bytes(film(job["prompt"] or "red", width, height, frames, fps, beside=beside), "video/mp4")

    def _events(self, job: dict) -> None:
        state, told = self.server_state, None
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        while state.running:
            with state.changed:
                now, ended = json.dumps(job), job["status"] in FINAL
                if now == told:
                    state.changed.wait(1)
                    continue
            told = now
            self.wfile.write(f"event: job\r\ndata: {now}\r\n\r\n: still here\r\n\r\n".encode())
            self.wfile.flush()
            if ended:
                return

    def _file(self, name: str) -> None:
        path = PAGE / name
        if path.name != name or not path.is_file():
            raise Refusal(404, "not_found", "there is no such file", "look at /")
        self._bytes(path.read_bytes(), TYPES[path.suffix])

    def _json(self, value: dict, status: int = 200) -> None:
        with self.server_state.changed:
            text = json.dumps(value)
        self._bytes(text.encode(), "application/json", status)

    def _bytes(self, content: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    port, *key = sys.argv[1:] or ["8001"]
    server = PageServer(port=int(port), pace=0.4, key=key[0] if key else None).start()
    print(server.url)
    threading.Event().wait()
