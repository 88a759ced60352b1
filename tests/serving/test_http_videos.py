"""Videos over HTTP: asking, listing, following, fetching, cancelling, removing."""

import io
import json
import re
import subprocess
import sys

import anyio
import pytest
from http_server import MODELS, WANTED, client, code, complete
from PIL import Image

from dcvideogen.serving import routes_content
from dcvideogen.serving.database import LOCAL_KEY
from dcvideogen.serving.jobs import Stage
from dcvideogen.serving.limits import Limits
from dcvideogen.serving.work_queue import WorkQueue


@pytest.fixture
def http(tmp_path):
    with client(tmp_path) as found:
        yield found


def picture(size=(40, 30)) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", size, "red").save(held, "PNG")
    return held.getvalue()


def test_a_video_is_queued_with_the_model_s_defaults_and_a_drawn_seed(http):
    job = http.post("/v1/videos", json=WANTED).json()
    assert job["object"] == "video"
    assert (job["status"], job["progress"], job["queue_position"], job["stage"]) == ("queued", 0, 0, None)
    assert (job["model"], job["size"], job["num_frames"], job["steps"]) == ("shapes-dc", "48x32", 8, 4)
    assert job["seconds"] == 1.0
    assert job["seed"] >= 0
    assert http.get(f"/v1/videos/{job['id']}").json() == job


def test_size_seconds_and_seed_are_taken_as_openai_s_clients_and_as_others_say_them(http):
    job = http.post("/v1/videos", json={**WANTED, "size": "64x40", "seconds": "2", "fps": 10, "seed": 7}).json()
    assert (job["size"], job["num_frames"], job["fps"], job["seed"]) == ("64x40", 20, 10, 7)
    job = http.post("/v1/videos", json={**WANTED, "height": 40, "width": 64, "num_frames": 5}).json()
    assert (job["size"], job["num_frames"]) == ("64x40", 5)
    plain = http.post("/v1/videos", data=WANTED)  # a form, but none that could hold a picture
    assert (plain.status_code, code(plain)) == (415, "unsupported_media_type")


def test_a_form_brings_its_picture_along(http):
    job = http.post(
        "/v1/videos", data={**WANTED, "steps": "3"}, files={"input_reference": ("../../etc/x.png", picture())}
    ).json()
    assert job["model"] == "shapes-i2v"
    assert job["image"].startswith("image_")
    assert job["steps"] == 3


def test_a_form_without_a_picture_is_a_video_from_text(http):
    form = {name: (None, value) for name, value in {**WANTED, "seconds": "1.5"}.items()}
    job = http.post("/v1/videos", files=form).json()
    assert (job["model"], job["num_frames"]) == ("shapes-dc", 12)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model": "nothing"}, (404, "model_not_found")),
        ({"model": "shapes-dcae"}, (400, "invalid_request")),
        ({"model": "shapes-i2v"}, (400, "invalid_request")),
        ({"model": "shapes-dc", "image": "image_" + 32 * "0"}, (400, "invalid_request")),
        ({"image": "image_" + 32 * "0"}, (404, "upload_not_found")),
        ({"size": "64x40", "height": 40}, (400, "invalid_request")),
        ({"height": 40}, (400, "invalid_request")),
        ({"seconds": 2, "num_frames": 3}, (400, "invalid_request")),
        ({"steps": 101}, (400, "too_many_steps")),
        ({"size": "9000x9000", "num_frames": 900}, (400, "video_too_large")),
        ({"prompt": " "}, (400, "invalid_request")),
        ({"prompt": "x" * 2001}, (400, "prompt_too_long")),
        ({"last_image": "image_" + 32 * "0"}, (400, "invalid_request")),
    ],
)
def test_what_cannot_be_is_refused_with_a_code_and_a_hint(http, change, expected):
    answer = http.post("/v1/videos", json={**WANTED, **change})
    assert (answer.status_code, code(answer)) == expected
    assert http.get("/v1/videos").json()["data"] == []


def test_a_full_queue_says_when_to_come_again(tmp_path):
    with client(tmp_path, limits=Limits(queue_length=1)) as http:
        assert http.post("/v1/videos", json=WANTED).status_code == 200
        answer = http.post("/v1/videos", json=WANTED)
        assert (answer.status_code, code(answer)) == (429, "queue_full")
        assert int(answer.headers["Retry-After"]) >= 1


def test_videos_are_listed_newest_first_and_page_by_page(http):
    made = [http.post("/v1/videos", json=WANTED).json()["id"] for _ in range(5)]
    page = http.get("/v1/videos?limit=3").json()
    assert [job["id"] for job in page["data"]] == made[:1:-1]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, made[4], made[2])
    page = http.get(f"/v1/videos?limit=3&after={page['last_id']}&order=desc").json()
    assert [job["id"] for job in page["data"]] == [made[1], made[0]]
    assert not page["has_more"]


def test_cancelling_a_queued_video_ends_it_and_deleting_then_removes_it(http):
    path = f"/v1/videos/{http.post('/v1/videos', json=WANTED).json()['id']}"
    assert http.post(f"{path}/cancel").json()["status"] == "cancelled"
    assert http.delete(path).json()["deleted"] is True
    assert code(http.get(path)) == "not_found"
    path = f"/v1/videos/{http.post('/v1/videos', json=WANTED).json()['id']}"
    assert http.delete(path).json()["deleted"] is False
    assert http.get(path).json()["status"] == "cancelled"


def test_a_video_is_fetched_whole_and_in_ranges_and_not_before_it_is_done(http, tmp_path):
    path = f"/v1/videos/{http.post('/v1/videos', json=WANTED).json()['id']}"
    answer = http.get(f"{path}/content")
    assert (answer.status_code, code(answer)) == (409, "not_ready")
    complete(tmp_path)
    answer = http.get(f"{path}/content")
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"0123456789", "video/mp4")
    for asked, status, content in [
        ("bytes=0-3", 206, b"0123"), ("bytes=8-", 206, b"89"), ("bytes=-3", 206, b"789"),
        ("bytes=4-99", 206, b"456789"), ("bytes=5-2", 200, b"0123456789"), ("lines=1-2", 200, b"0123456789"),
        ("bytes=0-1,4-5", 200, b"0123456789"),
    ]:  # fmt: skip
        answer = http.get(f"{path}/content", headers={"Range": asked})
        assert (answer.status_code, answer.content) == (status, content), asked
    assert http.get(f"{path}/content", headers={"Range": "bytes=4-5"}).headers["content-range"] == "bytes 4-5/10"
    assert http.get(f"{path}/content", headers={"Range": "bytes=10-"}).status_code == 416
    assert code(http.get(f"{path}/content?variant=preview")) == "not_ready"
    assert code(http.get(f"{path}/content?variant=side_by_side")) == "not_ready"
    assert code(http.get(f"{path}/content?variant=../serving.sqlite3")) == "invalid_request"


def test_events_follow_a_video_to_its_end(http, tmp_path):
    job_id = http.post("/v1/videos", json=WANTED).json()["id"]
    queue = WorkQueue(tmp_path)
    lease = queue.claim(["shapes-dc"], device="cpu")
    queue.progress(lease, Stage.DENOISING, 2, 4)

    async def follow():
        seen = []
        async for event in routes_content._events(http.app.state.server, LOCAL_KEY, job_id):
            seen.append(json.loads(event.removeprefix("event: job\ndata: ")))
            if len(seen) == 1:
                queue.files.video(job_id).write_bytes(b"v")
                queue.finish(lease)
        return seen

    seen = anyio.run(follow)  # the client of the other tests waits for a stream's end
    assert [(job["status"], job["progress"]) for job in seen] == [("in_progress", 41), ("completed", 100)]
    answer = http.get(f"/v1/videos/{job_id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text == f"event: job\ndata: {json.dumps(seen[1], separators=(',', ':'))}\n\n"
    assert seen[0]["stage"] == {"name": "denoising", "done": 2, "total": 4}


def test_a_reconstruction_has_its_metrics_and_both_beside_each_other(http, tmp_path):
    answer = http.post("/v1/reconstructions", json={"model": "shapes-dcae", "clip": "clip_" + 32 * "0"})
    assert code(answer) == "upload_not_found"
    assert code(http.post("/v1/reconstructions", json={"model": "shapes-dc", "clip": "clip_" + 32 * "0"})) == (
        "invalid_request"
    )
    from fractions import Fraction

    import torch

    from dcvideogen.video import write_video

    write_video(tmp_path / "clip.mp4", torch.zeros(1, 3, 4, 32, 32), Fraction(8))
    upload = http.post(
        "/v1/uploads", data={"purpose": "clip"}, files={"file": ("a", (tmp_path / "clip.mp4").read_bytes())}
    ).json()
    assert (upload["purpose"], upload["num_frames"], upload["fps"]) == ("clip", 4, "8")
    job = http.post("/v1/reconstructions", json={"model": "shapes-dcae", "clip": upload["id"]}).json()
    assert (job["kind"], job["clip"], job["size"], job["metrics"]) == ("reconstruct", upload["id"], None, None)
    complete(tmp_path, "shapes-dcae", b"x", side_by_side=True)
    assert http.get(f"/v1/videos/{job['id']}").json()["metrics"] == {"psnr": 30.5}
    assert http.get(f"/v1/videos/{job['id']}/content?variant=side_by_side").content == b"x"


def test_models_and_plans_tell_what_there_is_and_what_it_would_take(http):
    models = http.get("/v1/models").json()["data"]
    assert [model["id"] for model in models] == [model.name for model in MODELS]
    assert models[0]["defaults"]["size"] == "48x32"
    assert (models[0]["base"], models[0]["sizes"]) == ("shapes", [{"width": 48, "height": 32, "num_frames": 8}])
    plan = http.post("/v1/plan", json=WANTED).json()
    assert (plan["memory_bytes"], plan["seconds"], plan["fits"], plan["queue_position"]) == (2**30, 12.5, True, 0)
    assert http.get("/v1/videos").json()["data"] == []
    assert code(http.post("/v1/plan", json={**WANTED, "steps": 1000})) == "too_many_steps"


def test_figures_are_there_for_prometheus(http):
    http.post("/v1/videos", json=WANTED)
    text = http.get("/metrics").text
    assert 'dcvideogen_jobs{status="queued"} 1' in text
    assert 'dcvideogen_http_requests_total{method="POST",route="/v1/videos",status="200"} 1' in text
    assert all(line.startswith(("#", "dcvideogen_")) for line in text.splitlines())
    assert http.get("/healthz").json() == {"status": "ok"}


def test_the_server_imports_no_neural_network():
    modules = ", ".join(f"dcvideogen.serving.{name}" for name in ("app", "fleet", "planner", "settings"))
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_page_and_its_files_are_served_by_name(http):
    page = http.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    names = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
    assert names
    for name in names:
        assert http.get(f"/{name}").status_code == 200
    script = http.get("/page/main.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert http.get("/page/main.js", headers={"If-None-Match": script.headers["etag"]}).status_code == 304
