"""Copies of a process, other processes, and the end of one: an inspector works, or says at once that it does not."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from level_bundle import LEVELS, frame_of, needs_openvino, open_any, scores_of
from running import Camera, start_process

import edgead
from edgead.bundle import Bundle
from edgead.errors import ConfigError, DeviceError
from edgead.runtime.inspector import Inspector
from edgead.runtime.run import run
from edgead.runtime.stream import Stream

PATIENCE = 120
"""Seconds after which a process that should have ended hangs."""
CPU_ENGINES = ["onnxruntime", pytest.param("openvino", marks=needs_openvino)]
FIRST_AT_ONCE = """
import sys, threading
import numpy as np
from edgead.bundle import read_bundle
from edgead.runtime.engines.openvino_engine import the_core
from edgead.runtime.engines.opening import open_engine

sys.setswitchinterval(1e-6)
together, cores = threading.Barrier(4), []

def at_once(work):
    def run():
        together.wait()
        work()
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

at_once(lambda: cores.append(the_core()))
engines = [open_engine("openvino", read_bundle(sys.argv[1])) for _ in range(4)]
left = engines.copy()
at_once(lambda: left.pop().infer(np.zeros((1, 64, 64, 3), np.uint8)))
print(len(set(map(id, cores))))
"""


def in_a_fork(work: Callable[[], str]) -> str:
    """Run a function in a copy of this process; return what it returns, or ``hangs``."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, about threads: they are what is tested
        child = os.fork()
    if not child:
        signal.alarm(PATIENCE)  # its default action ends the process, also one that waits in compiled code
        try:
            os.write(writing, work().encode())
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        text = stream.read().decode()
    return "hangs" if os.waitpid(child, 0)[1] else text


def refusal(work: Callable[[], Any]) -> str:
    """Return the type and first line of what a call raises."""
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return "accepted"


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_a_fork_cannot_use_the_engine_of_its_parent_and_is_told_at_once(first: Bundle, name: str) -> None:
    inspector = Inspector(first, open_any(name, first))
    inspector.inspect(frame_of(50))  # its library's threads run
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            inspector.inspect(frame_of(100))

    busy = threading.Thread(target=keep_busy)  # holds the engine's lock nearly always, also while the process forks
    busy.start()
    for _ in range(3):
        said = in_a_fork(lambda: refusal(lambda: inspector.inspect(frame_of(50))))
        assert said.startswith("DeviceError: The engine")
        assert "before this process was forked" in said
        assert in_a_fork(lambda: inspector.close() or str(inspector.closed)) == "True"
    stop.set()
    busy.join()
    assert inspector.inspect(frame_of(75)).score == pytest.approx(75, abs=0.01)  # the parent's is as it was
    inspector.close()


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_a_fork_may_load_a_bundle_of_its_own(first: Bundle, name: str) -> None:
    def work() -> str:
        with edgead.load(first.path, engine=name) as own:
            return f"{own.inspect(frame_of(150)).score:.2f}"

    with Inspector(first, open_any(name, first)) as inspector:
        inspector.inspect(frame_of(0))
        said = in_a_fork(work)
    if name == "openvino":  # its threads are not in the copy, where it hung now and then
        assert said.startswith("DeviceError: OpenVINO was used before this process was forked")
    else:
        assert said == "150.00"


@needs_openvino
def test_a_fork_chooses_an_engine_that_works_in_it(first: Bundle) -> None:
    def work() -> str:
        with edgead.load(first.path) as own:
            return f"{own.engine.name} {own.inspect(frame_of(150)).score:.2f}"

    with Inspector(first, open_any("openvino", first)) as inspector:
        inspector.inspect(frame_of(0))
        assert in_a_fork(work) == "onnxruntime-cpu 150.00"


def test_a_fork_cannot_go_on_with_a_stream(first: Bundle) -> None:
    with Inspector(first, open_any("onnxruntime", first)) as inspector:
        stream = Stream(inspector, [Camera()])
        results = iter(stream)
        next(results)

        def go_on() -> str:
            return refusal(lambda: next(results))

        def leave() -> str:
            results.close()
            return "left"

        assert in_a_fork(go_on).startswith("ConfigError: The stream runs in the process that this one was forked from")
        assert in_a_fork(leave) == "left"
        assert next(results).verdict in edgead.Verdict  # the parent's goes on
        results.close()


def test_an_inspector_cannot_be_sent_to_another_process(first: Bundle) -> None:
    with (
        Inspector(first, open_any("onnxruntime", first)) as inspector,
        pytest.raises(ConfigError, match=r"belongs to its process.*\n.*edgead\.load\('.*first\.edgead'\)"),
    ):
        pickle.dumps(inspector)


@pytest.mark.slow
def test_spawned_processes_score_alike(first: Bundle) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:  # unlike a Pool, it says if one ends
        names = [name for name in ("onnxruntime", "openvino") for _ in range(2) if find_spec(name)]
        found = [*pool.map(scores_of, [str(first.path)] * len(names), names)]
    for name, scores in zip(names, found):
        assert scores == scores_of(str(first.path), name), name


ENDINGS = {
    "falls off the end": "",
    "sys.exit in the loop": "for result in stream: sys.exit(3)",
    "an error in the loop": "for result in stream: raise KeyError('x')",
    "the iterator is kept": "kept = iter(stream); next(kept); next(kept)",
    "a thread iterates": (
        "thread = threading.Thread(target=list, args=(stream,), daemon=True); thread.start()\n"
        "while stream.ledger.inferred < 3: time.sleep(0.01)"
    ),
    "inside a with block": "stream.__enter__(); kept = iter(stream); next(kept)",
    "the inspector was closed": "kept = iter(stream); next(kept); inspector.close()",
}
EXIT_CODES = {"sys.exit in the loop": 3, "an error in the loop": 1}


@pytest.mark.slow
@pytest.mark.parametrize("name", CPU_ENGINES)
def test_the_interpreter_ends_while_a_stream_runs(first: Bundle, name: str) -> None:
    started = {}
    for ending, lines in ENDINGS.items():
        program = (
            "import sys, threading, time\n"
            "import edgead\n"
            "from edgead.runtime.stream import Stream\n"
            "inspector = edgead.load(sys.argv[1], engine=sys.argv[2])\n"
            "stream = Stream(inspector, ['synthetic:?width=64&height=64&fps=200'])\n"
            f"{lines}\n"
        )
        started[ending] = start_process([sys.executable, "-c", program, str(first.path), name])
    for ending, process in started.items():
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == EXIT_CODES.get(ending, 0), (ending, errors)
        assert bool(errors) == (ending == "an error in the loop"), (ending, errors)
        assert "Fatal" not in errors
        assert "Exception ignored" not in errors


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_callbacks_that_raise_end_no_source(first: Bundle, name: str) -> None:
    """Each frame is counted, whatever the caller's functions do."""

    def fails(*_values: object) -> Any:
        raise LookupError("the caller's")

    for number, callbacks in enumerate(
        ({"choose": fails}, {"admit": fails}, {"on_drop": fails, "admit": lambda *_: "x"})
    ):
        with Inspector(first, open_any(name, first)) as inspector:
            frames = [np.full((64, 64, 3), level, np.uint8) for level in LEVELS]
            stream = Stream(inspector, [frames], say=fails, **callbacks)  # type: ignore[arg-type]
            results = list(stream)
            facts = stream.ledger.snapshot()
        assert facts["captured"] == len(LEVELS), number
        assert facts["captured"] == facts["inferred"] + facts["dropped"]
        assert not stream.failed
        assert len(results) == facts["inferred"] == (len(LEVELS) if "choose" in callbacks else 0)
        assert all(result.verdict is edgead.Verdict.UNKNOWN for result in results)


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_a_stream_stops_though_its_callback_raises(first: Bundle, name: str) -> None:
    def fails() -> None:
        raise LookupError("the caller's")

    with Inspector(first, open_any(name, first)) as inspector:
        camera = Camera()
        stream = Stream(inspector, [camera], on_stop=fails)
        results = iter(stream)
        next(results)
        with pytest.raises(LookupError):
            stream.stop()
        assert camera.stopped.is_set()
        list(results)
    with pytest.raises(DeviceError, match="closed"):
        inspector.inspect(frame_of(0))


def fails(*_values: object) -> None:
    raise LookupError("the caller's")


class Watching:
    """An observer, one method of which raises."""

    def __init__(self, raising: str) -> None:
        self._raising, self.called = raising, set[str]()

    def __getattr__(self, name: str) -> Callable[..., None]:
        def method(*values: object) -> None:
            self.called.add(name)
            if name == self._raising:
                fails()

        return method


def threads_of_runs() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name in ("reload", "signals", "shadow", "stop", "end")}


@pytest.mark.parametrize("name", CPU_ENGINES)
@pytest.mark.parametrize("where", ["on_result", "on_end", "begin", "see", "close", "nowhere"])
def test_a_run_ends_with_what_its_caller_raises(first: Bundle, name: str, where: str, tmp_path: Path) -> None:
    """Each result before that has arrived, each frame is accounted for, and no thread is left."""
    before, ends, observer = threads_of_runs(), list[Any](), Watching(where)
    callbacks: dict[str, Any] = {"on_end": ends.append, **({where: fails} if where.startswith("on_") else {})}
    frames = [frame_of(int(level)) for level in LEVELS]
    said = refusal(
        lambda: run(
            first.path,
            sources=[frames],
            sinks=[f"jsonl:{tmp_path / 'r.jsonl'}"],
            engine=name,
            health="off",
            observer=observer,  # type: ignore[arg-type]
            **callbacks,
        )
    )
    assert said == ("accepted" if where == "nowhere" else "LookupError: the caller's")
    arrived = len((tmp_path / "r.jsonl").read_text().splitlines()) if where != "begin" else 0
    assert arrived == {"begin": 0, "on_result": 1, "see": 1}.get(where, len(LEVELS))
    for summary in ends:
        assert summary["captured"] == summary["inferred"] + summary["dropped"]
        assert (summary["inferred"], summary["in_flight"]) == (arrived, 0)
    assert len(ends) == (where != "on_end")
    assert observer.called >= {"begin", "close"}
    until = time.monotonic() + 20
    while threads_of_runs() - before:
        assert time.monotonic() < until, threads_of_runs() - before
        time.sleep(0.01)


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_iterators_that_are_left_leave_nothing_running(first: Bundle, name: str) -> None:
    """Left after a result, before the first one, and with an error; the inspector then serves the next stream."""
    with Inspector(first, open_any(name, first)) as inspector:
        before = threading.active_count()
        for taken in (1, 0, 3):
            camera = Camera()
            results = iter(Stream(inspector, [camera]))
            for _ in range(taken):
                next(results)
            if taken == 3:
                with pytest.raises(KeyError):
                    results.throw(KeyError("the caller's"))
            del results
            assert camera.stopped.is_set() or taken == 0
            until = time.monotonic() + 20
            while threading.active_count() > before:
                assert time.monotonic() < until, threading.enumerate()
                time.sleep(0.01)
        assert inspector.inspect(frame_of(75)).score == pytest.approx(75, abs=0.01)


@needs_openvino
def test_the_first_inferences_of_several_threads_do_not_wait_for_each_other(first: Bundle) -> None:
    """The process stood still for ever, in about two of three cases: its binding made a table meanwhile."""
    for _ in range(3):
        command = [sys.executable, "-c", FIRST_AT_ONCE, str(first.path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
