"""The page in a real browser, before a stand-in for the server whose jobs move when the test says so."""

from __future__ import annotations

import re
from pathlib import Path

from page_browser import (  # noqa: F401
    NEEDS_CHROMIUM,
    PATIENCE_MS,
    PROMPT,
    a_browser,
    a_page,
    a_server,
    ask,
    let_play,
    made,
    open_page,
)
from page_server import PageServer
from playwright.sync_api import Browser, Page, expect

pytestmark = NEEDS_CHROMIUM


def test_a_prompt_becomes_a_video_that_plays_while_queue_stage_and_progress_are_told(
    page: Page, server: PageServer
) -> None:
    let_play(page)
    server.add({"model": "shapes-dc", "prompt": "another's"})
    ask(page)
    screen = page.get_by_role("region", name="Asked for last")
    expect(screen).to_contain_text(PROMPT)
    expect(screen).to_contain_text("Waiting: 1 video ahead, about 6 s")
    server.finish(next(iter(server.jobs.values())))
    expect(screen).to_contain_text("Waiting: next in the queue")
    server.step_to("in_progress", "denoising")
    expect(screen.locator("[aria-current=step]")).to_contain_text("Denoising")
    expect(screen).to_contain_text("Denoising 0 of 8")
    bar = screen.get_by_role("progressbar")
    assert 0 < bar.evaluate("bar => bar.value") < 99
    expect(screen.get_by_alt_text("Preview")).to_be_visible()
    expect(page.locator("#announcements")).to_contain_text("shapes-dc: Denoising.")
    server.step_to("completed", None)
    while any(job["status"] != "completed" for job in server.jobs.values()):
        server.step()
    video = screen.locator("video")
    expect(video).to_have_js_property("videoWidth", 160)
    page.wait_for_function("() => document.querySelector('#screen video').currentTime > 0.1")
    expect(page.locator("#announcements")).to_contain_text("shapes-dc: ready.")
    with page.expect_download() as download:
        screen.get_by_role("button", name="Download").click()
    assert re.fullmatch(r"a-red-circle-moves-to-the-right-[0-9a-f]{6}\.mp4", download.value.suggested_filename)
    assert Path(download.value.path()).read_bytes()[4:8] == b"ftyp"


def test_what_it_takes_is_told_before_the_button_is_pressed(page: Page, server: PageServer) -> None:
    plan = page.get_by_label("What this would take")
    expect(plan).to_contain_text("402 MiB")
    expect(plan).to_contain_text("starts at once")
    page.get_by_label("Frames", exact=True).fill("129")
    expect(page.get_by_text("Frames beyond 97 were not seen in training")).to_be_visible()
    page.get_by_label("Frames", exact=True).fill("2000")
    expect(page.get_by_text("There is not enough memory for this")).to_be_visible()
    assert not server.jobs


def test_a_running_video_is_cancelled_and_another_one_removed(page: Page, server: PageServer) -> None:
    old = made(server, "an old one")
    ask(page)
    server.step_to("in_progress", "denoising")
    screen = page.get_by_role("region", name="Asked for last")
    screen.get_by_role("button", name="Cancel").click()
    expect(screen).to_contain_text("Cancelled")
    assert [job["status"] for job in server.jobs.values()] == ["completed", "cancelled"]
    page.get_by_role("button", name="Delete: an old one").click()
    page.get_by_role("button", name="Really? an old one").click()
    expect(page.get_by_role("button", name="Open: an old one")).to_have_count(0)
    assert old["id"] not in server.jobs


def test_a_reload_in_mid_job_finds_it_again_and_keeps_the_form(page: Page, server: PageServer) -> None:
    ask(page)
    server.step_to("in_progress", "denoising")
    page.reload()
    screen = page.get_by_role("region", name="Asked for last")
    expect(screen).to_contain_text(re.compile("Denoising 0 of 8"))
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(PROMPT)
    server.step()
    expect(screen).to_contain_text("Denoising 1 of 8")


def test_a_server_that_restarts_is_waited_for(page: Page, server: PageServer) -> None:
    ask(page)
    server.step_to("in_progress", "denoising")
    server.stop()
    expect(page.get_by_text("The server does not answer. This page keeps trying")).to_be_visible()
    server.start()
    expect(page.get_by_text("The server does not answer. This page keeps trying")).to_be_hidden()
    server.step_to("completed")
    expect(page.locator("#screen video")).to_have_js_property("videoWidth", 160)


def test_settings_of_an_old_video_are_taken_over_with_one_press(page: Page, server: PageServer) -> None:
    changes = {"size": "128x64", "num_frames": 17, "fps": 8.0, "steps": 5, "guidance": 2.5, "seed": 77}
    made(server, "an old one", "shapes-base", negative_prompt="rain", **changes)
    page.get_by_role("button", name="Reuse: an old one").click()
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator(".card")).to_have_count(2)
    body = next(body for path, body in server.posted if path == "/v1/videos")
    assert body == {"model": "shapes-base", "prompt": "an old one", "negative_prompt": "rain", **changes}


def test_a_model_and_its_base_are_asked_the_same_and_shown_together(page: Page, server: PageServer) -> None:
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_role("button", name="Compare with base").click()
    expect(page.locator("#panes figure")).to_have_count(2)
    base, adapted = (body for path, body in server.posted if path == "/v1/videos")
    assert (base.pop("model"), adapted.pop("model")) == ("shapes-base", "shapes-dc")
    assert base == adapted
    for job, seconds in zip(server.jobs.values(), (9, 2), strict=True):
        job["started_at"] = job["created_at"] - seconds
        server.finish(job)
        job["completed_at"] = job["created_at"]
    table = page.get_by_role("table", name="Base and adapted model")
    page.reload()  # what belongs together is seen from the jobs themselves
    expect(table).to_contain_text(re.compile(r"Time\s*9 s\s*2 s\s*4\.5× less"))
    expect(table).to_contain_text(re.compile(r"Tokens\s*7,920\s*247\s*32\.1× less"))
    expect(page.locator("#panes video")).to_have_count(2)


def test_a_picture_goes_with_the_prompt_to_a_model_that_takes_one(page: Page, server: PageServer) -> None:
    field = page.locator("#picture input[type=file]")
    field.set_input_files({"name": "bad.png", "mimeType": "image/png", "buffer": b"broken"})
    expect(page.get_by_text("bad.png: the file cannot be read; send an intact file")).to_be_visible()
    field.set_input_files({"name": "cat.png", "mimeType": "image/png", "buffer": b"good"})
    expect(page.get_by_text("cat.png: 160×96")).to_be_visible()
    expect(page.get_by_label("Model", exact=True)).to_have_value("shapes-i2v")
    last = page.locator("#last-picture input[type=file]")
    last.set_input_files({"name": "dog.png", "mimeType": "image/png", "buffer": b"good too"})
    expect(page.get_by_text("dog.png: 160×96")).to_be_visible()
    server.uploads.clear()  # the server forgot them: the page sends them again
    ask(page)
    expect(page.locator(".card")).to_have_count(1)
    (job,) = server.jobs.values()
    assert {job["image"], job["last_image"]} == set(server.uploads)
    page.get_by_role("button", name="Remove the picture").click()
    expect(page.locator("#last-picture-field")).to_be_hidden()


def test_a_clip_is_compared_with_its_reconstruction(page: Page, server: PageServer) -> None:
    page.get_by_role("link", name="Reconstruct").click()
    page.locator("#clip input[type=file]").set_input_files(
        {"name": "clip.mp4", "mimeType": "video/mp4", "buffer": b"clip"}
    )
    page.get_by_role("button", name="Reconstruct", exact=True).click()
    result = page.get_by_role("region", name="Original and reconstruction")
    server.step_to("in_progress", "decoding")
    expect(result.locator("[aria-current=step]")).to_contain_text("Decoding")
    server.step_to("completed")
    expect(result).to_contain_text("31.4 dB")
    expect(result.locator("canvas")).to_have_js_property("width", 160)
    expect(result.get_by_role("button", name="Play")).to_be_visible()
    # A picture is drawn when the browser comes to it, so wait for each to differ from the one before.
    canvas, other = result.locator("canvas").element_handle(), "([canvas, old]) => canvas.toDataURL() !== old"
    shown = "canvas => canvas.toDataURL()"
    half = canvas.evaluate(shown)
    result.get_by_role("slider").press("Home")
    page.wait_for_function(other, arg=[canvas, half], timeout=30_000)
    blurred = canvas.evaluate(shown)
    result.get_by_role("slider").press("End")
    page.wait_for_function(other, arg=[canvas, blurred], timeout=30_000)
    assert "gallery" not in page.locator("main").aria_snapshot().lower()


def test_the_gallery_shows_pages_and_plays_what_is_pointed_at(page: Page, server: PageServer) -> None:
    for number in range(30):
        made(server, f"number {number}")
    open_page(page, server)
    expect(page.locator(".card")).to_have_count(24)
    expect(page.locator(".card").first).to_contain_text("number 29")
    page.get_by_role("button", name="Show older ones").click()
    expect(page.locator(".card")).to_have_count(30)
    expect(page.locator(".card").last).to_contain_text("number 0")
    expect(page.get_by_role("button", name="Show older ones")).to_be_hidden()
    let_play(page)
    page.get_by_role("button", name="Open: number 28").hover()
    page.wait_for_function("() => document.querySelectorAll('.card video')[1]?.currentTime > 0")


def test_a_hostile_prompt_is_shown_as_text(page: Page, server: PageServer) -> None:
    prompt = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
    server.fail(server.add({"model": "shapes-dc", "prompt": prompt}), "<b>bold</b>")
    ask(page, prompt)
    expect(page.locator("#screen-prompt")).to_have_text(prompt)
    expect(page.locator(".card .prompt").first).to_have_text(prompt)
    expect(page.get_by_text("<b>bold</b>; ask for fewer frames")).to_be_visible()
    page.locator(".thumb").first.click()
    expect(page.locator("#viewer-prompt")).to_have_text(prompt)
    assert page.evaluate("() => window.hacked === undefined && !document.querySelector('main b, main [onerror]')")


def test_an_error_is_one_line_with_its_hint(page: Page, server: PageServer) -> None:
    page.get_by_label("Prompt", exact=True).fill(" ")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator("#complaint")).to_have_text("the prompt is empty; say in words what should be seen")
    page.get_by_label("Prompt", exact=True).fill("something")
    expect(page.locator("#complaint")).to_have_text("")


def test_the_key_is_asked_for_kept_in_the_tab_and_sent_in_a_header_alone(browser: Browser) -> None:
    server = PageServer(key="dcvk_right").start()
    with browser.new_context(reduced_motion="reduce") as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(server.url)
        dialog = page.get_by_role("dialog", name="This server asks for an API key")
        dialog.get_by_label("API key", exact=True).fill("dcvk_wrong")
        dialog.get_by_role("button", name="Continue").click()
        expect(dialog).to_contain_text("this API key is not valid here")
        dialog.get_by_label("API key", exact=True).fill("dcvk_right")
        dialog.get_by_role("button", name="Continue").click()
        ask(page)
        expect(page.locator("#screen video")).to_have_js_property("videoWidth", 160)
        assert page.evaluate("() => sessionStorage.getItem('dcvideogen.key')") == "dcvk_right"
        assert context.cookies() == []
        assert not any("dcvk" in path for _, path in server.seen)
        page.get_by_role("button", name="Forget the key").click()
        expect(dialog).to_be_visible()
    server.stop()
