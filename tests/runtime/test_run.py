"""`edgead run` as a process beside the line: record and replay, signals, metrics, hot swap and shadow, bad input."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from full_disk import limited_files
from level_bundle import frame_of, make_level_bundle
from running import Camera, Listener, start_process
from waiting import wait_until

import edgead
from edgead.decision import Verdict
from edgead.errors import ConfigError, SinkError, SourceError
from edgead.images import encode_png, read_frame
from edgead.runtime.inspector import Inspector
from edgead.runtime.ledger import Ledger
from edgead.runtime.metrics_server import MetricsServer
from edgead.runtime.pipeline import run_stream
from edgead.runtime.record import Recorder, Replay
from edgead.runtime.result import Result
from edgead.runtime.run import run
from edgead.runtime.shadow import Shadow
from edgead.runtime.sink_worker import SinkWorker
from edgead.runtime.sources import Captured, open_source
from edgead.runtime.stream import Policy

NOISE = np.random.default_rng(1).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8)


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(edgead.__file__).parents[1])}
    return start_process([sys.executable, "-m", "edgead", "run", *arguments], env=environment, **options)


def wait_for_line(stream: IO[str], text: str) -> None:
    assert any(text in line for line in stream), f"the output ended without '{text}'"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def test_of_a_source_that_cannot_be_opened_there_is_one_line(line_bundle: Path) -> None:
    """OpenCV and FFmpeg say nothing beside it."""
    process = start(str(line_bundle), "--source", "v4l2:///dev/video99")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.startswith("Error: v4l2:///dev/video99 cannot be opened.")
    assert len(errors.splitlines()) == 1


def test_replay_gives_the_same_scores_and_verdicts(inspector: Inspector, tmp_path: Path) -> None:
    recorded: list[Result] = []
    folder = tmp_path / "recording"
    camera = Camera(frames=40)
    policy = Policy(on_full="drop-oldest", deadline=1000)
    run_stream(
        inspector,
        [camera],
        [SinkWorker(Recorder(folder, inspector), capacity=1000)],
        Ledger(),
        policy=policy,
        on_result=recorded.append,
    )
    replayed: list[Result] = []
    run_stream(inspector, open_source(f"replay:{folder}"), [], Ledger(), on_result=replayed.append)
    assert [(r.source_id, r.frame_id, r.score, r.verdict) for r in recorded] == [
        (r.source_id, r.frame_id, r.score, r.verdict) for r in replayed
    ]
    assert recorded


def test_a_recording_is_not_replayed_to_a_bundle_that_reads_other_bits(tmp_path: Path) -> None:
    """A picture of 12 bits, recorded as 16, is almost black: the other bundle would have seen it bright and failed."""
    bundles = [make_level_bundle(tmp_path / f"{bits}.edgead", bit_depth=bits) for bits in (16, 12)]
    bright = np.full((64, 64, 3), 200 << 4, np.uint16)
    with (
        edgead.load(bundles[0].path, engine="onnxruntime") as sixteen,
        edgead.load(bundles[1].path, engine="onnxruntime") as twelve,
    ):
        assert [each.inspect(bright).verdict for each in (sixteen, twelve)] == [Verdict.PASS, Verdict.FAIL]
        run_stream(sixteen, [bright], [SinkWorker(Recorder(tmp_path / "tape", sixteen))], Ledger())
        uri = f"replay:{tmp_path / 'tape'}"
        assert [result.score for result in sixteen.stream(uri)] == [12.0]
        with pytest.raises(SourceError, match=r"reads 16 bits of 16-bit images; the model reads 12\."):
            next(twelve.stream(uri))
        facts = json.loads((tmp_path / "tape" / "recording.json").read_text())
        del facts["bit_depth"]  # of an earlier version, which did not tell
        (tmp_path / "tape" / "recording.json").write_text(json.dumps(facts))
        assert [result.score for result in twelve.stream(uri)] == [12.0]


def test_replay_repeats_what_time_decided(inspector: Inspector, tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    recorded: list[Result] = []
    sources = [[*NOISE[:3], np.zeros((4, 4), np.float32)]]
    run_stream(
        inspector,
        iter(sources[0]),
        [SinkWorker(Recorder(folder, inspector), capacity=1000)],
        Ledger(),
        policy=Policy(deadline=1e-3),
        on_result=recorded.append,
    )
    replayed: list[Result] = []
    run_stream(inspector, open_source(f"replay:{folder}"), [], Ledger(), on_result=replayed.append)
    assert [(r.cause, r.verdict) for r in replayed] == [("late", Verdict.UNKNOWN)] * 3 + [
        ("unreadable", Verdict.UNKNOWN)
    ]
    np.testing.assert_array_equal([r.score for r in replayed], [r.score for r in recorded])
    np.testing.assert_array_equal(read_frame(folder / "frames" / "000000001.png"), NOISE[1])


def test_recording_keeps_the_drops(inspector: Inspector, tmp_path: Path) -> None:
    folder, ledger = tmp_path / "recording", Ledger()
    run_stream(
        inspector,
        [Camera(frames=60)],
        [SinkWorker(Recorder(folder, inspector), capacity=1000)],
        ledger,
        on_result=lambda result: time.sleep(0.02),
    )
    replay = Replay(folder)
    given = list(replay.read())
    assert len(given) == ledger.inferred
    assert len(replay.dropped) == ledger.dropped > 0
    assert {event.dropped for event in replay.dropped} == {"overtaken"}


def write_recording(folder: Path, *lines: bytes) -> Path:
    (folder / "frames").mkdir(parents=True)
    (folder / "recording.json").write_text('{"format": 1, "bundle": "line", "model_sha256": ""}')
    (folder / "events.jsonl").write_bytes(b"".join(lines))
    return folder


def test_a_damaged_line_of_a_recording_is_unknown_and_a_cut_last_one_is_told(tmp_path: Path) -> None:
    event = {"frame": None, "verdict": "UNKNOWN", "cause": "late", "reason": "late", "source_id": "a", "frame_id": 0}
    whole = json.dumps(event).encode() + b"\n"
    damaged = [b'{"frame": "fra\n', b"\xff\xfe\n", b"[]\n", b"{}\n", whole.replace(b"UNKNOWN", b"GOOD"), b"\n"]
    source = open_source(f"replay:{write_recording(tmp_path / 'a', whole, *damaged, whole, whole[:30])}")
    assert "wrote line 9; that line is skipped" in getattr(source, "remark", "")
    given = list(source.__enter__())
    assert [captured.cause for captured in given] == ["late", *["unreadable"] * 6, "late"]
    assert [re.findall(r"line (\d) of", captured.error) for captured in given[1:-1]] == [[f"{n}"] for n in range(2, 8)]
    source = open_source(f"replay:{write_recording(tmp_path / 'b', whole, whole[:-1])}")  # whole but for its end
    assert getattr(source, "remark", "") == ""
    assert len(list(source.__enter__())) == 2


def test_a_recording_of_several_products_is_told(tmp_path: Path) -> None:
    """A bundle decided on the parts of all of them, and nothing said so."""
    event = {"frame": None, "verdict": "PASS", "source_id": "a", "frame_id": 0, "reason": 'a "recipe": "none 1"'}
    recipes = ["Größe-3 1", "Größe-3 2", None, 'cap "small" 2026-11']
    lines = [json.dumps({**event, "recipe": recipe}).encode() + b"\n" for recipe in recipes]
    for count, said in ((4, 'several products (Größe-3, cap "small")'), (3, "")):
        source = open_source(f"replay:{write_recording(tmp_path / str(count), *lines[:count])}")
        assert said in getattr(source, "remark", "")
        assert bool(getattr(source, "remark", "")) == bool(said)


def test_recording_on_a_full_disk_counts_what_is_there(inspector: Inspector, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    worker = SinkWorker(Recorder(tmp_path / "rec", inspector))
    with limited_files(20_000), pytest.raises(SinkError, match="File too large"):  # the large pictures do not fit
        run_stream(inspector, iter([NOISE[0], noise, NOISE[1], noise, NOISE[2]]), [worker], Ledger())
    account = worker.account()
    assert (account["taken"], account["failed"]) == (3, 2)
    assert len(list((tmp_path / "rec" / "frames").iterdir())) == 3
    with open_source(f"replay:{tmp_path / 'rec'}") as frames:
        assert [captured.frame_id for captured in frames] == [0, 2, 4]


class Receiver:
    """Accepts connections and does something with each, in threads; `port` and the number of `connections`."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self.connections = 0
        self._talk, self._socket = talk, socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._socket.accept()[0],), daemon=True).start()
                self.connections += 1

    def _serve(self, link: socket.socket) -> None:
        with link, suppress(OSError):
            self._talk(link)

    def close(self) -> None:
        self._socket.close()


def _is_silent(link: socket.socket) -> None:
    while link.recv(65536):
        pass


def _trickles(link: socket.socket) -> None:
    link.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        link.sendall(b"X-Wait: more\r\n")
        time.sleep(0.5)


@pytest.mark.long
def test_term_ends_a_run_whatever_a_sink_waits_for(line_bundle: Path, tmp_path: Path) -> None:
    receivers = [Receiver(_is_silent), Receiver(_is_silent), Receiver(_trickles)]
    sinks = [f"{scheme}://127.0.0.1:{one.port}/" for scheme, one in zip(("http", "https", "http"), receivers)]
    sinks.append("jsonl:-")  # a pipe that nobody reads
    options = ["--source", "synthetic:?width=32&height=32", "--engine", "onnxruntime", "--json"]
    beside = [tmp_path / f"{number}.jsonl" for number in range(len(sinks))]  # a sink that waits for nothing
    processes = [
        start(str(line_bundle), "--sink", sink, "--sink", f"jsonl:{file}", *options)
        for sink, file in zip(sinks, beside)
    ]

    def wait() -> bool:
        """Whether each sink has more results than it may be given at once, and a pipe holds."""
        return all(one.connections for one in receivers) and all(
            file.exists() and file.read_bytes().count(b"\n") > 300 for file in beside
        )

    wait_until(wait, 120)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process, sink in zip(processes, sinks):
        assert process.wait(timeout=60) == 2, sink
        out, err = process.communicate()
        assert "did not end within" not in err
        lines = err.splitlines() if sink == "jsonl:-" else out.splitlines()
        account = json.loads(next(line for line in lines if line.startswith("{")))["sinks"][0]
        assert account["dropped_by_cause"]["closed"] > 0
        assert account["waiting"] == 0
        assert account["offered"] == account["taken"] + account["failed"] + account["dropped"]
        assert "did not take" in err
    for one in receivers:
        one.close()


def test_a_replay_repeats_reports_on_a_source(tmp_path: Path) -> None:
    event = {"frame": None, "verdict": "UNKNOWN", "cause": "lost", "reason": "gone", "source_id": "a", "frame_id": None}
    folder = write_recording(tmp_path / "a", json.dumps(event).encode() + b"\n")
    source = open_source(f"replay:{folder}")
    [captured] = source.__enter__()
    assert captured.about_source
    assert (captured.source_id, captured.cause, captured.error) == ("a", "lost", "gone")


def test_recording_needs_a_folder_of_its_own(inspector: Inspector, tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        Recorder(tmp_path, inspector)


def test_shadow_reports_disagreements_and_never_decides(line_bundle: Path) -> None:
    said: list[str] = []
    with (
        edgead.load(line_bundle, engine="onnxruntime", threshold=1e9) as champion,
        edgead.load(line_bundle, engine="onnxruntime", threshold=-1e9) as challenger,
    ):
        shadow, results = Shadow(challenger, said.append), []
        run_stream(champion, iter(NOISE), [shadow], Ledger(), on_result=results.append)
        assert {result.verdict for result in results} == {Verdict.PASS}
        assert shadow.account() == {"agreed": 0, "disagreed": 12}
        assert len(said) == 12
        assert "says PASS" in said[0]
        assert "says FAIL" in said[0]


def test_what_no_bundle_has_said_is_no_disagreement(line_bundle: Path) -> None:
    """Every late frame counted as one, and every damaged one whose picture can be shown."""
    damaged = Captured(NOISE[0], "half of it is missing", "a", 0, 0.0, cause="unreadable")
    with (
        edgead.load(line_bundle, engine="onnxruntime", threshold=1e9) as champion,
        edgead.load(line_bundle, engine="onnxruntime", threshold=1e9 + 1) as challenger,
    ):
        shadow, results, ledger = Shadow(challenger), list[Result](), Ledger()
        policy = Policy(deadline=1e-6)
        run_stream(champion, iter(NOISE), [shadow], ledger, policy=policy, on_result=results.append)
        assert {result.cause for result in results} == {"late"}
        result = champion.judge(damaged)
        result.frame = NOISE[0]
        assert (result.cause, result.anomaly_map is None) == ("unreadable", False)
        shadow.write(result)
        assert shadow.account() == {"agreed": 0, "disagreed": 0}
        result = champion.judge(dataclasses.replace(damaged, error="", cause=""))
        result.frame = NOISE[0]
        shadow.write(result)
        assert shadow.account() == {"agreed": 1, "disagreed": 0}


@pytest.mark.parametrize("threshold", [None, 0.7])
def test_a_threshold_that_is_given_for_several_bundles_is_pointed_out(threshold: float | None, tmp_path: Path) -> None:
    """The scores of the second bundle are about 1,000: with a threshold for the first one, other parts would fail."""
    first, second = (make_level_bundle(tmp_path / f"{name}.edgead", offset) for name, offset in (("a", 0), ("b", 1000)))
    (tmp_path / "1.png").write_bytes(encode_png(frame_of(50)))
    console = Listener()
    options: dict[str, Any] = {"sources": [str(tmp_path / "1.png")], "engine": "onnxruntime", "threshold": threshold}
    run(first.path, shadow=second.path, console=console, **options)
    warned = (
        "Warning: b decides by --threshold 0.7 instead of its own threshold, 1130. Scores of another bundle may have"
    )
    assert any(line.startswith(warned) for line in console.said) == (threshold is not None)
    assert not any(line.startswith("Warning: a is") for line in console.said)


def test_a_shadow_that_is_the_bundle_itself_is_pointed_out(tmp_path: Path) -> None:
    """It compares nothing; no disagreement was all that there was to see."""
    first = make_level_bundle(tmp_path / "a.edgead")
    (tmp_path / "1.png").write_bytes(encode_png(frame_of(50)))
    console = Listener()
    run(first.path, sources=[str(tmp_path / "1.png")], engine="onnxruntime", shadow=first.path, console=console)
    assert any("is the bundle that decides. Nothing is compared" in line for line in console.said)


def test_a_free_port_for_metrics_is_printed(tmp_path: Path) -> None:
    first = make_level_bundle(tmp_path / "a.edgead")
    (tmp_path / "1.png").write_bytes(encode_png(frame_of(50)))
    console, texts = Listener(), []

    def read(_: Result) -> None:
        [url] = [line.removeprefix("Metrics: ") for line in console.said if line.startswith("Metrics: ")]
        with urllib.request.urlopen(url, timeout=10) as answer:
            texts.append(answer.read().decode())

    source = str(tmp_path / "1.png")
    run(first.path, sources=[source], engine="onnxruntime", metrics="0", on_result=read, console=console)
    assert "edgead_frames_captured_total" in texts[0]


def test_metrics_are_served_on_this_machine_only(inspector: Inspector) -> None:
    ledger = Ledger()
    run_stream(inspector, iter(NOISE[:2]), [], ledger)
    server = MetricsServer(0, ledger.to_prometheus)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=10).close()
        with pytest.raises(ConfigError, match="cannot be served on port"):
            MetricsServer(server.port, ledger.to_prometheus)
    finally:
        server.close()
    assert 'edgead_frames_captured_total{source="iterable"} 2' in text


def test_ledger_is_told_also_where_a_sink_fails(line_bundle: Path, line_parts: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    told: list[dict[str, Any]] = []
    with pytest.raises(SinkError, match="No space left"):
        run(line_bundle, sources=[str(line_parts / "test")], sinks=["jsonl:/dev/full"], on_end=told.append)
    [summary] = told
    assert summary["captured"] == summary["inferred"] > 0
    assert summary["sinks"][0]["failed"] == summary["captured"]


def test_several_sources_regions_and_a_chosen_false_reject_share(line_bundle: Path, line_parts: Path) -> None:
    told: list[dict[str, Any]] = []
    console = Listener()
    seen: list[Result] = []
    run(
        line_bundle,
        sources=[str(line_parts / "test" / "good"), "synthetic:?frames=4&width=64&height=48"],
        threshold="fpr:0.1",
        roi=["0,0,1,0.5"],
        shapes=["boxes"],
        batch=2,
        on_end=told.append,
        on_result=seen.append,
        console=console,
    )
    assert told[0]["sources"].keys() == {str(line_parts / "test" / "good"), "synthetic"}
    assert told[0]["inferred"] == 7
    assert "held-out good images" in console.said[0]
    assert all("boxes" in result.to_dict() for result in seen)


def test_messages_that_cannot_be_shown_change_nothing(tmp_path: Path) -> None:
    """A console that raises, as on a full disk: each HUP is still followed, and the run ends as asked."""
    bundle = make_level_bundle(tmp_path / "level.edgead")

    class Full(Listener):
        def say(self, text: str) -> None:
            super().say(text)
            raise OSError(28, "No space left on device")

    console, summaries, asked = Full(), list[Any](), list[int]()

    def step(result: Result) -> None:
        reloaded = sum(text.startswith("Bundle reloaded") for text in console.said)
        if reloaded == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        elif len(asked) == reloaded:
            asked.append(result.frame_id or 0)
            os.kill(os.getpid(), signal.SIGHUP)

    run(
        bundle.path,
        sources=["synthetic:?fps=50&width=64&height=64&frames=2000"],
        engine="onnxruntime",
        on_result=step,
        on_end=summaries.append,
        console=console,
    )
    assert len(asked) == 2
    assert summaries[0]["captured"] < 2000


def test_no_bundle_is_opened_any_more_when_a_run_has_ended(tmp_path: Path) -> None:
    """A library's code would abort the process if it ended now."""
    bundle = make_level_bundle(tmp_path / "level.edgead")
    run(
        bundle.path,
        sources=["synthetic:?fps=50&width=64&height=64&frames=10"],
        engine="onnxruntime",
        on_result=lambda result: os.kill(os.getpid(), signal.SIGHUP),
    )
    assert not [thread for thread in threading.enumerate() if thread.name == "reload"]


def test_process_drains_on_term_and_swaps_on_hup(line_bundle: Path, tmp_path: Path) -> None:
    bundle, results = tmp_path / "line.edgead", tmp_path / "results.jsonl"
    shutil.copytree(line_bundle, bundle)
    shadow = tmp_path / "shadow.edgead"
    shutil.copytree(line_bundle, shadow)
    source = "synthetic:?fps=100&width=64&height=64"  # the model's aspect ratio, so no warning
    options = ["--engine", "onnxruntime", "--health", "off", "--shadow", str(shadow), "--json"]
    process = start(str(bundle), "--source", source, "--sink", f"jsonl:{results}", *options)
    assert process.stderr
    wait_until(lambda: results.exists() and len(results.read_text().splitlines()) > 5)
    (bundle / "manifest.json").write_text("{}")
    process.send_signal(signal.SIGHUP)
    wait_for_line(process.stderr, "the old one stays in use")
    shutil.copy(line_bundle / "manifest.json", bundle)
    process.send_signal(signal.SIGHUP)
    wait_for_line(process.stderr, "Bundle reloaded")
    process.send_signal(signal.SIGUSR1)
    wait_for_line(process.stderr, "now decides")
    count = len(results.read_text().splitlines())
    wait_until(lambda: len(results.read_text().splitlines()) > count + 5)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    summary = json.loads(out)
    assert summary["in_flight"] == 0
    assert summary["captured"] == summary["inferred"] + summary["dropped"]
    lines = lines_of(results)
    assert len(lines) == summary["inferred"]
    numbers = [line["frame_id"] for line in lines]
    assert numbers == sorted(set(numbers))


def test_process_interrupted_says_so_and_keeps_the_ledger(line_bundle: Path) -> None:
    process = start(str(line_bundle), "--source", "synthetic:?fps=50&width=64&height=48", "--engine", "onnxruntime")
    assert process.stdout
    assert re.match(r"(PASS|FAIL|UNKNOWN)", process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "captured" in err
    assert "Traceback" not in err


def test_password_of_a_camera_is_in_no_output(line_bundle: Path) -> None:
    process = start(str(line_bundle), "--source", "rtsp://me:letmein@127.0.0.1:9/line", "--engine", "onnxruntime")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "cannot be opened" in err
    assert "letmein" not in out + err
