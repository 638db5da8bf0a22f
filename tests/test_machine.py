"""Facts about this machine."""

from __future__ import annotations

import os
import sys
from datetime import datetime, timedelta, timezone
from importlib import metadata
from pathlib import Path

import pytest

import edgead
from edgead.machine import describe_accelerator, describe_measurement


def test_a_measurement_says_how_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["/home/me/it.py", "/home/me/a b.edgead", "--out", "results/it.json", "--rounds", "3"]
    )
    made = describe_measurement("benchmarks/it.py", "click", "no-such-package")
    assert made.command == "python benchmarks/it.py 'a b.edgead' --out it.json --rounds 3"
    assert datetime.now(timezone.utc) - datetime.fromisoformat(made.created) < timedelta(minutes=5)
    assert made.machine.cores == os.cpu_count()
    assert made.versions["edgead"] == edgead.__version__
    assert made.versions["click"] == metadata.version("click")
    assert "no-such-package" not in made.versions


def test_a_tool_that_prints_other_bytes_than_utf8_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_bytes(b"#!/bin/sh\nprintf 'Orin \\251, 540.4.0\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert describe_accelerator() == "Orin \N{REPLACEMENT CHARACTER}, 540.4.0"
