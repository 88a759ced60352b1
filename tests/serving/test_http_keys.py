"""Who may ask, and from where: keys, what each sees, and requests that a browser sends for another site."""

import pytest
from http_server import WANTED, client, code, complete, new_key

from dcvideogen.serving.keys import Keys
from dcvideogen.serving.settings import is_loopback

ROUTES = [
    ("GET", "/v1/videos"), ("POST", "/v1/videos"), ("GET", "/v1/videos/{id}"), ("GET", "/v1/videos/{id}/content"),
    ("GET", "/v1/videos/{id}/events"), ("POST", "/v1/videos/{id}/cancel"), ("DELETE", "/v1/videos/{id}"),
    ("POST", "/v1/uploads"), ("DELETE", "/v1/uploads/image_0"),
    ("POST", "/v1/reconstructions"), ("POST", "/v1/plan"), ("GET", "/v1/models"),
    ("GET", "/metrics"),
]  # fmt: skip


@pytest.fixture
def theirs(tmp_path):
    """A server with keys, and a completed video of one of them."""
    mine, other = new_key(tmp_path, "mine"), new_key(tmp_path, "other")
    with client(tmp_path, key=mine, require_keys=True) as http:
        http.post("/v1/videos", json=WANTED)
        yield http, complete(tmp_path), other


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "sent", [None, "Bearer", "Bearer dcvk_0", "Basic eDp5", "Bearer dcvk_" + "0" * 16 + "_" + "x" * 43]
)
def test_without_a_valid_key_nothing_is_answered(theirs, method, path, sent):
    http, job_id, _ = theirs
    http.headers.pop("Authorization")
    headers = {} if sent is None else {"Authorization": sent}
    answer = http.request(method, path.format(id=job_id), headers=headers)
    assert (answer.status_code, code(answer)) == (401, "invalid_key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if "{id}" in route[1]])
def test_another_key_s_video_is_not_there(theirs, method, path):
    http, job_id, other = theirs
    asked = {"headers": {"Authorization": f"Bearer {other}"}}
    theirs_ = http.request(method, path.format(id=job_id), **asked)
    nobody_s = http.request(method, path.format(id="video_" + 32 * "0"), **asked)
    assert (theirs_.status_code, theirs_.json()) == (nobody_s.status_code, nobody_s.json())
    assert theirs_.status_code == 404
    assert http.get("/v1/videos", **asked).json()["data"] == []
    assert http.get(f"/v1/videos/{job_id}").json()["status"] == "completed"


def test_another_key_s_upload_cannot_be_used(theirs):
    import io

    from PIL import Image

    http, _, other = theirs
    held = io.BytesIO()
    Image.new("RGB", (20, 20)).save(held, "PNG")
    upload = http.post("/v1/uploads", data={"purpose": "image"}, files={"file": held.getvalue()}).json()
    body = {**WANTED, "image": upload["id"]}
    answer = http.post("/v1/videos", json=body, headers={"Authorization": f"Bearer {other}"})
    assert (answer.status_code, code(answer)) == (404, "upload_not_found")
    assert http.delete(f"/v1/uploads/{upload['id']}", headers={"Authorization": f"Bearer {other}"}).status_code == 404
    assert http.post("/v1/videos", json=body).status_code == 200
    assert http.delete(f"/v1/uploads/{upload['id']}").json()["deleted"] is True
    assert http.post("/v1/videos", json=body).status_code == 404


def test_a_revoked_key_is_refused_at_once(theirs, tmp_path):
    http, _, _ = theirs
    keys = Keys(tmp_path)
    keys.revoke("mine")
    keys.close()
    assert http.get("/v1/videos").status_code == 401


def test_health_and_the_page_need_no_key(theirs):
    http, _, _ = theirs
    http.headers.pop("Authorization")
    assert http.get("/healthz").status_code == 200
    assert http.get("/").status_code in (200, 404)  # 404: without the page's files


def test_on_loopback_no_key_is_needed_and_any_text_of_openai_s_clients_will_do(tmp_path):
    with client(tmp_path) as http:
        assert http.get("/v1/videos").status_code == 200
        assert http.get("/v1/videos", headers={"Authorization": "Bearer unused"}).status_code == 200
        assert http.get("/v1/videos", headers={"Authorization": "Bearer dcvk_wrong"}).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"}, {"Host": "127.0.0.1:9999"}, {"Host": "127.0.0.1.evil.example:8000"}, {"Host": ""},
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:3000"},
        {"Origin": "http://127.0.0.1:8000.evil.example"}, {"Origin": "http://user@127.0.0.1:8000"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)  # fmt: skip
def test_on_loopback_what_another_site_sends_is_refused(tmp_path, headers):
    with client(tmp_path) as http:
        for method, path in (("GET", "/v1/videos"), ("POST", "/v1/videos"), ("GET", "/metrics")):
            answer = http.request(method, path, headers=headers)
            assert answer.status_code == 403
            assert code(answer) in ("cross_site", "foreign_host")
        own = {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}
        assert http.post("/v1/videos", json=WANTED, headers=own).status_code == 200


def test_no_other_site_may_read_answers(tmp_path):
    with client(tmp_path, key=new_key(tmp_path), require_keys=True) as http:
        origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
        for answer in (http.options("/v1/videos", headers=origin), http.get("/v1/videos", headers=origin)):
            assert not [name for name in answer.headers if name.startswith("access-control")]


def test_every_answer_has_a_number_of_its_own_and_keeps_browsers_from_guessing(tmp_path):
    with client(tmp_path) as http:
        answers = [http.get("/v1/videos"), http.get("/nothing"), http.get("/", headers={"Host": "evil.example"})]
        for answer in answers:
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert "unsafe-inline" not in answer.headers["Content-Security-Policy"]
        assert len({answer.headers["X-Request-Id"] for answer in answers}) == 3


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.5", False), ("example.org", False), ("", False)],
)  # fmt: skip
def test_only_this_machine_s_own_addresses_are_loopback(host, expected):
    assert is_loopback(host) is expected
