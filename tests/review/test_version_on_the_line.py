"""A version on a running line: rejects are marked, it becomes the shadow, then it decides."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import inside
from level_bundle import frame_of, make_level_bundle
from waiting import wait_until

import edgead
from edgead.files import atomic_file
from edgead.images import encode_png


class Line:
    """``edgead run`` over a folder that parts are put into."""

    def __init__(self, folder: Path, *options: str | Path) -> None:
        self.parts, self.rejects, self.log = folder / "parts", folder / "rejects", folder / "log.txt"
        self._results = folder / "results.jsonl"
        self.parts.mkdir()
        self._count = 0
        sinks = ["--sink", f"jsonl:{self._results}", "--sink", f"rejects:{self.rejects}"]
        given = ["--source", f"watch:{self.parts}", "--engine", "onnxruntime", "--health", "off", *map(str, options)]
        environment = {**os.environ, "PYTHONPATH": str(Path(edgead.__file__).parents[1])}
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "edgead", "run", str(folder / "line.edgead"), *given, *sinks]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        wait_until(self._results.exists)

    def inspect(self, level: int) -> dict[str, Any]:
        """Put a part in front of the camera and return its result."""
        self._count += 1
        name = f"{self._count:03}-{level}.png"
        with atomic_file(self.parts / name) as stream:
            stream.write(encode_png(frame_of(level)))
        wait_until(lambda: any(name in line for line in self._results.read_text().splitlines(keepends=True)))
        lines = [json.loads(line) for line in self._results.read_text().splitlines()]
        [result] = [line for line in lines if line["path"] and line["path"].endswith(name)]
        return dict(result)

    def hear(self, text: str) -> None:
        wait_until(lambda: text in self.log.read_text())

    def mark(self, result: dict[str, Any], mark: str) -> None:
        def saved() -> list[Path]:
            return [path for path in self.rejects.glob("*.json") if result["id"] in path.read_text()]

        wait_until(saved)
        assert inside("review", saved()[0], "--as", mark).returncode == 0


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    make_level_bundle(tmp_path / "line.edgead")  # its threshold is 130
    running = Line(tmp_path, "--shadow", tmp_path / "line-2.edgead")
    yield running
    running.process.kill()
    running.process.wait()


@pytest.mark.slow
def test_a_version_is_the_shadow_first_and_then_decides(line: Line, tmp_path: Path) -> None:
    line.hear("line-2.edgead does not exist yet")
    line.mark(line.inspect(150), "false-reject")
    line.mark(line.inspect(190), "real-defect")
    write = ["--bundle", tmp_path / "line.edgead", "--write", tmp_path / "line-2.edgead", "--engine", "onnxruntime"]
    written = inside("review", line.rejects, *write)
    assert written.returncode == 0, written.stderr
    line.hear("Shadow: line-2 is the shadow now; it decides nothing.")
    result = line.inspect(145)
    assert (result["verdict"], result["bundle"]) == ("FAIL", "line")
    line.hear("line says FAIL (145), line-2 says PASS (145)")
    os.kill(line.process.pid, signal.SIGUSR1)
    line.hear("The shadow line-2 now decides")
    for level, verdict in ((146, "PASS"), (170, "FAIL"), (100, "PASS")):
        result = line.inspect(level)
        assert (result["verdict"], result["bundle"]) == (verdict, "line-2")
    again = inside("review", line.rejects, *write, "--threshold", "160", "--force")  # replaced while it decides
    assert again.returncode == 0, again.stderr
    wait_until(lambda: line.log.read_text().count("is the shadow now") == 2)
    assert line.inspect(155)["verdict"] == "FAIL"  # what decides is not replaced
    line.hear("line-2 says FAIL (155), line-2 says PASS (155)")
    line.process.send_signal(signal.SIGTERM)
    assert line.process.wait(60) == 0


@pytest.mark.slow
def test_a_damaged_shadow_leaves_the_line_as_it_is(line: Line, tmp_path: Path) -> None:
    line.hear("line-2.edgead does not exist yet")
    folder = tmp_path / "line-2.edgead"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    line.hear("cannot become the shadow")
    assert line.inspect(150)["verdict"] == "FAIL"
    os.kill(line.process.pid, signal.SIGUSR1)
    line.hear("USR1 has no effect before the shadow's bundle is there")
    assert line.inspect(100)["verdict"] == "PASS"
