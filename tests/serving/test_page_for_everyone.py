"""The page with a keyboard alone, on a phone, in the dark, and for a screen reader."""

from __future__ import annotations

import pytest
from page_browser import (  # noqa: F401
    NEEDS_CHROMIUM,
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
from playwright.sync_api import Page, expect

pytestmark = NEEDS_CHROMIUM

# Of every visible text its contrast with what lies below it (WCAG 2.1, 1.4.3): those under 4.5, in words.
LOW_CONTRAST = """() => {
  const parts = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const over = ([r, g, b, a = 1], below) => [r, g, b].map((value, index) => a * value + (1 - a) * below[index]);
  const ground = (node) => {
    if (!node) return [255, 255, 255];
    const own = parts(getComputedStyle(node).backgroundColor);
    return own.length === 3 || own[3] === 1 ? own.slice(0, 3) : over(own, ground(node.parentElement));
  };
  const light = (colour) => {
    const linear = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const low = [];
  for (const node of document.querySelectorAll("body *")) {
    const texts = [...node.childNodes].filter((child) => child.nodeType === 3);
    const words = texts.map((child) => child.data.trim()).join("");
    const typed = node.matches("input, textarea, select") && !node.matches("[type=file], [type=range]");
    if ((!words && !typed) || !node.checkVisibility() || node.matches(":disabled, noscript, option")) continue;
    const below = ground(node);
    const [a, b] = [light(over(parts(getComputedStyle(node).color), below)), light(below)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) low.push(`${contrast.toFixed(2)}: ${node.tagName} ${words || node.id}`);
  }
  return low;
}"""

SMALL_CONTROLS = """() => [...document.querySelectorAll("button, input, select, textarea, nav a")]
  .filter((node) => node.checkVisibility() && node.getBoundingClientRect().height < 40)
  .map((node) => node.outerHTML)"""

CONTROLS = {
    "button", "link", "textbox", "spinbutton", "combobox", "slider", "checkbox", "radio", "progressbar", "image",
    "dialog", "form", "region", "table", "listbox", "navigation",
}  # fmt: skip


@pytest.fixture
def busy_page(page: Page, server: PageServer) -> Page:
    """With a video of every state."""
    made(server, "a blue square")
    made(server, "a green triangle", "shapes-base")
    server.fail(server.add({"model": "shapes-dc", "prompt": "a purple square"}), "the device ran out of memory")
    server.cancel(server.add({"model": "shapes-dc", "prompt": "a yellow circle"}))
    server.finish(server.add({"model": "dcae-small"}, "reconstruct"))
    server.finish(server.add({"model": "dcae-small"}, "reconstruct"))
    open_page(page, server)
    ask(page)
    server.step_to("in_progress", "denoising")
    expect(page.locator("#screen")).to_contain_text("Denoising")
    return page


def nameless(page: Page) -> list[dict]:
    """Of the accessibility tree: controls that a screen reader cannot name."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    seen = [node for node in nodes if not node["ignored"] and node.get("role", {}).get("value") in CONTROLS]
    assert len(seen) > 3  # an open dialog hides all that is not in it
    return [node for node in seen if not node.get("name", {}).get("value", "").strip()]


def test_a_keyboard_alone_suffices(page: Page, server: PageServer) -> None:
    def press_until(selector: str) -> None:
        for _ in range(60):
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
                assert outline == "solid", f"{selector} does not show its focus"
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not lead to {selector}")

    let_play(page)
    press_until("#prompt")
    page.keyboard.type(PROMPT)
    press_until("#dice")
    page.keyboard.press("Enter")
    expect(page.locator("#seed")).not_to_have_value("")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".card")).to_have_count(1)
    server.step_to("completed")
    expect(page.locator(".card")).to_contain_text("Made in")
    press_until(".thumb")
    page.wait_for_function("() => document.querySelector('.card video')?.currentTime > 0")
    page.keyboard.press("Enter")
    expect(page.locator("#viewer video")).to_have_js_property("videoWidth", 160)
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    assert page.evaluate("() => document.activeElement.matches('.thumb')")
    press_until("[aria-label^='Delete']")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(0)
    assert server.jobs == {}
    assert page.evaluate("() => document.activeElement.id") == "prompt"


def test_every_control_has_a_name(busy_page: Page) -> None:
    assert nameless(busy_page) == []
    busy_page.locator(".thumb").nth(2).click()
    expect(busy_page.locator("#viewer")).to_be_visible()
    assert nameless(busy_page) == []
    busy_page.keyboard.press("Escape")
    busy_page.get_by_role("link", name="Reconstruct").click()
    assert nameless(busy_page) == []


def test_on_a_phone_nothing_is_cut_off_or_too_small_to_press(busy_page: Page) -> None:
    busy_page.set_viewport_size({"width": 360, "height": 740})
    for task in ("Reconstruct", "Generate"):
        busy_page.get_by_role("link", name=task).click()
        assert busy_page.evaluate("() => document.documentElement.scrollWidth") == 360
        assert busy_page.evaluate(SMALL_CONTROLS) == []
    busy_page.locator(".thumb").nth(4).click()
    assert busy_page.evaluate("() => document.querySelector('#viewer').scrollWidth") <= 360
    assert busy_page.evaluate(SMALL_CONTROLS) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast_in_both_themes(busy_page: Page, scheme: str) -> None:
    busy_page.emulate_media(color_scheme=scheme)
    for task in ("Reconstruct", "Generate"):
        busy_page.get_by_role("link", name=task).click()
        assert busy_page.evaluate(LOW_CONTRAST) == []
    # The button goes the other way, whatever the system wants, and a reload keeps that.
    other = "light" if scheme == "dark" else "dark"
    while busy_page.locator("#theme").inner_text() != f"Theme: {other}":
        busy_page.locator("#theme").click()
    busy_page.reload()
    assert busy_page.evaluate("() => getComputedStyle(document.documentElement).colorScheme") == other


def test_nothing_moves_by_itself_where_people_asked_for_less_motion(page: Page, server: PageServer) -> None:
    made(server)
    open_page(page, server)
    expect(page.locator("#screen video")).to_have_js_property("videoWidth", 160)
    page.locator(".thumb").hover()
    page.wait_for_timeout(300)
    assert page.evaluate("() => [...document.querySelectorAll('video')].every((video) => video.paused)")


def test_nothing_below_moves_while_a_video_is_made(page: Page, server: PageServer) -> None:
    made(server)
    ask(page, "another one")
    top = "() => document.querySelector('#gallery-title').getBoundingClientRect().top + scrollY"
    expect(page.locator("#screen")).to_contain_text("Waiting")
    waiting = page.evaluate(top)
    server.step_to("in_progress", "denoising")
    expect(page.locator("#screen")).to_contain_text("Denoising 0 of 8")
    assert page.evaluate(top) == waiting
    while any(job["status"] != "completed" for job in server.jobs.values()):
        server.step()
    expect(page.locator("#screen video")).to_have_js_property("videoWidth", 160)
    assert page.evaluate(top) == waiting
