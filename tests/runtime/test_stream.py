"""Streams, sinks, predictions: every frame accounted for, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

import edgead
from edgead.bundle import Bundle
from edgead.errors import ConfigError, SourceError
from edgead.runtime.inspector import Inspector
from edgead.runtime.predict import collect_images, predict
from edgead.runtime.result import Result
from edgead.runtime.sinks import open_sink
from edgead.runtime.sources import open_source
from edgead.runtime.stream import Ledger, run_stream

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def inspector(bundle: Bundle) -> Inspector:
    return edgead.load(bundle.path)


def read_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_frame_is_accounted_for(inspector: Inspector, parts: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(parts / "test", tmp_path / "test"))
    (data / "good" / "000.png").write_bytes(b"damaged")
    ledger, seen = Ledger(), []
    sink = open_sink(f"jsonl:{tmp_path / 'out' / 'results.jsonl'}")
    run_stream(inspector, open_source(str(data)), [sink], ledger, on_result=seen.append)
    lines = read_lines(tmp_path / "out" / "results.jsonl")
    assert ledger.captured == len(lines) == len(seen) == 12
    assert ledger.unknown == 1
    assert ledger.passed + ledger.failed == 11
    assert [line["frame_id"] for line in lines] == list(range(12))
    [unknown] = [line for line in lines if line["verdict"] == "UNKNOWN"]
    assert unknown["path"] == str(data / "good" / "000.png")
    assert unknown["score"] is None
    assert "Cannot decode" in str(unknown["reason"])


def test_stream_is_a_plain_loop(inspector: Inspector, parts: Path) -> None:
    results = list(inspector.stream(str(parts / "test" / "good")))
    assert [result.frame_id for result in results] == [0, 1, 2, 3]
    assert all(result.path.endswith(".png") for result in results)
    with pytest.raises(SourceError):
        next(iter(inspector.stream("absent.mp4")))


def test_a_stream_can_be_limited(inspector: Inspector, parts: Path) -> None:
    ledger = Ledger()
    run_stream(inspector, open_source(str(parts / "test")), [], ledger, max_frames=5)
    assert ledger.captured == 5


class FullSink:
    """Fails at the third result."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.closed = False

    def write(self, result: Result) -> None:
        if len(self.results) == 2:
            raise OSError(28, "No space left on device")
        self.results.append(result)

    def close(self) -> None:
        self.closed = True


def test_the_ledger_is_right_when_a_sink_fails(inspector: Inspector, parts: Path) -> None:
    ledger, sink = Ledger(), FullSink()
    with pytest.raises(OSError, match="No space"):
        run_stream(inspector, open_source(str(parts / "test")), [sink], ledger)
    assert ledger.captured == len(sink.results) == 2
    assert sink.closed


def test_results_are_appended_and_a_cut_line_spoils_no_other(inspector: Inspector, parts: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    result = next(iter(inspector.stream(str(parts / "test" / "good"))))
    for cut in (False, True):
        if cut:
            path.write_bytes(path.read_bytes() + b'{"schema": 1, "fra')
        sink = open_sink(f"jsonl:{path}")
        sink.write(result)
        sink.close()
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert json.loads(lines[0]) == json.loads(lines[2]) == json.loads(json.dumps(result.to_dict()))


def test_a_full_disk_is_an_error(inspector: Inspector, parts: Path) -> None:
    sink = open_sink("jsonl:/dev/full")
    with pytest.raises(OSError, match="No space left"):
        sink.write(next(iter(inspector.stream(str(parts / "test" / "good")))))
    sink.close()


@pytest.mark.parametrize("uri", ["jsonl", "jsonl:", "results.jsonl", "ftp:x"])
def test_what_is_no_sink(uri: str) -> None:
    with pytest.raises(ConfigError, match="jsonl:FILE"):
        open_sink(uri)


def test_predict_gives_one_result_per_file_with_overlays(
    inspector: Inspector, parts: Path, tmp_path: Path, write_image: Write
) -> None:
    (tmp_path / "bad.png").write_bytes(b"damaged")
    photo = tmp_path / "photo.jpg"
    cv2.imwrite(str(photo), cv2.imread(str(parts / "test" / "good" / "000.png")))
    images = collect_images([parts / "test" / "stain", tmp_path / "bad.png", photo])
    results = list(predict(inspector, images, tmp_path / "overlays"))
    assert [result.path for result in results] == [str(path) for path, _ in images]
    assert [result.verdict.value == "UNKNOWN" for result in results] == [False, False, True, False]
    saved = sorted(
        path.relative_to(tmp_path / "overlays").as_posix() for path in (tmp_path / "overlays").rglob("*.png")
    )
    assert saved == ["photo.overlay.png", "stain/000.overlay.png", "stain/001.overlay.png"]
    overlay = cv2.imread(str(tmp_path / "overlays" / "stain" / "000.overlay.png"))
    assert overlay.shape == (256, 256, 3)


def test_overlays_overwrite_neither_images_nor_each_other(tmp_path: Path, write_image: Write) -> None:
    for name in ("a/x.png", "a/x.jpg", "b/x.png"):
        write_image(tmp_path / name)
    paths = [tmp_path / "a" / "x.png", tmp_path / "a" / "x.jpg", tmp_path / "b" / "x.png"]
    named = [name.as_posix() for _, name in collect_images(paths)]
    assert named == ["x.overlay.png", "x.jpg.overlay.png", "x.png.overlay.png"]
    assert len({name for _, name in collect_images([*paths, *paths])}) == 6


def test_a_name_that_is_not_utf8_is_a_result_like_any_other(inspector: Inspector, tmp_path: Path, parts: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/St\xfcck.png"
    Path(os.fsdecode(odd)).write_bytes((parts / "test" / "good" / "000.png").read_bytes())
    ledger = Ledger()
    sink = open_sink(f"jsonl:{tmp_path / 'results.jsonl'}")
    run_stream(inspector, open_source(str(tmp_path)), [sink], ledger)
    [line] = read_lines(tmp_path / "results.jsonl")
    assert os.fsencode(str(line["path"])) == odd
    assert ledger.unknown == 0


def test_predict_needs_images(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        collect_images([tmp_path / "absent"])
    with pytest.raises(SourceError, match="No images"):
        collect_images([tmp_path])
