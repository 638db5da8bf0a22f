"""A small bundle, made once, and two whose scores are grey levels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from level_bundle import make_level_bundle
from once import copy_of, once
from running import end_processes

from edgead.bundle import Bundle
from edgead.demo import make_parts
from edgead.runtime.inspector import Inspector, load


@pytest.fixture(scope="session")
def line_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sample parts, MVTec layout."""
    return once(tmp_path_factory, "line", lambda to: make_parts(to / "washer", train=12, good=3, bad=1)) / "washer"


@pytest.fixture(scope="session")
def line_bundle(line_parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 64×64 pixels whose network is as good as untrained: its decisions mean nothing, its form is right.

    ``EDGEAD_TEST_BUNDLE`` is the path of such a bundle that was made elsewhere, for machines without PyTorch.
    """
    if made := os.environ.get("EDGEAD_TEST_BUNDLE"):
        return Path(made)
    settings = ("size=64", "reconstructive_width=2", "discriminative_width=2", "steps=2", "batch_size=2")

    def make(folder: Path) -> None:
        from edgead.export import export
        from edgead.train import train

        [run] = train("draem", line_parts, preset="nano", settings=settings, out=folder / "run")
        export(run, out=folder / "line.edgead")

    return copy_of(tmp_path_factory, "line-bundle", make) / "line.edgead"


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


@pytest.fixture(autouse=True)
def _end_processes() -> Iterator[None]:
    yield
    end_processes()


@pytest.fixture(autouse=True)
def _own_folders_of_each_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
