"""Make the pictures of docs/live-page.md: a line with two cameras' worth of parts, seen in Chromium.

    python benchmarks/live_page_pictures.py BUNDLE IMAGES --out docs

IMAGES is a folder with good images in good/ and defective ones beside it: the test folder of `edgead demo`, say.
"""

from __future__ import annotations

import argparse
import itertools
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgead.images import Frame, read_frame
from edgead.runtime.run import run
from edgead.runtime.sources.source import Captured, FrameSource
from edgead.view.view import View

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
GOOD_BETWEEN = 5


class Parts(FrameSource):
    """A camera before which parts pass: good ones, and a defective one after every few.

    Args:
        folder: with images in good/ and defective ones beside it.
        pause: seconds between two.
    """

    live = True

    def __init__(self, folder: Path, pause: float, name: str) -> None:
        super().__init__(name)
        self.pause, self.hold = pause, threading.Event()
        good = sorted((folder / "good").glob("*.png"))
        bad = sorted(path for path in folder.glob("*/*.png") if path.parent.name != "good")
        self.frames = [read_frame(path) for path in _mixed(good, bad)]
        self.only: Frame | None = None

    def read(self) -> Iterator[Captured]:
        for number, frame in enumerate(itertools.cycle(self.frames)):
            if self.stopped.wait(self.pause):
                return
            while self.hold.is_set() and not self.stopped.wait(0.05):
                pass
            yield Captured(frame if self.only is None else self.only, "", self.name, number, time.monotonic())


def _mixed(good: list[Path], bad: list[Path]) -> Iterator[Path]:
    goods = itertools.cycle(good)
    kinds = [list(group) for _, group in itertools.groupby(bad, key=lambda path: path.parent)]
    for group in itertools.zip_longest(*kinds):
        for path in filter(None, group):
            yield from itertools.islice(goods, GOOD_BETWEEN)
            yield path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--engine", default="onnxruntime")
    options = parser.parse_args()
    os.environ["VIEW_TOKEN"] = secrets.token_urlsafe()
    with tempfile.TemporaryDirectory() as folder:
        source = Parts(options.images, 0.12, "front")
        view = View("0", token="${VIEW_TOKEN}", bundles=[options.bundle], folder=Path(folder), say=print)
        line = threading.Thread(target=_run, args=(options, source, view, Path(folder)), daemon=True)
        line.start()
        try:
            _take_pictures(view, source, options.out, os.environ["VIEW_TOKEN"])
        finally:
            source.stop()
            line.join(20)


def _run(options: Any, source: Parts, view: View, folder: Path) -> None:
    sources: Any = [source]  # an open source instead of a URI
    sinks = [f"jsonl:{folder}/results.jsonl", f"rejects:{folder}/rejects"]
    run(options.bundle, sources=sources, sinks=sinks, engine=options.engine, observer=view, health="off")


def _wait_for(source: Parts, page: Any, kind: str) -> None:
    """Hold the line when the page shows this verdict."""
    source.pause = 1.2
    page.wait_for_selector(f'.banner[data-kind="{kind}"]', timeout=60_000)
    source.hold.set()
    time.sleep(1.2)


def _take_pictures(view: View, source: Parts, out: Path, token: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        wide = browser.new_page(viewport={"width": 1280, "height": 1280}, color_scheme="light")
        time.sleep(12)
        wide.goto(view.url)
        wide.wait_for_selector(".strip li")
        _wait_for(source, wide, "fail")
        _shoot(wide, out / "live-page-1280.jpg")
        phone = browser.new_page(viewport={"width": 390, "height": 1150}, color_scheme="dark")
        phone.goto(view.url)
        source.hold.clear()
        _wait_for(source, phone, "pass")
        _shoot(phone, out / "live-page-390.jpg")
        wide.keyboard.press("t")
        time.sleep(1)
        _move_slider(wide)
        _shoot(wide, out / "live-page-threshold.png", "#threshold")
        wide.keyboard.press("Escape")
        wide.wait_for_selector("#threshold", state="hidden")
        wide.keyboard.press("r")
        time.sleep(0.8)
        _shoot(wide, out / "live-page-reject.jpg", "#reject")
        browser.close()


def _move_slider(page: Any) -> None:
    page.focus("#slider")
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    time.sleep(0.6)


def _shoot(page: Any, path: Path, selector: str = "") -> None:
    kind = {"type": "jpeg", "quality": 72} if path.suffix == ".jpg" else {}
    target = page.locator(selector) if selector else page
    path.write_bytes(target.screenshot(**kind))
    print(path, f"{path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
