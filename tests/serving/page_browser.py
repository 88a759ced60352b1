"""What the tests of the page share: a headless Chromium, and the page in it before the stand-in server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

pytest.importorskip("playwright.sync_api", reason="drives the browser: pip install playwright")
from page_server import PageServer
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dcvideogen.serving.wanted import ReconstructionBody, VideoBody

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE_MS = 120_000  # a busy machine is slow, not wrong
PROMPT = "a red circle moves to the right"
WANTED = {"/v1/videos": VideoBody, "/v1/plan": VideoBody, "/v1/reconstructions": ReconstructionBody}

NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(name="browser", scope="module")
def a_browser() -> Iterator[Browser]:
    # Playwright gives it an empty profile, and removes that.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=2 * PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture(name="server")
def a_server() -> Iterator[PageServer]:
    """Held: `step` and `step_to` move it."""
    server = PageServer().start()
    server.held.set()
    yield server
    server.stop()


@pytest.fixture(name="page")
def a_page(browser: Browser, server: PageServer) -> Iterator[Page]:
    """Open and filled; it must not ask another host, complain in its console, or send what the server refuses."""
    # Videos that play cost most of the time here: only tests of that let them, with `let_play`.
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    wrong: list[str] = []
    page.on("request", lambda request: is_own(request.url, server) or wrong.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: is_harmless(message.text) or wrong.append(message.text))
    open_page(page, server)
    yield page
    context.close()
    assert wrong == []
    for path, body in server.posted:
        WANTED[path].model_validate_json(json.dumps(body))


def let_play(page: Page) -> None:
    page.emulate_media(reduced_motion="no-preference")


def open_page(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    page.wait_for_selector("body[data-ready]")


def is_own(url: str, server: PageServer) -> bool:
    return url.startswith((server.url, f"blob:{server.url}"))


def is_harmless(text: str) -> bool:
    """What Chromium itself says of answers that are errors, and of a server that is down."""
    return "Failed to load resource" in text


def ask(page: Page, prompt: str = PROMPT) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Generate", exact=True).click()


def made(server: PageServer, prompt: str = PROMPT, model: str = "shapes-dc", **changes: object) -> dict:
    job = server.add({"model": model, "prompt": prompt}, **changes)
    server.finish(job)
    return job
