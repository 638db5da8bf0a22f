"""Copies of a process, other processes, and the end of one: an inspector works, or says at once that it does not."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest
from conftest import Camera, start_process
from level_bundle import LEVELS, frame_of, needs_openvino, open_any, scores_of

import edgead
from edgead.bundle import Bundle
from edgead.errors import ConfigError, DeviceError
from edgead.runtime.inspector import Inspector
from edgead.runtime.stream import Stream

PATIENCE = 120
"""Seconds after which a process that should have ended hangs."""
CPU_ENGINES = ["onnxruntime", pytest.param("openvino", marks=needs_openvino)]


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


def test_a_fork_may_load_a_bundle_of_its_own(first: Bundle) -> None:
    def work() -> str:
        with edgead.load(first.path, engine="onnxruntime") as own:
            return f"{own.inspect(frame_of(150)).score:.2f}"

    with Inspector(first, open_any("onnxruntime", first)) as inspector:
        inspector.inspect(frame_of(0))
        assert in_a_fork(work) == "150.00"


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
        found = [*pool.map(scores_of, [str(first.path)] * 2, ["onnxruntime"] * 2)]
    assert found[0] == found[1] == scores_of(str(first.path), "onnxruntime")


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
def test_the_interpreter_ends_while_a_stream_runs(first: Bundle) -> None:
    started = {}
    for ending, lines in ENDINGS.items():
        program = (
            "import sys, threading, time\n"
            "import edgead\n"
            "from edgead.runtime.stream import Stream\n"
            "inspector = edgead.load(sys.argv[1], engine='onnxruntime')\n"
            "stream = Stream(inspector, ['synthetic:?width=64&height=64&fps=200'])\n"
            f"{lines}\n"
        )
        started[ending] = start_process([sys.executable, "-c", program, str(first.path)])
    for ending, process in started.items():
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == EXIT_CODES.get(ending, 0), (ending, errors)
        assert bool(errors) == (ending == "an error in the loop"), (ending, errors)
        assert "Fatal" not in errors
        assert "Exception ignored" not in errors


def test_callbacks_that_raise_end_no_source(first: Bundle) -> None:
    """Each frame is counted, whatever the caller's functions do."""

    def fails(*_values: object) -> Any:
        raise LookupError("the caller's")

    for number, callbacks in enumerate(
        ({"choose": fails}, {"admit": fails}, {"on_drop": fails, "admit": lambda *_: "x"})
    ):
        with Inspector(first, open_any("onnxruntime", first)) as inspector:
            frames = [np.full((64, 64, 3), level, np.uint8) for level in LEVELS]
            stream = Stream(inspector, [frames], say=fails, **callbacks)  # type: ignore[arg-type]
            results = list(stream)
            facts = stream.ledger.snapshot()
        assert facts["captured"] == len(LEVELS), number
        assert facts["captured"] == facts["inferred"] + facts["dropped"]
        assert not stream.failed
        assert len(results) == facts["inferred"] == (len(LEVELS) if "choose" in callbacks else 0)
        assert all(result.verdict is edgead.Verdict.UNKNOWN for result in results)


def test_a_stream_stops_though_its_callback_raises(first: Bundle) -> None:
    def fails() -> None:
        raise LookupError("the caller's")

    with Inspector(first, open_any("onnxruntime", first)) as inspector:
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
