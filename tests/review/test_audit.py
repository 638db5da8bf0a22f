"""The audit log: two writers, a full disk, a cut line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgead.audit import Audit

WRITER = """
import sys
from pathlib import Path
from edgead.audit import Audit
log = Audit(Path(sys.argv[1]))
for number in range(60):
    log.write(sys.argv[2], "here", "count", number=number, filler="x" * 3000)
"""


def lines_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


def test_two_processes_lose_no_line(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in ("a", "b")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    lines = lines_of(tmp_path)
    for name in ("a", "b"):
        assert [line["number"] for line in lines if line["who"] == name] == list(range(60))


@pytest.mark.parametrize("taken", [0, 1, 40])
def test_a_full_disk_takes_no_older_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    log = Audit(tmp_path)
    log.write("Ada", "here", "first")
    write = os.write

    def fill(descriptor: int, data: bytes) -> int:
        if fill.left <= 0:  # type: ignore[attr-defined]
            raise OSError(28, "No space left on device")
        written = write(descriptor, data[: fill.left])  # type: ignore[attr-defined]
        fill.left -= written  # type: ignore[attr-defined]
        return written

    fill.left = taken  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr("edgead.audit.os.write", fill)
        with pytest.raises(OSError, match="No space left"):
            log.write("Ada", "here", "second")
    log.write("Ada", "here", "third")
    assert [line["action"] for line in lines_of(tmp_path)] == ["first", "third"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_device_without_space_is_reported(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left|Invalid argument"):
        Audit(tmp_path).write("Ada", "here", "first")


def test_a_cut_line_is_ended_first(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_text('{"action": "first"}\n{"acti')
    Audit(tmp_path).write("Ada", "here", "second")
    first, cut, second = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert (json.loads(first)["action"], cut, json.loads(second)["action"]) == ("first", '{"acti', "second")
