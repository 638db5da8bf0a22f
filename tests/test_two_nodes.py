"""Sweep and archive on a cluster of two nodes, one killed in the middle: nothing is lost, nothing is there twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_cluster import add_second, kill_second, two_nodes
from waiting import wait_until

from edgead.bundle import Bundle
from edgead.sweep.cell import make_cells
from edgead.sweep.file import read_sweep_file
from edgead.sweep.store import CellState, Store

pytestmark = pytest.mark.long
STEPS, COPIES = 80, 800


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    with two_nodes() as found:
        yield found


@pytest.fixture
def cluster(nodes: Any) -> Any:
    """A cluster of two nodes; a test may have killed the second one of the last."""
    add_second(nodes)
    return nodes


def edgead(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgead", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def deciding() -> int:
    """Count processes that decide on an archive; Ray names its own by what they do."""
    names = (_title(path) for path in Path("/proc").glob("[0-9]*/cmdline"))
    return sum(name.startswith(b"ray::MapWorker") for name in names)


def _title(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def steps_in(metrics: Path) -> list[int]:
    return [json.loads(line)["step"] for line in metrics.read_text().splitlines()] if metrics.is_file() else []


def test_a_sweep_outlives_a_node(cluster: Any, parts: Path, tmp_path: Path) -> None:
    file, store = tmp_path / "s.toml", Store(tmp_path / "store")
    file.write_text(
        f'data = "{parts}"\nseeds = [0, 1]\nengine = "onnxruntime"\nrounds = 3\ncpus = 1\n[[methods]]\n'
        'method = "draem"\npreset = "nano"\n'
        f'settings = ["size=64", "reconstructive_width=4", "discriminative_width=4", "steps={STEPS}", "batch_size=2"]\n'
    )
    cells = make_cells(read_sweep_file(file))
    running = edgead("sweep", file, "--out", store.root, "--ray", cluster.address, "--json")
    metrics = [store.run(cell) / "metrics.jsonl" for cell in cells]
    wait_until(lambda: all(len(steps_in(path)) >= 5 for path in metrics), 90, running)  # one on each node
    kill_second(cluster)
    assert [len(steps_in(path)) for path in metrics] != [STEPS, STEPS]
    said, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    rows = json.loads(said)["rows"]
    assert [row["seed"] for row in rows] == [0, 1]
    assert all(store.state(cell, "fp32")[0] is CellState.DONE for cell in cells)
    assert [steps_in(path) for path in metrics] == [list(range(1, STEPS + 1))] * 2
    started = ["mvtec layout" in line for cell in cells for line in store_log(store, cell)]
    assert sum(started) == 2  # each training was begun once; the one whose node died was resumed


def store_log(store: Store, cell: Any) -> list[str]:
    return (store.folder(cell) / "log.txt").read_text().splitlines()


def test_an_archive_outlives_a_node(cluster: Any, parts: Path, bundle: Bundle, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    images, out = tmp_path / "images", tmp_path / "rows.parquet"
    images.mkdir()
    content = next((parts / "train" / "good").iterdir()).read_bytes()
    for number in range(COPIES):
        (images / f"{number:04}.png").write_bytes(content if number % 20 else content[:100])
    running = edgead(
        "predict", bundle.path, images, "--ray", cluster.address, "--out", out, "--engine", "onnxruntime", "--json"
    )
    wait_until(lambda: deciding() >= 2, 90, running)  # one process on each node
    kill_second(cluster)
    assert running.poll() is None
    said, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    rows = parquet.read_table(out).to_pylist()
    assert [row["path"] for row in rows] == sorted(str(path) for path in images.iterdir())
    assert [row["verdict"] == "UNKNOWN" for row in rows] == [number % 20 == 0 for number in range(COPIES)]
    assert json.loads(said)["images"] == COPIES
