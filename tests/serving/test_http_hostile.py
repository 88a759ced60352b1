"""Hostile requests: each is refused in words, none fails the server, and nothing of them stays."""

import pytest
from hostile_requests import all_requests
from http_server import WANTED, client, code, new_key

from dcvideogen.serving.limits import Limits

REQUESTS = all_requests()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A server with keys and one queued video."""
    folder = tmp_path_factory.mktemp("hostile")
    with client(folder, key=new_key(folder), require_keys=True, limits=Limits(upload_bytes=2**16)) as http:
        job = http.post("/v1/videos", json=WANTED).json()
        yield http, folder, job


def test_there_are_two_hundred_of_them():
    assert len(REQUESTS) >= 200


@pytest.mark.parametrize(("method", "path", "told"), [one[1:] for one in REQUESTS], ids=[one[0] for one in REQUESTS])
def test_a_hostile_request_is_refused_and_leaves_nothing(hostile, method, path, told):
    http, folder, job = hostile
    answer = http.request(method, path, **told)
    assert 400 <= answer.status_code < 500, answer.text
    if method != "HEAD":
        assert str(folder) not in answer.text
        assert code(answer)
    assert not list((folder / "uploads").glob("*"))
    assert not list((folder / "incoming").glob("*"))
    assert [path.name for path in (folder / "jobs").glob("*")] == [job["id"]]


def test_the_server_works_on_afterwards(hostile):
    http, folder, job = hostile
    assert [one["id"] for one in http.get("/v1/videos").json()["data"]] == [job["id"]]
    assert sorted(path.name.split("-")[0] for path in folder.iterdir() if path.is_file()) == ["serving.sqlite3"] * 3
