"""Sinks and sources through their tables, and through the entry points of an installed distribution."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from conftest import start_process

from edgead.bundle import Bundle
from edgead.errors import ConfigError, SourceError
from edgead.images import PixelFormat, encode_png
from edgead.runtime import sinks, sources
from edgead.runtime.result import Result
from edgead.runtime.sinks import BaseSink, open_sink
from edgead.runtime.sinks.jsonl import JsonLines
from edgead.runtime.sinks.mqtt import MqttSink
from edgead.runtime.sinks.rejects import RejectFolder
from edgead.runtime.sinks.sqlite import SqliteSink
from edgead.runtime.sinks.webhook import Webhook
from edgead.runtime.sources import open_source

SINKS: dict[str, tuple[str, type[BaseSink]]] = {
    "jsonl": ("jsonl:{}/results.jsonl", JsonLines),
    "sqlite": ("sqlite:{}/results.db", SqliteSink),
    "rejects": ("rejects:{}/rejects", RejectFolder),
    "http": ("http://127.0.0.1:9/results", Webhook),
    "https": ("https://127.0.0.1:9/results", Webhook),
    "mqtt": ("mqtt://127.0.0.1:9/line?store={}/store.sqlite", MqttSink),
    "mqtts": ("mqtts://127.0.0.1:9/line?store={}/store.sqlite", MqttSink),
}
"""Of each scheme in the table a URI and the class that it opens."""

PLUGIN = """
from edgead.runtime.sinks import BaseSink
from edgead.runtime.sources.python import IterableSource

class Marks(BaseSink):
    def __init__(self, path):
        super().__init__(f"marks:{path}")
        self._file = open(path, "w")

    def write(self, result):
        self._file.write(f"{result.source_id} {result.frame_id} {result.verdict.value}\\n")

    def details(self):
        return {"ink": "blue"}

    def close(self):
        self._file.write("closed\\n")
        self._file.close()

def open_marks(uri):
    return Marks(uri.partition(":")[2])

def open_grey(uri, pixels):
    import numpy as np
    levels = map(int, uri.partition(":")[2].split(","))
    full = 2**pixels.bit_depth - 1
    frames = [np.full((64, 64), level * full // 255, np.uint16) for level in levels]
    return IterableSource(frames, name=f"grey of {pixels.bit_depth} bits")
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an installed distribution that has a sink ``marks:`` and a source ``grey:``."""
    folder = tmp_path / "site"
    info = folder / "marks-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "marks.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: marks\nVersion: 1.0\n")
    points = "[edgead.sinks]\nmarks = marks:open_marks\n[edgead.sources]\ngrey = marks:open_grey\n"
    (info / "entry_points.txt").write_text(points)
    return folder


def test_the_table_of_sinks_is_covered() -> None:
    assert set(SINKS) == set(sinks._SCHEMES)


@pytest.mark.parametrize("scheme", SINKS)
def test_each_scheme_of_the_table_opens_its_sink(scheme: str, tmp_path: Path) -> None:
    if scheme.startswith("mqtt"):
        pytest.importorskip("paho.mqtt.client")
    uri, kind = SINKS[scheme]
    opened = open_sink(uri.format(tmp_path))
    try:
        assert type(opened) is kind
        assert opened.name.startswith(f"{scheme}:")
    finally:
        opened.close()


@pytest.mark.parametrize("scheme", sources._SCHEMES)
def test_each_function_of_the_table_of_sources_takes_the_pixel_format(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module_name, _, function = sources._SCHEMES[scheme].partition(":")
    module = importlib.import_module(module_name)
    real: Callable[..., object] = getattr(module, function)
    assert list(real.__annotations__) == ["uri", "pixels", "return"]
    given: list[tuple[str, PixelFormat]] = []

    def opens(uri: str, pixels: PixelFormat) -> sources.Source:
        given.append((uri, pixels))
        return sources.ImageSource(uri, [], pixels)

    monkeypatch.setattr(module, function, opens)
    wanted = PixelFormat(12)
    open_source(f"{scheme}://host/stream", wanted)
    assert given == [(f"{scheme}://host/stream", wanted)]


def test_a_built_in_source_uses_the_pixel_format(tmp_path: Path) -> None:
    (tmp_path / "deep.png").write_bytes(encode_png(np.full((8, 8), 4095, np.uint16)))
    for uri in (str(tmp_path), f"watch:{tmp_path}?existing=1&poll=0.01"):
        for bits, level in ((12, 255), (16, 15)):
            source = open_source(uri, PixelFormat(bits))
            with source as frames:
                captured = next(frames)
                source.stop()
            assert captured.image is not None
            assert set(np.unique(captured.image)) == {level}


def test_an_unknown_scheme_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"^Unknown sink 'marks:x'\. Available: jsonl:FILE.*mqtt://HOST/TOPIC"):
        open_sink("marks:x")
    with pytest.raises(SourceError, match=r"^Unknown source 'grey://…'\. Available: an image, a folder.*synthetic:\.$"):
        open_source("grey://x")


def test_a_plugin_of_the_table_s_name_does_not_replace_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = metadata.EntryPoint("jsonl", "collections:deque", "edgead.sinks")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry])
    opened = open_sink(f"jsonl:{tmp_path}/results")
    opened.close()
    assert type(opened) is JsonLines


def test_a_base_sink_needs_only_write(tmp_path: Path) -> None:
    class Bare(BaseSink):
        def write(self, result: Result) -> None:
            """Take it."""

    bare = Bare("bare")
    assert (bare.wants_frames, bare.may_miss, bare.lost.total(), bare.stopped.is_set()) == (False, False, 0, False)
    bare.stop()
    assert bare.stopped.is_set()
    bare.close()


def test_plugins_work_in_edgead_run(first: Bundle, site: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)])}
    marks = tmp_path / "marks.txt"
    command = [sys.executable, "-m", "edgead", "run", str(first.path), "--engine", "onnxruntime", "--json"]
    options = ["--source", "grey:0,100,200,255", "--sink", f"marks:{marks}", "--health", "off"]
    process = start_process([*command, *options], env=environment)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    verdicts = ["PASS", "PASS", "FAIL", "FAIL"]
    lines = [f"grey of 16 bits {number} {verdict}" for number, verdict in enumerate(verdicts)]
    assert marks.read_text().splitlines() == [*lines, "closed"]
    summary = json.loads(out)
    assert (summary["passed"], summary["failed"], summary["unknown"], summary["dropped"]) == (2, 2, 0, 0)
    [account] = summary["sinks"]
    assert account["sink"] == f"marks:{marks}"
    assert (account["offered"], account["taken"], account["failed"], account["ink"]) == (4, 4, 0, "blue")
