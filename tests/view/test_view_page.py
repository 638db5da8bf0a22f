"""The page in a real browser, with a real line in another process that is killed at the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from level_bundle import make_level_bundle
from view_line import TOKEN

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("no Chromium: apt install chromium", allow_module_level=True)

TESTS = Path(__file__).parents[1]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
KINDS = ("pass", "fail", "unknown", "paused", "waiting", "lost")
CONTRAST = """(kind) => {
  const banner = document.querySelector(".banner"), before = banner.dataset.kind;
  banner.dataset.kind = kind;
  const linear = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = (text) => {
    const [r, g, b] = text.match(/[0-9.]+/g).map(Number).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(banner), word = getComputedStyle(banner.querySelector(".word"));
  const [low, high] = [light(style.backgroundColor), light(word.color)].sort((a, b) => a - b);
  banner.dataset.kind = before;
  return (high + 0.05) / (low + 0.05);
}"""


STRIP_RESTS = """() => {
  const first = document.querySelector(".strip").firstChild;
  if (first !== window.newest) Object.assign(window, { newest: first, since: Date.now() });
  return Date.now() - window.since > 2500;  // the strip is sent once a second
}"""


class Line:
    """The process, and the page that looks at it."""

    def __init__(self, process: subprocess.Popen[str], url: str, page: Any, folder: Path) -> None:
        self.process, self.url, self.page, self.folder = process, url, page, folder

    def show(self, what: str, kind: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        self.page.wait_for_selector(f'.banner[data-kind="{kind}"]')


def start(bundle: Path, marks: Path, *port_and_name: str) -> tuple[subprocess.Popen[str], str]:
    """Start the process of a line; return it with the address of its page."""
    path = os.pathsep.join(map(str, (TESTS.parent, TESTS, TESTS / "view")))
    process = subprocess.Popen(
        [sys.executable, str(TESTS / "view" / "view_line.py"), str(bundle), str(marks), *port_and_name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "VIEW_TOKEN": TOKEN, "PYTHONPATH": path},
    )
    assert process.stdout
    return process, process.stdout.readline().strip()


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("page")
    bundle = make_level_bundle(folder / "first.edgead").path
    process, url = start(bundle, folder / "marks")
    try:
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(30_000)
            page.complaints = []
            page.on("console", lambda message: page.complaints.append(message.text))
            page.on("pageerror", lambda error: page.complaints.append(str(error)))
            page.asked = []
            page.on("request", lambda request: page.asked.append(request.url))
            page.goto(url)
            started = Line(process, url, page, folder / "marks")
            yield started
            browser.close()
    finally:
        for each in {process, started.process}:
            each.kill()
            each.communicate()


def is_seen(page: Any, selector: str) -> bool:
    return bool(page.locator(selector).first.is_visible())


def told(page: Any, selector: str, pattern: str) -> None:
    """Wait for a text on the page."""
    page.locator(selector).filter(has_text=re.compile(pattern)).wait_for()


def test_verdict_outline_and_heat_map(line: Line) -> None:
    page = line.page
    page.wait_for_selector('.banner[data-kind="waiting"]')
    line.show("good", "pass")
    word = page.locator('.banner[data-kind="pass"] .word')  # where the line is held up, another banner comes and goes
    assert word.inner_text() == "PASS"
    assert word.bounding_box()["height"] > 140  # pixels: legible across an aisle
    assert page.locator(".name").inner_text() == "<b>front</b>"
    page.wait_for_selector(".live .box img")
    assert not page.locator(".live .outline path").first.get_attribute("d")
    line.show("bad", "fail")
    page.locator(".live .outline path[d^=M]").first.wait_for(state="attached")
    page.wait_for_selector(".strip li img[src^=data]")
    page.wait_for_selector(".held .box")
    assert is_seen(page, ".live .outline")
    assert not is_seen(page, ".live .heat")
    page.get_by_role("button", name="Heat map").first.click()
    assert is_seen(page, ".live .heat")
    page.keyboard.press("h")
    page.keyboard.press("o")
    assert not is_seen(page, ".live .heat")
    assert not is_seen(page, ".live .outline")
    page.keyboard.press("o")
    line.show("damaged", "unknown")
    why = page.locator('.banner[data-kind="unknown"] .why').inner_text()
    assert "The picture is damaged" in why
    assert "Check the camera cable" in why


def test_a_reject_is_marked_with_the_keyboard_alone(line: Line) -> None:
    page = line.page
    line.show("bad", "fail")
    line.show("none", "fail")
    page.keyboard.press("r")
    page.wait_for_selector("#reject .box")
    page.keyboard.press("2")
    page.wait_for_selector("#sign[open]")
    page.keyboard.type("Ada")
    page.keyboard.press("Tab")
    page.keyboard.type("wrong-token-123")
    page.keyboard.press("Enter")
    told(page, "#reject .told", r"^Wrong token.$")
    page.keyboard.press("2")
    page.keyboard.press("Tab") if page.evaluate("document.activeElement.id") == "who" else None
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    told(page, "#reject .told", r"^Marked as false reject.$")
    page.keyboard.press("3")  # the token is remembered
    told(page, "#reject .told", r"^Marked as unsure.$")
    page.keyboard.press("Escape")
    assert not is_seen(page, "#reject")
    assert len(list((line.folder / "unsure").iterdir())) == 1
    lines = [json.loads(each) for each in (line.folder / "marks.jsonl").read_text().splitlines()]
    assert [(each["mark"], each["by"]) for each in lines] == [("false reject", "Ada"), ("unsure", "Ada")]


def test_a_mark_that_is_stored_late_is_not_said_of_the_next_reject(line: Line) -> None:
    """Who marks one and goes on at once read “Marked as unsure” below the next one, and left it out."""
    page, held = line.page, list[Any]()
    line.show("bad", "fail")
    page.wait_for_selector(".strip li:nth-child(2)")
    line.show("none", "fail")
    page.wait_for_function(STRIP_RESTS)
    page.route("**/api/changes/mark", lambda route: held.append(route))
    page.keyboard.press("r")
    page.wait_for_selector("#reject .box")
    page.keyboard.press("3")
    if is_seen(page, "#sign"):
        page.fill("#who", "Ada")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
    while not held:
        page.wait_for_timeout(10)
    page.keyboard.press("ArrowRight")
    page.unroute("**/api/changes/mark")  # it arrives now
    told(page, "#reject .told", r"^Reject of \d\d:\d\d:\d\d.*: Marked as unsure.$")
    page.keyboard.press("Escape")


def test_the_large_picture_steps_to_older_and_newer_rejects(line: Line) -> None:
    """Every step led to a reject without time, camera and picture, that could not be marked."""
    page = line.page

    def frame() -> int:
        return int(page.inner_text("#reject-facts div:nth-child(2) dd"))

    line.show("bad", "fail")
    page.wait_for_selector(".strip li:nth-child(2)")
    line.show("none", "fail")
    page.wait_for_function(STRIP_RESTS)
    page.keyboard.press("r")
    newest = frame()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#reject .box")
    older = frame()
    assert older < newest
    page.click("#newer")
    assert frame() == newest
    page.click("#older")
    page.evaluate("document.querySelectorAll('.strip li').forEach((each) => each.id = 'before')")
    line.show("bad", "fail")
    page.wait_for_function("() => !document.querySelector('.strip #before')")  # all of them are off the page
    page.keyboard.press("ArrowRight")  # there is no older one
    assert frame() == older
    page.keyboard.press("ArrowLeft")
    assert frame() > newest
    page.keyboard.press("Escape")


def test_the_slider_says_what_it_would_change(line: Line) -> None:
    page = line.page
    line.show("good", "pass")
    line.show("bad", "fail")
    page.keyboard.press("t")
    page.wait_for_selector("#histogram svg")
    page.fill("#slider-value", "230")
    told(page, "#what-if", r" [1-9][0-9]* that failed would pass")
    page.focus("#slider")
    page.keyboard.press("Home")
    told(page, "#what-if", r": [1-9][0-9]* that passed would fail")
    page.keyboard.press("Escape")


def focused(page: Any) -> str:
    return str(page.evaluate("document.activeElement.id || document.activeElement.className"))


@pytest.mark.parametrize("typed", ["", "-", "1e999"])
def test_a_number_that_is_none_is_not_set_as_the_threshold(line: Line, typed: str) -> None:
    """A field that is empty, or holds half a number or "0,5", set the threshold to 0."""
    page = line.page
    before = page.text_content("#model")
    page.keyboard.press("t")
    page.fill("#slider-value", "")
    page.type("#slider-value", typed)
    time.sleep(2.5)  # scores are fetched every 2 s
    page.click("#apply-threshold")
    page.wait_for_function("() => document.querySelector('#threshold .told').textContent.includes('no number')")
    assert not page.is_visible("#sign")
    page.click("#own-threshold")
    page.wait_for_function("() => document.querySelector('#slider-value').value > 100")
    page.keyboard.press("Escape")
    assert page.text_content("#model") == before


def test_scores_that_come_late_leave_what_is_typed_as_it_is(line: Line) -> None:
    """A page far from the line: while somebody typed 0.5, "0." became "0", and then 50."""
    page, held = line.page, list[Any]()
    page.route("**/api/scores", lambda route: held.append(route))
    page.keyboard.press("t")
    page.fill("#slider-value", "")
    page.locator("#slider-value").press_sequentially("0.", delay=10)
    while not held:
        page.wait_for_timeout(10)
    page.unroute("**/api/scores")  # they arrive now
    page.wait_for_timeout(500)
    page.locator("#slider-value").press_sequentially("5")
    assert page.input_value("#slider-value") == "0.5"
    page.keyboard.press("Escape")


def test_times_are_those_of_the_clock_beside_the_line(line: Line) -> None:
    """Where an hour of UTC begins at half past, it was called by the full hour before; the bundle's time was UTC."""
    line.show("good", "pass")
    page = line.page.context.browser.new_page(timezone_id="Asia/Kolkata", viewport={"width": 1280, "height": 900})
    page.goto(line.url)
    told(page, "#hours tbody tr:first-child td:first-child", r"^\d\d:30$")
    made = page.evaluate("""() => new Promise((done) => {
      const source = new EventSource("/api/events");
      source.addEventListener("state", (event) => { source.close(); done(JSON.parse(event.data).model.created); });
    })""")
    local = datetime.fromisoformat(made).astimezone(timezone(timedelta(hours=5.5)))
    told(page, "#model", f"{local:%Y-%m-%d %H:%M}")
    page.close()


def test_figures_are_not_rounded_to_what_they_are_not(line: Line) -> None:
    """A FAIL had the score of its limit, one PASS in 2,500 was 100 % rejected, of two scores the larger was typical."""
    found = line.page.evaluate("""async () => {
      const { apart, percent } = await import("/static/dom.js"), { typical } = await import("/static/camera.js");
      return [apart(0.500041, 0.5), apart(0.00010001, 0.0001), apart(0.5, 0.5), apart(null, null),
        percent(0.9996), percent(1), percent(0.5), percent(0),
        typical([[0.1, "P"], [7, "F"], [0.9, "P"]], null), typical([[3, "P"], [1, "P"], [2, "P"]], 0.5)];
    }""")
    assert found[:4] == [["0.50004", "0.5"], ["1.0001e-4", "1.0000e-4"], ["0.5", "0.5"], ["–", "–"]]
    assert found[4:] == ["99.96 %", "100 %", "50 %", "0 %", "0.5", "2 (held-out images 0.5)"]


def test_every_control_is_reached_with_tab(line: Line) -> None:
    page = line.page
    line.show("bad", "fail")
    wanted = {"pause", "open-threshold", "theme", "open-help", "toggle heat-toggle", "toggle outline-toggle"}
    reached: set[str] = set()
    for _ in range(30):  # twice around the page
        page.keyboard.press("Tab")
        reached.add(focused(page))
    assert wanted <= reached


def test_rejects_that_come_fast_do_not_hold_the_keyboard(line: Line) -> None:
    page = line.page
    line.show("bad", "fail")
    page.focus(".strip button")
    replaced = page.locator(".strip button").first.element_handle()
    page.wait_for_function("node => !node.isConnected", arg=replaced)  # every reject of the strip is a newer one
    page.wait_for_function("document.activeElement.matches('.strip li:first-child button')")
    line.show("none", "fail")
    page.wait_for_function(STRIP_RESTS)
    page.focus(".strip button")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.matches('.strip li:nth-child(2) button')")
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.matches('.strip *')")


def test_colours_have_contrast_in_light_and_dark(line: Line) -> None:
    for scheme in ("light", "dark"):
        line.page.emulate_media(color_scheme=scheme)
        ratios = {kind: line.page.evaluate(CONTRAST, kind) for kind in KINDS}
        assert min(ratios.values()) >= 7, ratios
    line.page.emulate_media(color_scheme="light")


def test_a_phone_needs_no_sideways_scrolling(line: Line) -> None:
    page = line.page
    for what, kind in (("damaged", "unknown"), ("bad", "fail")):
        line.show(what, kind)
        for width in (390, 320, 768):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            word = page.locator(".word").bounding_box()
            assert word["x"] + word["width"] <= width, (width, what)
            if width == 390:  # the last column is the share of rejects
                hours = page.locator("#hours .scroll")
                assert hours.evaluate("node => node.scrollWidth <= node.clientWidth")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_the_page_asks_nobody_else_and_breaks_no_rule(line: Line) -> None:
    expected = ("401", "Failed to load resource")  # the browser notes the wrong token
    assert [text for text in line.page.complaints if not any(one in text for one in expected)] == []
    assert all(url.startswith((line.url, "data:", "blob:")) for url in line.page.asked)


def test_nothing_of_an_earlier_run_is_left_on_the_page(line: Line) -> None:
    """A page stays open beside the line. Cameras, pictures and rejects of before the restart are not those of now."""
    page, port = line.page, line.url.rpartition(":")[2].strip("/")
    line.show("bad", "fail")
    page.wait_for_selector(".held .box")
    page.wait_for_selector(".strip li")
    for name in ("<b>front</b>", "side"):
        line.process.kill()
        line.process.communicate()
        page.wait_for_selector('.banner[data-kind="lost"]')
        line.process, _ = start(line.folder.parent / "first.edgead", line.folder, port, name)
        page.wait_for_selector('.banner[data-kind="waiting"]')
        assert page.locator(".camera .name").all_inner_texts() == [name]
        assert page.locator(".stage .none").all_inner_texts()[:2] == ["No picture yet", "No reject in this run"]
        assert page.locator(".held-age").inner_text() == ""
        assert page.locator(".strip li").count() == 0
    line.show("bad", "fail")
    page.wait_for_selector(".held .box")
    page.wait_for_selector(".strip li img[src^=data]")


def test_time_and_score_of_the_last_reject_are_those_of_its_picture(line: Line) -> None:
    """Where every part fails, a picture comes once a second. Time, score and mark were those of a newer reject."""
    with urllib.request.urlopen(f"{line.url}api/events", timeout=10) as stream:
        lines = (each.decode() for each in stream)
        next(each for each in lines if each == "event: state\n")
        state = json.loads(next(lines).removeprefix("data: "))
    (camera,) = state["cameras"]
    older, newer = ({**camera["rejects"][0], "id": str(score), "score": score} for score in (150.0, 170.0))
    camera["rejects"] = [newer, older]
    pixel = {"width": 1, "height": 1, "jpeg": "", "heat": "", "outline": ""}
    events = ("state", state), ("held", {**older, "picture": pixel}), ("state", state)
    sent = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    with line.page.context.browser.new_page() as page:
        page.route("**/api/events", lambda route: route.fulfill(status=200, body=sent))
        page.goto(line.url)
        told(page, ".held-age", "150$")


def test_a_page_that_is_refused_says_why(line: Line) -> None:
    """The 33rd viewer was told to check the computer and the network."""
    browser = line.page.context.browser
    with browser.new_page() as page:
        text = "32 pages are open. Close one of them."
        page.route("**/api/events", lambda route: route.fulfill(status=503, body=f"{text}\n"))
        page.goto(line.url)
        told(page, "#alert", f"^No connection since .*: what you see is old. {text}$")
        page.unroute("**/api/events")
        page.wait_for_selector('body[data-link="ok"]')
        assert not is_seen(page, "#alert")


def test_a_browser_that_stores_nothing_shows_the_line(line: Line) -> None:
    """One that blocks cookies was told to check the computer and the network."""
    line.show("good", "pass")
    denied = "{ get() { throw new DOMException('denied', 'SecurityError'); } }"
    with line.page.context.browser.new_page() as page:
        for name in ("localStorage", "sessionStorage"):
            page.add_init_script(f"Object.defineProperty(window, '{name}', {denied})")
        asked: list[str] = []

        def refuse_once(route: Any) -> None:
            asked.append(route.request.headers.get("authorization", ""))
            if len(asked) == 1:
                route.fulfill(status=401)
            else:
                route.continue_()

        page.route("**/api/events", refuse_once)
        page.goto(line.url)
        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector('.banner[data-kind="pass"]')
        assert asked == ["", f"Bearer {TOKEN}"]
        page.locator("#theme").click()
        assert page.locator("html").get_attribute("data-theme") == "light"


def test_a_killed_process_is_noticed(line: Line) -> None:
    page = line.page
    line.show("good", "pass")
    page.keyboard.press("t")
    page.wait_for_selector("#histogram svg")
    line.process.kill()
    line.process.wait()
    began = time.monotonic()
    page.wait_for_selector('.banner[data-kind="lost"]')
    assert time.monotonic() - began < 5
    assert page.locator(".word").inner_text() == "NO CONNECTION"
    assert page.locator("#alert").inner_text().startswith("No connection since ")
    assert "what you see is old" in page.locator("#alert").inner_text()
    assert page.locator(".banner").evaluate("node => getComputedStyle(node).backgroundColor") != "rgb(95, 220, 155)"
    page.click("#apply-threshold")
    if is_seen(page, "#sign"):
        page.fill("#who", "Ada")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
    told(page, "#what-if", "^No connection.$")
    told(page, "#threshold .told", "^No connection. It is not known whether the change was made.$")
    page.wait_for_timeout(2500)  # scores are fetched every 2 s: their failure took the place of the answer
    told(page, "#threshold .told", "^No connection. It is not known whether the change was made.$")
