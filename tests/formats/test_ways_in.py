"""Whatever way a damaged image comes in, nothing is decided on it, and training leaves it out."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.datasets import load_frames
from edgead.errors import DataError
from edgead.images import read_frame
from edgead.masks import read_mask
from edgead.runtime.sources import Captured, open_source

PART = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8), (0, 0), 2)


def with_hole(suffix: str) -> bytes:
    """Return a file that OpenCV decodes in part, or that lacks its end."""
    data = cv2.imencode(suffix, PART)[1].tobytes()
    middle = len(data) // 2
    if suffix in (".jpg", ".png", ".tiff"):
        return data[:middle] + bytes(3000) + data[middle + 3000 :]
    return data[:middle]


@pytest.fixture(params=[".jpg", ".png", ".tiff", ".bmp", ".ppm", ".webp"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "parts" / f"part{request.param}"
    path.parent.mkdir()
    path.write_bytes(with_hole(request.param))
    return path


def first(uri: str) -> Captured:
    with open_source(uri) as source:
        return next(iter(source))


@pytest.mark.parametrize("form", ["{0}", "{0.parent}", "{0.parent}/p*", "watch:{0.parent}?existing=1&poll=0.01"])
def test_files_folders_globs_and_watched_folders(damaged: Path, form: str) -> None:
    captured = first(form.format(damaged))
    assert (captured.image, captured.cause) == (None, "unreadable")
    assert damaged.name in captured.error


def test_replay(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "0.png").write_bytes(with_hole(".png"))
    (tmp_path / "recording.json").write_text(json.dumps({"format": 1, "bundle": "part", "model_sha256": ""}))
    event = {"frame": "frames/0.png", "verdict": "PASS", "cause": None, "reason": "", "source_id": "a", "frame_id": 0}
    (tmp_path / "events.jsonl").write_text(json.dumps(event) + "\n")
    captured = first(f"replay:{tmp_path}")
    assert (captured.image, captured.cause) == (None, "unreadable")


def test_training_and_masks(damaged: Path) -> None:
    whole = damaged.with_name("whole.png")
    cv2.imwrite(str(whole), PART)
    frames = load_frames([damaged, whole], PART.shape[:2])
    assert frames.paths == (whole,)
    assert len(frames.skipped) == 1
    assert damaged.name in frames.skipped[0]
    for read in (read_frame, read_mask):
        with pytest.raises(DataError, match=damaged.name):
            read(damaged)
