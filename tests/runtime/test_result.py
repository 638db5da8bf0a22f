"""A result draws and saves itself, and its fields are documented once: docs/python.md repeats the docstring."""

from __future__ import annotations

import dataclasses
import inspect
import re
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.decision import Verdict
from edgead.errors import ConfigError, DataError
from edgead.runtime.inspector import Inspector
from edgead.runtime.result import Result

NOISE = np.random.default_rng(1).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def described() -> list[str]:
    """The rows of docs/python.md that the docstring and the annotations of `Result` ask for."""
    text = inspect.getdoc(Result) or ""
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", text.partition("Attributes:\n")[2], re.M | re.S)
    texts = {name: " ".join(words.split()) for name, words in entries}
    fields = {field.name: str(field.type) for field in dataclasses.fields(Result)}
    assert texts.keys() == fields.keys(), "every field has its words"
    rows = [(name, kind, texts[name]) for name, kind in fields.items()]
    for name, value in vars(Result).items():
        if isinstance(value, cached_property):
            rows.append((name, value.func.__annotations__["return"], " ".join((value.func.__doc__ or "").split())))
    return [f"| `{name}` | `{kind}` | {words} |".replace("``", "`") for name, kind, words in rows]


def test_the_page_repeats_the_docstring() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## The result\n")[2].partition("\n| method")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [row.replace(" | None`", " \\| None`") for row in described()]


@pytest.fixture
def result(inspector: Inspector) -> Result:
    found = inspector.inspect(NOISE[0])
    found.verdict, found.threshold, found.mask_threshold = Verdict.FAIL, found.score - 1, -np.inf
    found.mask_threshold = float(np.median(found.anomaly_map))
    return found


def test_an_overlay_is_a_new_picture_of_the_frames_size(result: Result) -> None:
    before = NOISE[0].copy()
    picture = result.overlay()
    assert (picture.shape, picture.dtype) == (NOISE[0].shape, np.uint8)
    assert result.frame is NOISE[0] or np.shares_memory(result.frame, NOISE[0])
    np.testing.assert_array_equal(NOISE[0], before)
    assert (picture != NOISE[0]).any()
    np.testing.assert_array_equal(result.overlay(NOISE[0]), picture)
    red = (picture == (0, 0, 255)).all(axis=2)
    assert red.any()  # the outline of the mask


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".webp"])
def test_a_result_is_saved_as_its_ending_says(suffix: str, result: Result, tmp_path: Path) -> None:
    path = result.save(tmp_path / "new" / f"picture{suffix}")
    read = cv2.imread(str(path))
    assert read.shape == NOISE[0].shape
    if suffix.lower() == ".png":
        np.testing.assert_array_equal(read, result.overlay())


def test_what_cannot_be_saved_is_refused(result: Result, tmp_path: Path) -> None:
    for name in ("picture", "picture.pdf"):
        with pytest.raises(DataError, match=r"\.png"):
            result.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="64×48 pixels, the given one 8×8"):
        result.overlay(np.zeros((8, 8, 3), np.uint8))
    result.frame = None
    with pytest.raises(ConfigError, match="keep_frames=True"):
        result.save(tmp_path / "x.png")
    result.save(tmp_path / "x.png", NOISE[0])


def test_a_notebook_shows_the_overlay(result: Result) -> None:
    data = result._repr_png_()
    assert data
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), 1), result.overlay())
    result.frame = None
    assert result._repr_png_() is None  # and the text of __repr__ is shown


def test_a_result_without_a_map_shows_the_frame() -> None:
    unknown = Result(float("nan"), Verdict.UNKNOWN, "late", 1.0, frame_size=(48, 64), frame=NOISE[0])
    picture = unknown.overlay()
    np.testing.assert_array_equal(picture, NOISE[0])
    assert not np.shares_memory(picture, NOISE[0])


def test_depth_is_left_out_of_the_picture(result: Result) -> None:
    deep = np.dstack([NOISE[0], NOISE[0][:, :, 0]])
    np.testing.assert_array_equal(result.overlay(deep), result.overlay())


def test_a_stream_keeps_frames_on_request(inspector: Inspector) -> None:
    assert all(found.frame is None for found in inspector.stream(NOISE[:3]))
    for found, frame in zip(inspector.stream(NOISE[:3], keep_frames=True), NOISE):
        np.testing.assert_array_equal(found.frame, frame)
        assert found.overlay().shape == frame.shape
