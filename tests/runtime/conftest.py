"""A small bundle, made once, and helpers that several test files of the runtime share."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import listener
import numpy as np
import pytest
from level_bundle import make_level_bundle

from edgead.bundle import Bundle
from edgead.demo import make_parts
from edgead.runtime.inspector import Inspector, load
from edgead.runtime.sources import Captured, FrameSource


@pytest.fixture(scope="session")
def line_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sample parts, MVTec layout."""
    return make_parts(tmp_path_factory.mktemp("line") / "washer", train=12, good=3, bad=1)


@pytest.fixture(scope="session")
def line_bundle(line_parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 64×64 pixels whose network is as good as untrained: its decisions mean nothing, its form is right.

    ``EDGEAD_TEST_BUNDLE`` is the path of such a bundle that was made elsewhere, for machines without PyTorch.
    """
    if made := os.environ.get("EDGEAD_TEST_BUNDLE"):
        return Path(made)
    from edgead.export import export
    from edgead.train import train

    folder = tmp_path_factory.mktemp("line-bundle")
    settings = ("size=64", "reconstructive_width=2", "discriminative_width=2", "steps=2", "batch_size=2")
    [run] = train("draem", line_parts, preset="nano", settings=settings, out=folder / "run")
    return export(run, out=folder / "line.edgead").path


@pytest.fixture
def inspector(line_bundle: Path) -> Iterator[Inspector]:
    """That bundle on ONNX Runtime."""
    with load(line_bundle, engine="onnxruntime") as opened:
        yield opened


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose score is the grey level of its frame, see `level_bundle`."""
    return make_level_bundle(tmp_path_factory.mktemp("level") / "first.edgead")


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Another one, whose scores are higher by 1000."""
    return make_level_bundle(tmp_path_factory.mktemp("level") / "second.edgead", offset=1000.0)


_started: list[subprocess.Popen[str]] = []


def start_process(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start a process with pipes for its output. It is killed with its test, also one that failed half-way."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    _started.append(process)
    return process


@pytest.fixture(autouse=True)
def _end_processes() -> Iterator[None]:
    yield
    while _started:
        process = _started.pop()
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def _own_folders_of_each_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


class Camera(FrameSource):
    """A live source that gives noise as fast as asked, so that tests need no clock.

    Args:
        frames: how many; 0 for no end.
        pause: seconds between two.
        name: of the source.
    """

    live = True

    def __init__(self, frames: int = 0, pause: float = 0.001, name: str = "camera") -> None:
        super().__init__(name)
        self.frames, self.pause = frames, pause
        self.given = 0

    def read(self) -> Iterator[Captured]:
        noise = np.random.default_rng(0).integers(0, 256, (8, 48, 64, 3), dtype=np.uint8)
        while not self.stopped.wait(self.pause) and (not self.frames or self.given < self.frames):
            yield Captured(noise[self.given % 8], "", self.name, self.given, time.monotonic())
            self.given += 1


class Listener(listener.Listener):
    """Keeps the messages, and what the clock shows."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []

    @contextmanager
    def clock(self, label: str) -> Iterator[Callable[[str], None]]:
        yield self.shown.append


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """Let no file of this process grow above a size in bytes, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something that happens soon on any machine; fail where it never does."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.01)
