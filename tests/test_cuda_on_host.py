"""The CUDA on the host answers mistakes as the real one does, so that tests of our calls can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorrt_on_cpu import environment, make_cuda, needs_compiler

pytestmark = needs_compiler


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    libraries = make_cuda(tmp_path_factory.mktemp("cuda"))
    command = [sys.executable, str(Path(__file__).with_name("mistakes_with_cuda.py"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(libraries=libraries))
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_wrong_addresses_handles_and_sizes_are_refused(found: dict[str, Any]) -> None:
    assert found["copies"] == {
        "good": 0,
        "address cut to 32 bits": 1,
        "beyond the end": 1,
        "of an unknown kind": 1,
        "host for device": 1,
        "stream cut to 32 bits": 400,
        "event for stream": 400,
        "host memory freed as device memory": 1,
    }


def test_a_stream_has_worked_only_when_it_was_waited_for(found: dict[str, Any]) -> None:
    assert found["waiting"] == {
        "after another stream": 0,
        "after a stream that follows": 7,
        "not waited for": 0,
        "waited for asleep": 7,
    }


@pytest.mark.parametrize(
    ("mode", "allocation", "elsewhere", "ended_elsewhere"),
    [
        ("global", [900, 901], [900, 901], [908, 901]),
        ("local", [900, 901], [0, 0], [908, 901]),
        ("relaxed", [0, 0], [0, 0], [0, 401]),
    ],
)
def test_what_breaks_a_recording_depends_on_its_mode(
    found: dict[str, Any], mode: str, allocation: list[int], elsewhere: list[int], ended_elsewhere: list[int]
) -> None:
    assert found[mode] == {
        "pinned": [0, 0],
        "pageable": [900, 901],
        "allocation": allocation,
        "allocation elsewhere": elsewhere,
        "wait for the stream": [900, 901],
        "unrecorded event": [905, 901],
        "begun twice": [401, 0],
        "ended elsewhere": ended_elsewhere,
    }


def test_calls_in_the_wrong_order_are_refused(found: dict[str, Any]) -> None:
    assert found["ends"] == {
        "waits for a recorded event": 907,
        "ended without a beginning": 401,
        "default stream": 900,
        "launched without a graph": 1,
        "stream destroyed twice": [0, 400],
    }
