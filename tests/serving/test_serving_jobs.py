"""What can be asked for, and how far a job is."""

from dataclasses import replace

import pytest
from pydantic import ValidationError
from tiny_server import LIMITS, request

from dcvideogen.serving.database import LOCAL_KEY
from dcvideogen.serving.jobs import JobRequest, Progress, Stage, Status, VideoDefaults, new_id
from dcvideogen.serving.limits import Limits
from dcvideogen.serving.request_error import RequestError
from dcvideogen.serving.store import JobStore

DEFAULTS = VideoDefaults(height=96, width=96, num_frames=17, fps=12, steps=30, guidance=5, negative_prompt="blurry")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": " \n"}, "the prompt is empty"),
        ({"model": "../../etc/passwd"}, "model"),
        ({"model": "a/b"}, "model"),
        ({"model": "shapes-dc\n"}, "model"),
        ({"image": "../../../etc/passwd"}, "image"),
        ({"image": new_id("video")}, "image"),
        ({"image": new_id("image") + "\n"}, "image"),
        ({"last_image": new_id("image")}, "a last image needs a first one"),
        ({"clip": new_id("clip")}, "a clip is for kind"),
        ({"kind": "reconstruct"}, "needs `clip`"),
        ({"kind": "reconstruct", "clip": new_id("clip")}, "takes `model` and `clip` alone"),
        ({"height": 0}, "height"),
        ({"height": 10**30}, "height"),
        ({"fps": float("nan")}, "fps"),
        ({"fps": float("inf")}, "fps"),
        ({"guidance": float("nan")}, "guidance"),
        ({"seed": 2**53}, "seed"),
        ({"seed": -1}, "seed"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"priority": 9}, "Extra inputs are not permitted"),
    ],
)
def test_a_request_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        request(**changes)


def test_a_request_cannot_be_changed():
    asked = request()
    with pytest.raises(ValidationError, match="frozen"):
        asked.prompt = "another"


def test_what_is_not_given_is_the_models():
    asked = JobRequest(model="shapes-dc", prompt="a", steps=7, guidance=0).completed(DEFAULTS)
    assert (asked.height, asked.num_frames, asked.negative_prompt) == (96, 17, "blurry")
    assert (asked.steps, asked.guidance, asked.seed) == (7, 0, None)
    clip = JobRequest(kind="reconstruct", model="dcae", clip=new_id("clip"))
    assert clip.completed(DEFAULTS) == clip


def test_a_seed_is_drawn_once():
    assert request(seed=3).seeded().seed == 3
    drawn = request().seeded()
    assert drawn.seeded() == drawn
    assert drawn.seed != request().seeded().seed


def test_ids_are_128_random_bits():
    assert len({new_id("video") for _ in range(1000)}) == 1000
    assert len(new_id("video")) == len("video_") + 32


def test_the_bar_over_all_stages_only_rises_and_ends_at_100(tmp_path):
    store = JobStore(tmp_path)
    job = store.add(LOCAL_KEY, request(), LIMITS)
    seen = [job.percent]
    for stage in (Stage.TEXT, Stage.DENOISING, Stage.DECODING, Stage.WRITING):
        seen += [replace(job, progress=Progress(stage, done, 4)).percent for done in range(5)]
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 99)
    assert replace(job, status=Status.COMPLETED).percent == 100


@pytest.mark.parametrize(
    ("changes", "limits", "code", "said"),
    [
        ({"prompt": "x" * 11}, {"prompt_chars": 10}, "prompt_too_long", "the prompt has 11 characters, up to 10"),
        (
            {"prompt": "x", "negative_prompt": "x" * 11},
            {"prompt_chars": 10},
            "prompt_too_long",
            "the negative prompt has 11",
        ),
        ({}, {"video_pixels": 9 * 32 * 48 - 1}, "video_too_large", "ask for 8 frames of this size"),
        ({}, {"video_pixels": 32 * 48 - 1}, "video_too_large", "ask for smaller frames"),
        ({"steps": 101}, {}, "too_many_steps", "101 steps came, up to 100"),
    ],
)
def test_a_request_beyond_a_limit_is_refused_and_one_at_it_is_not(changes, limits, code, said):
    with pytest.raises(RequestError, match=said) as refused:
        Limits(**limits).check_request(request(**changes))
    assert (refused.value.code, refused.value.http_status, refused.value.retry_after) == (code, 400, None)
    assert refused.value.body()["error"]["type"] == "invalid_request_error"


def test_a_request_at_its_limits_is_accepted():
    limits = Limits(prompt_chars=10, video_pixels=9 * 32 * 48, steps=4)
    limits.check_request(request("x" * 10))
    limits.check_upload_bytes(limits.upload_bytes)
    with pytest.raises(RequestError, match="more than 64 MiB came"):
        limits.check_upload_bytes(limits.upload_bytes + 1)


def test_limits_are_asked_of_completed_requests_only():
    with pytest.raises(ValueError, match="fill in the model's defaults first"):
        Limits().check_request(JobRequest(model="shapes-dc", prompt="a"))
