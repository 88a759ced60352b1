"""`dcvideogen serve` and `dcvideogen keys` as they are typed: refusals in one line, a real server that is killed."""

import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from tiny_pipeline import tiny_pipeline

from dcvideogen.cli import serve
from dcvideogen.cli.main import run
from dcvideogen.video import probe

START_S = 120  # for processes that import torch on a busy machine


@pytest.fixture
def told(capsys):
    """Runs a command line: (exit code, stdout, stderr)."""

    def typed(*arguments):
        code = run([str(one) for one in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return typed


def test_keys_are_added_listed_and_revoked(told, tmp_path):
    data = ("--data", tmp_path)
    assert "no keys" in told("keys", "list", *data)[1]
    code, out, _ = told("keys", "add", "anna", "--queued-at-once", 3, *data)
    text, note = out.splitlines()
    assert code == 0
    assert text.startswith("dcvk_")
    assert "not shown again" in note
    listed = told("keys", "list", *data)[1]
    assert "anna" in listed
    assert "last used never, 3 queued at once" in listed
    assert text not in listed
    assert told("keys", "add", "anna", *data)[0] == 2
    assert "revoked key_" in told("keys", "revoke", "anna", *data)[1]
    assert "revoked 20" in told("keys", "list", *data)[1]
    code, _, err = told("keys", "revoke", "anna", *data)
    assert (code, err.count("\n")) == (2, 1)


def test_a_server_beyond_this_machine_needs_keys(told, tmp_path):
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        code, _, err = told("serve", "--host", host, "--data", tmp_path)
        assert (code, err.count("\n")) == (2, 1)
        assert f"--host {host} needs keys" in err
        assert "dcvideogen keys add NAME --data" in err
    told("keys", "add", "anna", "--data", tmp_path)
    told("keys", "revoke", "anna", "--data", tmp_path)
    assert "needs keys" in told("serve", "--host", "0.0.0.0", "--data", tmp_path)[2]


def test_what_is_missing_or_wrong_is_said_before_anything_is_loaded(told, tmp_path, monkeypatch):
    for options, expected in (
        (("--port", 0), "1 to 65535 is allowed"),
        (("--device", "tpu"), "auto, cpu, cuda, cuda:N are allowed"),
        (("--queue-length", 0), "a limit of 0 came for queue_length"),
        (("--keep-days", -1), "output_age_s"),
    ):
        code, _, err = told("serve", "--data", tmp_path, *options)
        assert (code, err.count("\n")) == (2, 1)
        assert expected in err
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert "choose another" in told("serve", "--data", tmp_path, "--port", other.getsockname()[1])[2]
    monkeypatch.setattr(serve, "NEEDED", ("fastapi", "not_there"))
    assert told("serve", "--data", tmp_path)[2] == (
        'error: not_there is missing; `pip install "dcvideogen[serve]"` brings what a server needs\n'
    )


class RealServer:
    """`dcvideogen serve` in a process of its own."""

    def __init__(self, data, model):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._command = [
            sys.executable, "-c", "from dcvideogen.cli.main import main; main()", "serve", "--data", str(data),
            "--port", str(self.port), "--model", str(model), "--device", "cpu",
        ]  # fmt: skip
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=START_S)

    def start(self):
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.startswith("serving at "):
                break
        self.wait(lambda: self.http.get("/healthz").is_success)

    def wait(self, until):
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            try:
                if until():
                    return
            except httpx.TransportError:
                assert self.process.poll() is None
            time.sleep(0.05)
        raise AssertionError("it takes too long")

    def status(self, job):
        return self.http.get(f"/v1/videos/{job['id']}").json()["status"]


def test_a_real_server_makes_a_video_stops_one_and_survives_its_death(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    server = RealServer(tmp_path / "data", tmp_path / "tiny")
    server.start()
    try:
        models = server.http.get("/v1/models").json()["data"]
        assert [(model["id"], model["task"], model["defaults"]["size"]) for model in models] == [
            ("tiny", "t2v", "64x64")
        ]
        plan = server.http.post("/v1/plan", json={"prompt": "a red circle"}).json()
        assert plan["fits"]
        assert plan["tokens"] == 2 * 2 * 2

        job = server.http.post("/v1/videos", json={"prompt": "a red circle", "steps": 2}).json()
        server.wait(lambda: server.status(job) == "completed")
        (tmp_path / "got.mp4").write_bytes(server.http.get(f"/v1/videos/{job['id']}/content").content)
        assert probe(tmp_path / "got.mp4").num_frames == 8

        slow = {"prompt": "a red circle", "steps": 100, "size": "512x512", "num_frames": 64}
        job = server.http.post("/v1/videos", json=slow).json()
        server.wait(lambda: server.status(job) == "in_progress")
        began = time.monotonic()
        server.http.post(f"/v1/videos/{job['id']}/cancel")
        server.wait(lambda: server.status(job) == "cancelled")
        assert time.monotonic() - began < 2

        job = server.http.post("/v1/videos", json={"prompt": "a red circle", "steps": 60}).json()
        server.wait(lambda: server.status(job) == "in_progress")
        server.process.kill()
        server.process.wait()
        server.start()
        server.wait(lambda: server.status(job) == "completed")

        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(START_S) in (0, 130)
    finally:
        server.process.kill()
        server.process.wait()
        server.process.stdout.close()
        server.http.close()
