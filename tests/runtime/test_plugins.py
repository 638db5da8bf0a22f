"""Sinks and sources through their tables, and through the entry points of an installed distribution."""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from level_bundle import frame_of
from running import start_process

import edgead
from edgead.bundle import Bundle
from edgead.errors import ConfigError, SourceError
from edgead.images import PixelFormat, encode_png
from edgead.runtime import sinks, sources
from edgead.runtime.ledger import Ledger
from edgead.runtime.pipeline import run_stream
from edgead.runtime.result import Result
from edgead.runtime.sinks import BaseSink, Callback, open_sink
from edgead.runtime.sinks.jsonl import JsonLines
from edgead.runtime.sinks.mqtt import MqttSink
from edgead.runtime.sinks.rejects import RejectFolder
from edgead.runtime.sinks.sqlite import SqliteSink
from edgead.runtime.sinks.webhook import Webhook
from edgead.runtime.sources import open_source
from edgead.runtime.sources.python import IterableSource
from edgead.runtime.sources.source import LAST_NUMBER, Captured
from edgead.runtime.stream import Policy, Stream

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


def frames_as(*changes: dict[str, Any]) -> Iterator[Captured]:
    for number, change in enumerate(changes):
        fields = {"image": frame_of(50), "error": "", "source_id": "mine", "frame_id": number, "t_capture": 0.0}
        yield Captured(**{**fields, **change})


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(
    "wrong",
    [
        {"t_capture": math.nan},
        {"t_capture": time.time() + 1e9},
        {"t_capture": "now"},
        {"t_made": math.inf},
        {"t_made": -math.inf},
        {"t_made": time.monotonic() + 1e6},
        {"t_made": -1e12},
        {"t_capture": -1e300},
    ],
    ids=[
        *("never taken", "taken later", "taken in words", "made in the end", "made before all", "made later"),
        *("made before there were years", "taken before there was time"),
    ],
)
def test_a_frame_of_an_impossible_time_is_unknown_and_the_stream_goes_on(
    wrong: dict[str, Any], live: bool, first: Bundle
) -> None:
    """Seconds of another clock, as of `time.time`, would never be too old."""
    source = IterableSource(frames_as(wrong, {}), "mine", live)
    with edgead.load(first.path, engine="onnxruntime") as inspector:
        ledger, policy = Ledger(), Policy(on_full="wait", max_staleness=math.inf)
        results = list(Stream(inspector, [source], policy, ledger))
    assert [(result.verdict.value, result.cause) for result in results] == [("UNKNOWN", "stale"), ("PASS", "")]
    assert "must be seconds of time.monotonic" in results[0].reason
    assert (ledger.captured, ledger.inferred, ledger.in_flight) == (2, 2, 0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"frame_id": None}, "only a report about a source has no frame_id"),
        ({"frame_id": "7"}, "interpreted as an integer"),
        ({"source_id": None}, "source_id must be text, not None"),
        ({"error": ValueError("torn")}, "error must be text, not ValueError('torn')"),
        ({"cause": 4, "error": "torn"}, "cause must be text, not 4"),
        ({"path": 4}, "expected str, bytes or os.PathLike object, not int"),
        ({"frame_id": 2**70}, "frame_id may have 62 bits, not 71"),
    ],
    ids=str,
)
def test_a_source_that_breaks_its_contract_ends_alone(wrong: dict[str, Any], said: str, first: Bundle) -> None:
    ledger = Ledger()
    sources = [IterableSource(frames_as({}, wrong), "mine"), IterableSource([frame_of(60)] * 3, "other")]
    with edgead.load(first.path, engine="onnxruntime") as inspector:
        stream = Stream(inspector, sources, ledger=ledger)
        results = list(stream)
    assert said in stream.failed["mine"]
    assert sum(result.source_id == "other" for result in results) == 3
    assert (ledger.captured, ledger.inferred, ledger.in_flight) == (4, 4, 0)


def test_an_inspector_refuses_the_time_of_another_clock(first: Bundle) -> None:
    """The frame was 50 years younger than its decision."""
    with edgead.load(first.path, engine="onnxruntime") as inspector:
        for moment in (time.time(), math.nan, math.inf):
            with pytest.raises(ConfigError, match=r"t_capture is .*, and must be seconds of time.monotonic"):
                inspector.inspect(frame_of(50), t_capture=moment)
        assert inspector.inspect(frame_of(50), t_capture=time.monotonic() - 1).latency_ms["total"] > 999


def test_what_a_source_says_about_a_frame_reaches_every_sink(first: Bundle, tmp_path: Path) -> None:
    """A frame with a cause and no error passed. A path of pathlib, or a number above 64 bits, failed in the sinks."""
    frames = frames_as({"path": Path("a.png")}, {"cause": "stale"}, {"frame_id": LAST_NUMBER})
    with edgead.load(first.path, engine="onnxruntime") as inspector:
        sinks = [open_sink(f"{kind}:{tmp_path / kind}") for kind in ("jsonl", "sqlite")]
        workers = run_stream(inspector, IterableSource(frames, "mine"), sinks, Ledger())
    assert [worker.account()["taken"] for worker in workers] == [3, 3]
    lines = [json.loads(line) for line in (tmp_path / "jsonl").read_text().splitlines()]
    facts = [(line["verdict"], line["cause"], line["path"], line["frame_id"]) for line in lines]
    assert facts == [
        ("PASS", None, "a.png", 0),
        ("UNKNOWN", "stale", None, 1),
        ("PASS", None, None, LAST_NUMBER),
    ]


def exits(*arguments: object) -> Any:
    raise SystemExit(0)


def interrupts(*arguments: object) -> Any:
    raise KeyboardInterrupt


class ExitingWatch:
    """A watch for drift that ends the process, or would."""

    see = alarms = to_prometheus = staticmethod(exits)


@pytest.mark.parametrize(
    ("callbacks", "inferred", "causes"),
    [
        ({"admit": exits}, 0, set()),
        ({"admit": interrupts}, 1, {"failed", "lost"}),
        ({"choose": exits}, 4, {"failed"}),
        ({"choose": lambda captured: captured}, 4, {"failed"}),  # none that `warm` was called with
        ({"choose": exits, "say": exits}, 4, {"failed"}),
        ({"watch": ExitingWatch()}, 4, {""}),
    ],
    ids=["admit exits", "admit interrupts", "choose exits", "choose returns a frame", "choose and say", "watch exits"],
)
def test_a_callback_that_exits_neither_ends_a_stream_nor_makes_it_hang(
    callbacks: dict[str, Any], inferred: int, causes: set[str], first: Bundle
) -> None:
    """Each frame that has entered is counted, whatever is raised; one that was not made the stream wait for ever."""
    ledger = Ledger()
    with edgead.load(first.path, engine="onnxruntime") as inspector:
        results = list(Stream(inspector, [IterableSource([frame_of(50)] * 4)], ledger=ledger, **callbacks))
    assert {result.cause for result in results} == causes
    assert (ledger.inferred, ledger.in_flight) == (inferred, 0)
    assert ledger.captured == ledger.inferred + ledger.dropped


def test_frame_numbers_are_unique_and_json(first: Bundle) -> None:
    """A plug-in begins again at 0 when its camera is back, or has numbers of NumPy."""
    numbers = [np.int64(0), np.int64(1), 0, 1, 5, 0, 0]
    source = IterableSource(frames_as(*({"frame_id": number} for number in numbers)), "mine")
    said: list[str] = []
    with edgead.load(first.path, engine="onnxruntime") as inspector:
        results = list(Stream(inspector, [source], say=said.append))
    assert json.loads(json.dumps([result.frame_id for result in results])) == [0, 1, 2, 3, 7, 8, 9]
    assert said == ["mine: the source repeats frame numbers; the count continues"]


def test_one_address_is_one_source(first: Bundle, tmp_path: Path) -> None:
    """Each of its letters was one."""
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(encode_png(frame_of(50)))
    with edgead.load(first.path, engine="onnxruntime") as inspector:
        assert len(list(Stream(inspector, str(tmp_path)))) == len(list(Stream(inspector, tmp_path))) == 2
        ledger = Ledger()
        run_stream(inspector, [tmp_path / "1.png", tmp_path / "2.png"], [], ledger)
        assert (ledger.captured, ledger.unknown) == (2, 0)


def test_what_is_no_sink_or_no_source_is_refused_at_the_start(first: Bundle, tmp_path: Path) -> None:
    """Each result failed, and no camera was an end without a result."""
    written = open_sink(f"jsonl:{tmp_path / 'lines'}")
    with edgead.load(first.path, engine="onnxruntime") as inspector:
        with pytest.raises(ConfigError, match=r"needs a method write.*\n.*Callback\(function\)"):
            run_stream(inspector, iter([frame_of(50)]), [written, print], Ledger())  # type: ignore[list-item]
        with pytest.raises(ConfigError, match=r"str has none\.\n.*open_sink\(URI\)"):
            run_stream(inspector, iter([frame_of(50)]), ["jsonl:lines"], Ledger())  # type: ignore[list-item]
        with pytest.raises(ConfigError, match="A function is needed, not None"):
            Callback(None)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"An inspector is needed, not 'bottle\.edgead'"):
            Stream("bottle.edgead", [iter([frame_of(50)])])  # type: ignore[arg-type]
        for several in (["a.png", "b.png"], {"left": "a.png"}, [Path("a.png")]):
            with pytest.raises(ConfigError, match="These are several sources"):
                next(inspector.stream(several))  # type: ignore[arg-type]
        for no_source in (b"a.png", None):
            with pytest.raises(ConfigError, match=r"must be a URI|must be a list"):
                Stream(inspector, no_source)  # type: ignore[arg-type]
        with pytest.raises(OSError, match="Bad file descriptor"):  # it was closed
            written.write(inspector.inspect(frame_of(50)))
        for none in ([], {}):
            with pytest.raises(ConfigError, match="There is no source"):
                Stream(inspector, none)
        with pytest.raises(ConfigError, match="The name of a source must be text, not 0"):
            Stream(inspector, {0: [frame_of(50)]})  # type: ignore[dict-item]
        assert list(inspector.stream([])) == []  # a source without a frame


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
