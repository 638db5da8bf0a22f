"""A bundle whose score is the grey level of its frame, on an engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from level_bundle import make_level_bundle

from edgead.bundle import Bundle
from edgead.runtime.inspector import Inspector, load


@pytest.fixture(scope="session")
def level(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_level_bundle(tmp_path_factory.mktemp("level") / "level.edgead")


@pytest.fixture
def inspector(level: Bundle) -> Iterator[Inspector]:
    with load(level.path, engine="onnxruntime") as opened:
        yield opened
