"""Two hundred requests that no well-meaning client sends: (what it tries, method, path, what httpx is told)."""

from __future__ import annotations

import json

JSON = {"Content-Type": "application/json"}
NOBODYS = "video_" + 32 * "0"


def all_requests() -> list[tuple[str, str, str, dict]]:
    return [
        *traversals(), *variants(), *ids(), *queries(), *bodies(), *fields(), *forms(), *uploads(), *methods(), *keys()
    ]  # fmt: skip


def traversals():
    """Paths out of the page's and the videos' folders."""
    names = (
        "..%2f..%2fserving.sqlite3", "%2e%2e/%2e%2e/app.py", "..%5c..%5capp.py", "....//....//app.py", "%00index.html",
        "index.html%00.png", "/etc/passwd", "%2fetc%2fpasswd", "..%2f", ".", "%2e", "%252e%252e%252fapp.py",
        "index.html/", "file:///etc/passwd", "http://127.0.0.1/", "C:%5cwindows%5cwin.ini", "\u2025/app.py",
        "index.html;x", "~root", "INDEX.HTML", ".index.html", "style.css%20", "__init__.py", "a" * 5000,
    )  # fmt: skip
    for name in names:
        yield f"page {name[:30]}", "GET", f"/page/{name}", {}
        yield f"content {name[:30]}", "GET", f"/v1/videos/{name}/content", {}


def variants():
    for name in ("../video.mp4", "latents", "metrics", "", "video%00", "VIDEO", "preview.webp", "video&variant=/etc"):
        yield f"variant {name}", "GET", f"/v1/videos/{NOBODYS}/content?variant={name}", {}


def ids():
    """Texts in the place of ids, for every route that takes one."""
    texts = (
        "1", "video_", "video_" + 31 * "0", "video_" + 33 * "0", "VIDEO_" + 32 * "0", "video_" + 32 * "g", "local",
        "video_" + 32 * "0" + "%0a", "' OR 1=1 --", "*", "%25", "video_%", "image_" + 32 * "0",
    )  # fmt: skip
    for text in texts:
        yield f"get {text[:20]}", "GET", f"/v1/videos/{text}", {}
        yield f"delete {text[:20]}", "DELETE", f"/v1/videos/{text}", {}
        yield f"cancel {text[:20]}", "POST", f"/v1/videos/{text}/cancel", {}
        yield f"events {text[:20]}", "GET", f"/v1/videos/{text}/events", {}
        yield f"upload {text[:20]}", "DELETE", f"/v1/uploads/{text}", {}


def queries():
    for query in (
        "limit=0", "limit=-1", "limit=101", "limit=1e9", "limit=x", "limit=99999999999999999999", "order=asc",
        "order=desc;drop", "after=1", "after=%00", f"after={NOBODYS}", "after=' OR 1=1", "limit=1&limit=x",
    ):  # fmt: skip
        yield f"list {query}", "GET", f"/v1/videos?{query}", {}


def bodies():
    """Bodies that are no request at all."""
    raw = {
        "empty": b"", "cut": b'{"prompt": "a"', "a list": b"[]", "a text": b'"a"', "null": b"null", "a number": b"1",
        "not UTF-8": b'{"prompt": "\xff\xfe"}', "UTF-16": '{"prompt": "a"}'.encode("utf-16"),
        "deep lists": b"[" * 100_000, "deep objects": b'{"prompt":' * 50_000, "NaN": b'{"prompt": "a", "fps": NaN}',
        "infinite": b'{"prompt": "a", "guidance": 1e999}', "half a pair": b'{"prompt": "\\ud800"}',
        "a huge number": b'{"prompt": "a", "seed": ' + b"9" * 10_000 + b"}", "zeros": b"\0" * 1000,
        "too much": b'{"prompt": "' + b"a" * 2**21 + b'"}',
    }  # fmt: skip
    for name, content in raw.items():
        for path in ("/v1/videos", "/v1/plan", "/v1/reconstructions"):
            yield f"{path} {name}", "POST", path, {"content": content, "headers": JSON}
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", "", "application/json5"):
        content = {"content": b'{"prompt": "a"}', "headers": {"Content-Type": kind}}
        yield f"type {kind}", "POST", "/v1/videos", content


def fields():
    """One field that is wrong."""
    wrong = {
        "model": ["../shapes-dc", "/etc", "", "a" * 200, 1, ["shapes-dc"], "http://evil.example/model"],
        "prompt": ["", " \n", 1, None, {"a": 1}, "x" * 100_001],
        "size": ["0x0", "64", "64x", "-64x64", "64X64", "1e3x64", "99999x99999", "64x64x64", 64],
        "height": [0, -1, 1.5, "64", 2**40], "num_frames": [0, -1, 10**9, "8", True], "fps": [0, -1, 1e9, "x"],
        "seconds": [0, -1, "1e9", "x", 1e12], "steps": [0, -5, 10**9, 1.5, []], "guidance": [-1, 1e9, "x"],
        "seed": [-1, 2**53, "x", 1.5], "image": ["../x", "image_1", 1, "/etc/passwd", "https://evil.example/x.png"],
        "last_image": ["x", "image_" + 32 * "0"], "path": ["/etc/passwd"], "output": ["x.mp4"], "key_id": ["local"],
        "__class__": ["x"],
    }  # fmt: skip
    for name, values in wrong.items():
        for value in values:
            body = json.dumps({"prompt": "a", name: value})
            yield f"{name} {str(value)[:20]}", "POST", "/v1/videos", {"content": body, "headers": JSON}


def forms():
    """Malformed multipart."""
    good = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na\r\n'
    raw = {
        "no end": good, "no start": b"a\r\n--b--\r\n", "wrong boundary": good.replace(b"--b", b"--c") + b"--c--\r\n",
        "empty": b"", "no name": b"--b\r\nContent-Disposition: form-data\r\n\r\na\r\n--b--\r\n",
        "no disposition": b"--b\r\nX: y\r\n\r\na\r\n--b--\r\n",
        "long header": b"--b\r\nX: " + b"y" * 10_000 + b"\r\n\r\na\r\n--b--\r\n",
        "many headers": b"--b\r\n" + b"X: y\r\n" * 100 + b"\r\na\r\n--b--\r\n",
        "many parts": good * 100 + b"--b--\r\n", "twice": good * 2 + b"--b--\r\n",
        "a large field": good.replace(b"\r\na\r\n", b"\r\n" + b"a" * 2**20 + b"\r\n") + b"--b--\r\n",
        "not UTF-8": good.replace(b"\r\na\r\n", b"\r\n\xff\r\n") + b"--b--\r\n",
        "a bare line": b"--b\nContent-Disposition: form-data; name=prompt\n\na\n--b--\n",
    }  # fmt: skip
    for name, content in raw.items():
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        yield f"form {name}", "POST", "/v1/videos", {"content": content, "headers": headers}
        yield f"upload form {name}", "POST", "/v1/uploads", {"content": content, "headers": headers}
    for kind in ("multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'b' * 300}"):
        yield kind[:40], "POST", "/v1/uploads", {"content": good, "headers": {"Content-Type": kind}}


def uploads():
    """Files that are not what they should be; what decoders make of hostile ones is tested in test_uploads.py."""
    yield "no file", "POST", "/v1/uploads", {"files": {"purpose": (None, "image")}}
    yield "no purpose", "POST", "/v1/uploads", {"files": {"file": b"x"}}
    yield "another purpose", "POST", "/v1/uploads", {"data": {"purpose": "key"}, "files": {"file": b"x"}}
    yield "more fields", "POST", "/v1/uploads", {"data": {"purpose": "image", "path": "/etc"}, "files": {"file": b"x"}}
    yield "a second file", "POST", "/v1/uploads", {"data": {"purpose": "image"}, "files": {"file": b"x", "more": b"x"}}
    yield "too large", "POST", "/v1/uploads", {"data": {"purpose": "image"}, "files": {"file": b"x" * 70_000}}
    yield "said to be too large", "POST", "/v1/uploads", {
        "content": b"", "headers": {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": "9" * 30}
    }  # fmt: skip
    yield "a picture and its id", "POST", "/v1/videos", {
        "data": {"prompt": "a", "image": "image_" + 32 * "0"}, "files": {"input_reference": b"x"}
    }  # fmt: skip


def methods():
    for method in ("PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "HEAD"):
        yield f"method {method}", method, "/v1/videos", {}
    for path in ("/v1", "/v1/", "/v1/videos/", "//v1/videos", "/v1/keys", "/docs", "/redoc", "/admin", "/.env", "/v2"):
        yield f"path {path}", "GET", path, {}


def keys():
    """Header tricks."""
    for name, headers in {
        "an empty key": {"Authorization": ""}, "no scheme": {"Authorization": "dcvk_x"},
        "two keys": {"Authorization": "Bearer a, Bearer b"}, "the local one": {"Authorization": "Bearer local"},
        "a cookie": {"Authorization": "", "Cookie": "key=dcvk_x"},
        "forwarded": {"Authorization": "", "X-Forwarded-For": "127.0.0.1", "Host": "localhost:8000"},
        "another user": {"Authorization": "", "X-User": "local", "X-Key-Id": "local"},
        "a percent sign": {"Authorization": "Bearer %"}, "a long one": {"Authorization": "Bearer " + "x" * 10_000},
    }.items():  # fmt: skip
        yield name, "GET", "/v1/videos", {"headers": headers}
