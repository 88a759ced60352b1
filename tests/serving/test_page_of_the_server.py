"""The page before the real HTTP interface, with a worker that the test plays."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_server import KnownPlan, settings
from page_browser import NEEDS_CHROMIUM, PATIENCE_MS, PROMPT, a_browser, ask, is_harmless  # noqa: F401
from page_films import film, preview
from playwright.sync_api import Browser, expect

from dcvideogen.serving.jobs import Stage
from dcvideogen.serving.work_queue import WorkQueue

uvicorn = pytest.importorskip("uvicorn", reason="serves the interface: pip install dcvideogen[serve]")
pytestmark = NEEDS_CHROMIUM


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    from dcvideogen.serving.app import create_app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = create_app(settings(tmp_path, port=port), KnownPlan())
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


def test_the_page_and_the_server_understand_each_other(browser: Browser, address: str, tmp_path: Path) -> None:
    queue = WorkQueue(tmp_path, lease_s=3600)  # a busy machine must not look like a dead worker
    with browser.new_context(reduced_motion="reduce") as context:
        context.set_default_timeout(PATIENCE_MS)
        page, wrong = context.new_page(), []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: is_harmless(message.text) or wrong.append(message.text))
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        plan = page.get_by_label("What this would take")
        expect(plan).to_contain_text("1.0 GiB")
        expect(page.get_by_text("a warning")).to_be_visible()
        ask(page)
        screen = page.get_by_role("region", name="Asked for last")
        expect(screen).to_contain_text("Waiting: next in the queue")
        lease = queue.claim(["shapes-dc"], device="cpu")
        queue.progress(lease, Stage.DENOISING, 2, 4)
        expect(screen).to_contain_text("Denoising 2 of 4")
        queue.files.preview(lease.job.id).write_bytes(preview(PROMPT, 48, 32, 1))
        queue.note_preview(lease)
        expect(screen.get_by_alt_text("Preview")).to_be_visible()
        queue.files.video(lease.job.id).write_bytes(film(PROMPT, 48, 32, 8, 8.0))
        queue.finish(lease)
        expect(screen.locator("video")).to_have_js_property("videoWidth", 48)
        page.get_by_role("button", name=f"Delete: {PROMPT}").click()
        page.get_by_role("button", name=f"Really? {PROMPT}").click()
        expect(page.locator(".card")).to_have_count(0)
        assert wrong == []
    queue.close()
