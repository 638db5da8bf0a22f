"""Pictures that edgead saves are never taken for images of parts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from level_bundle import make_level_bundle

import edgead
from edgead.errors import ConfigError
from edgead.folders import DRAWN, list_folder
from edgead.images import encode_png
from edgead.runtime.inspector import Inspector
from edgead.runtime.ledger import Ledger
from edgead.runtime.pipeline import run_stream
from edgead.runtime.predict import collect_images, predict
from edgead.runtime.record import Recorder
from edgead.runtime.sinks.rejects import RejectFolder
from edgead.runtime.sources import open_source
from edgead.runtime.sources.watch import WatchedFolder
from edgead.runtime.stream import Stream

PICTURE = encode_png(np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8))
REJECT = "20261128T120713785-watch_fb_feafdfd7-00000000"
DRAWINGS = ("a.overlay.png", "a.reconstruction.png", f"{REJECT}.overlay.png", f"{REJECT}.depth.png")
IMAGES = ("a.png", f"{REJECT}.png", "a.depth.png", "overlay.png")


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inspector]:
    bundle = make_level_bundle(tmp_path_factory.mktemp("own") / "level.edgead")
    with edgead.load(bundle.path, engine="onnxruntime") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*DRAWINGS, *IMAGES):
        (tmp_path / name).write_bytes(PICTURE)
    return tmp_path


def test_drawings_are_left_out_and_counted(folder: Path) -> None:
    listing = list_folder(folder)
    assert sorted(path.name for path in listing.images) == sorted(IMAGES)
    assert listing.left_out == {DRAWN: len(DRAWINGS)}


def test_overlays_beside_the_images_get_no_verdict(inspector: Inspector, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    for _ in range(2):
        [result] = predict(inspector, collect_images([tmp_path]), tmp_path)
        assert result.path == str(tmp_path / "a.png")
    assert (tmp_path / "a.overlay.png").is_file()


@pytest.mark.parametrize("notified", [True, False])
def test_a_watched_folder_delivers_no_drawing(
    folder: Path, inspector: Inspector, notified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not notified:
        monkeypatch.setattr("edgead.runtime.sources.watch.open_notifier", lambda *_: (None, "of the test"))
    watched = folder / "in"
    watched.mkdir()
    names = []
    with Stream(inspector, [open_source(f"watch:{watched}?poll=0.02")]) as stream:
        for name in (*DRAWINGS, "last.png"):
            shutil.copy(folder / "a.png", watched / name)
        for result in stream:
            names.append(Path(result.path).name)
            if names[-1] == "last.png":
                stream.stop()
    assert names == ["last.png"]


def _rejects(folder: Path, inspector: Inspector) -> RejectFolder:
    return RejectFolder(folder)


@pytest.mark.parametrize("sink", [_rejects, Recorder])
@pytest.mark.parametrize(("below", "options"), [("", ""), ("kept/here", "?subfolders=1"), ("link", "")])
def test_frames_are_not_saved_where_they_are_found(
    sink: Callable[[Path, Inspector], object], below: str, options: str, tmp_path: Path, inspector: Inspector
) -> None:
    watched = tmp_path / "in"
    watched.mkdir()
    (watched / "link").symlink_to(watched)
    saves = sink(tmp_path / "elsewhere", inspector)
    saves.folder = watched / below  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="inspected again and again"):
        run_stream(inspector, f"watch:{watched}{options}", [saves], Ledger())  # type: ignore[list-item]


@pytest.mark.parametrize("below", ["", "rejects"])
def test_rejects_are_not_saved_in_the_folder_that_is_inspected(
    below: str, tmp_path: Path, inspector: Inspector
) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    sink = RejectFolder(tmp_path / below)
    with pytest.raises(ConfigError, match="again by the next run"):
        list(predict(inspector, collect_images([tmp_path]), sinks=[sink]))
    with pytest.raises(ConfigError, match="again by the next run"):
        run_stream(inspector, str(tmp_path), [sink], Ledger())


@pytest.mark.parametrize(("inspected", "saved"), [("a.png", ""), ("", ".rejects"), ("", ".kept/rejects")])
def test_rejects_may_be_saved_where_no_images_are_found(
    inspected: str, saved: str, tmp_path: Path, inspector: Inspector
) -> None:
    """Hidden folders are not searched."""
    (tmp_path / "a.png").write_bytes(PICTURE)
    [result] = predict(inspector, collect_images([tmp_path / inspected]), sinks=[RejectFolder(tmp_path / saved)])
    assert result.path == str(tmp_path / "a.png")


def test_frames_may_be_saved_in_a_subfolder_that_is_not_watched(tmp_path: Path) -> None:
    source = WatchedFolder(tmp_path)
    assert not source.sees(tmp_path / "rejects")
    assert source.sees(tmp_path)
    source.close()
    source = WatchedFolder(tmp_path, subfolders=True)
    assert source.sees(tmp_path / "rejects")
    assert not source.sees(tmp_path / ".rejects")
    source.close()
