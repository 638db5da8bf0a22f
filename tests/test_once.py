"""All workers of a test run get what one of them has made completely; after a failure it is made again."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from once import copy_of, once


def worker(base: Path) -> Any:
    """What `once` asks of a worker's `pytest.TempPathFactory`."""
    base.mkdir()
    return SimpleNamespace(getbasetemp=lambda: base, mktemp=lambda name: base / name)


def test_one_of_several_workers_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    workers, begun, release, made = [worker(tmp_path / f"gw{number}") for number in range(3)], [], threading.Event(), []

    def make(folder: Path) -> None:
        begun.append(folder)
        (folder / "half").touch()
        assert release.wait(20)
        (folder / "whole").touch()

    def ask(factory: Any) -> None:
        made.append(sorted(path.name for path in copy_of(factory, "thing", make).iterdir()))

    threads = [threading.Thread(target=ask, args=(factory,)) for factory in workers]
    for thread in threads:
        thread.start()
    release.set()
    for thread in threads:
        thread.join(20)
    assert begun == [tmp_path / "once" / "thing"]
    assert made == [["half", "whole"]] * 3
    (tmp_path / "gw0" / "thing" / "half").unlink()  # a worker's own copy
    assert (tmp_path / "gw1" / "thing" / "half").exists()


def test_what_failed_half_way_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    factory = worker(tmp_path / "base")

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        once(factory, "thing", fail)
    made = once(factory, "thing", lambda folder: (folder / "whole").touch())
    assert made == tmp_path / "base" / "once" / "thing"
    assert [path.name for path in made.iterdir()] == ["whole"]
