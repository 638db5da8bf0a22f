"""Training with good parts that people have marked as false rejects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import inside

from edgead.errors import CheckpointError, ConfigError
from edgead.export import export
from edgead.images import encode_png, read_image
from edgead.marks import Marks
from edgead.train import checkpoint, run_config
from edgead.train.training import resume, train

Write = Callable[..., Path]
QUICK = ("size=32", "reconstructive_width=2", "discriminative_width=2", "steps=1", "batch_size=2")


def picture(seed: int) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (32, 40, 3), dtype=np.uint8))


def mark(folder: Path, number: int, data: bytes, name: str = "false reject", path: Path | None = None) -> None:
    result = {"id": f"id-{number}", "verdict": "FAIL", "score": 2.0, "path": str(path) if path else None}
    Marks(folder / "marks").set(f"reject-{number}", result, name, "Ada", lambda: data)


@pytest.fixture
def data(tmp_path: Path, write_image: Write) -> Path:
    """Six good images and a labelled one."""
    for index in range(6):
        write_image(tmp_path / "data" / "train" / "good" / f"{index}.png", seed=index)
    write_image(tmp_path / "data" / "test" / "good" / "0.png", seed=50)
    return tmp_path / "data"


def split_of(run: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    config = run_config.load_run_config(run)
    return config.normals, config.held_out


def test_marked_good_parts_are_trained_on_and_never_held_out(data: Path, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects"
    [plain] = train("draem", data, preset="nano", settings=QUICK, out=tmp_path / "plain")
    normals, held_out = split_of(plain)
    mark(rejects, 1, picture(101))
    mark(rejects, 2, picture(102))
    mark(rejects, 3, picture(103), "real defect")
    mark(rejects, 4, picture(104), "unsure")
    mark(rejects, 5, encode_png(read_image(data / held_out[0])))  # shows what a held-out image shows
    nearly = read_image(data / held_out[0]).copy()
    nearly[0, 0] ^= 1
    mark(rejects, 6, encode_png(nearly))
    mark(rejects, 7, picture(107), path=data / "test" / "good" / "0.png")  # a labelled image, inspected
    mark(rejects, 8, picture(108))
    mark(rejects, 8, picture(108), "real defect")  # the last mark counts
    mark(rejects, 9, encode_png(read_image(data / "test" / "good" / "0.png")))  # the same, seen by a camera
    [run] = train("draem", data, preset="nano", settings=QUICK, out=tmp_path / "run", marked=rejects)
    config = run_config.load_run_config(run)
    assert (config.normals, config.held_out) == (normals, held_out)
    assert config.marked is not None
    assert config.marked.names == ("images/good/reject-1.png", "images/good/reject-2.png")
    assert (config.marked.left_out, config.trained_on, config.epoch_images) == (4, len(normals) + 2, 8)
    plain_config = run_config.load_run_config(plain)
    assert config.fingerprint != plain_config.fingerprint
    assert config.held_out_fingerprint == plain_config.held_out_fingerprint
    assert (run / checkpoint.WEIGHTS).read_bytes() != (plain / checkpoint.WEIGHTS).read_bytes()
    manifest = export(run, out=tmp_path / "b.edgead").manifest
    assert (manifest.training.marked, manifest.training.images) == (2, len(normals) + 2)
    assert manifest.threshold.normals == len(held_out)
    assert "marked" not in json.loads((plain / run_config.CONFIG).read_text())


def test_good_parts_of_another_product_are_not_trained_on(data: Path, tmp_path: Path) -> None:
    """A line with products saves the rejects of all in one folder: caps would become good bottles."""
    marks = Marks(tmp_path / "rejects" / "marks")
    for number, product in enumerate(("bottle", "cap")):
        result = {"id": product, "verdict": "FAIL", "recipe": f"{product} 1", "bundle": product}
        marks.set(product, result, "false reject", "Ada", lambda number=number: picture(200 + number))
    with pytest.raises(ConfigError, match=r"of several products: bottle, cap\.[^\n]*\n.*--marks DIR"):
        train("draem", data, preset="nano", settings=QUICK, out=tmp_path / "run", marked=tmp_path / "rejects")
    assert not (tmp_path / "run").exists()


def test_a_run_is_resumed_with_the_same_marked_parts(data: Path, tmp_path: Path) -> None:
    mark(tmp_path / "rejects", 1, picture(101))
    [run] = train("draem", data, preset="nano", settings=QUICK, out=tmp_path / "run", marked=tmp_path / "rejects")
    (run / checkpoint.WEIGHTS).unlink()
    resume(run)
    (run / checkpoint.WEIGHTS).unlink()
    mark(tmp_path / "rejects", 1, picture(101), "real defect")
    with pytest.raises(CheckpointError, match="or the marked ones in"):
        resume(run)


def test_marked_parts_that_cannot_be_used_are_named(data: Path, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects"
    with pytest.raises(ConfigError, match="is not a folder"):
        train("draem", data, preset="nano", settings=QUICK, out=tmp_path / "run", marked=rejects)
    mark(rejects, 1, picture(101), "unsure")
    done = inside("train", "--data", data, "--preset", "nano", "--marked", rejects, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "is marked as false reject" in done.stderr
    assert not (tmp_path / "run").exists()
    with (rejects / "marks" / "marks.jsonl").open("a") as stream:
        stream.write('{"id": "id-2", "mark": "real de\n')
    mark(rejects, 1, picture(101), "false reject", data / "test" / "good" / "0.png")
    done = inside("train", "--data", data, "--preset", "nano", "--marked", rejects, "--out", tmp_path / "run")
    assert "1 damaged lines of" in done.stderr
    with pytest.raises(ConfigError, match="show held-out or labelled images"):
        train("draem", data, preset="nano", settings=QUICK, out=tmp_path / "run", marked=rejects)
    with pytest.raises(ConfigError, match="belong to one product"):
        train("draem", data, category="all", preset="nano", settings=QUICK, marked=rejects)
