"""Every command and program of the documentation runs, page by page; what cannot is listed with its reason."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path

import pytest
from command_line import inside
from level_bundle import frame_of, make_level_bundle
from page_steps import OURS, OUTSIDE, PAGES, ROOT, Page, absent, check_unrun, follow, name_of, steps

from edgead.images import encode_png

ELSEWHERE = {
    "contribute.md": "test_docs_pages.py",
    "live-page.md": "test_docs_pages.py",
    "lookout.md": "test_docs_pages.py",
    "plan.md": "test_docs_pages.py",
    "python.md": "test_docs_python.py",
    "reports.md": "test_docs_pages.py",
    "tutorial.md": "test_docs_pages.py",
}
"""Pages that need a test of their own ↦ its file."""
GPU = "needs a GPU"
HOURS = "takes hours"
WAY: dict[str, Page] = {}
TRAINING: dict[str, Page] = {}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, parts: Path) -> Path:
    """A folder with what readers have, under the names of the pages: bundles, pictures and rejects."""
    folder = tmp_path_factory.mktemp("shelf")
    for name in ("bottle", "bottle-int8", "other", "new", "bundles/bottle", "bundles/cap"):
        make_level_bundle(folder / f"{name}.edgead")
    for name, grey in (("a", 100), ("b", 200), ("c", 120)):
        (folder / "images").mkdir(exist_ok=True)
        (folder / "images" / f"{name}.png").write_bytes(encode_png(frame_of(grey)))
    shutil.copytree(parts, folder / "labelled")
    shutil.copytree(parts / "train" / "good", folder / "photos")
    done = inside("run", "bottle.edgead", "--source", "images", "--sink", "rejects:rejects", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def of_page(name: str) -> tuple[str, str]:
    path = next(each for each in PAGES if str(each.relative_to(ROOT)) == name or each.name == name)
    return name, path.read_text(encoding="utf-8")


def pages_with_steps() -> list[str]:
    texts = {str(path.relative_to(ROOT)).removeprefix("docs/"): path.read_text(encoding="utf-8") for path in PAGES}
    return [name for name, text in texts.items() if any(kind != "shown" for kind, _ in steps(text))]


@pytest.mark.parametrize("name", [name for name in pages_with_steps() if name not in {*ELSEWHERE, *TRAINING}])
def test_a_page_says_what_works(name: str, shelf: Path, tmp_path: Path) -> None:
    shutil.copytree(shelf, tmp_path / "work")
    _, text = of_page(name)
    follow(text, tmp_path / "work", WAY.get(name, Page()))
