"""Make the pictures of docs/tutorial.md from what its commands have made.

    python docs/tutorial_pictures.py FOLDER     # the folder in which the tutorial was followed

The parts are drawn by `edgead.demo`, so the pictures are ours.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import edgead
from edgead.images import Frame, cv2, encode_image, read_frame

OUT = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
GOOD = [f"train/good/{number:03}.png" for number in (0, 3, 7, 12, 40, 99)]
SHOWN = ["good/001.png", "chip/001.png", "dent/001.png", "scratch/008.png", "stain/005.png"]


def main() -> None:
    folder = Path(sys.argv[1])
    parts = folder / "washer"
    write("tutorial-parts.jpg", np.concatenate([read_frame(parts / name) for name in GOOD], 1), 1000)
    with edgead.load(folder / "washer.edgead", engine="onnxruntime") as inspector:
        results = [inspector.inspect(read_frame(parts / "test" / name)) for name in SHOWN]
    print([(name, result.verdict.value) for name, result in zip(SHOWN, results)])
    frames = [result.frame for result in results if result.frame is not None]
    overlays = [result.overlay() for result in results]
    write("tutorial-overlays.jpg", np.concatenate([np.concatenate(frames, 1), np.concatenate(overlays, 1)]), 1000)
    shoot_scores(folder / "run" / "report.html")


def write(name: str, picture: Frame, width: int) -> None:
    height = round(picture.shape[0] * width / picture.shape[1])
    small = cv2().resize(picture, (width, height), interpolation=cv2().INTER_AREA)
    (OUT / name).write_bytes(encode_image(np.ascontiguousarray(small), ".jpg"))


def shoot_scores(page: Path) -> None:
    """Take a picture of the scores of the held-out parts, the first one on the page of a training."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport={"width": 760, "height": 900}, color_scheme="light")
        opened.goto(page.resolve().as_uri())
        opened.locator("figure:has(svg)").first.screenshot(path=OUT / "tutorial-scores.png")
        browser.close()


if __name__ == "__main__":
    main()
