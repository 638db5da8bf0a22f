"""The runtime on the processor of a Jetson, emulated: bundles made on this machine are read, proven and run there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aarch64_machine import Machine, make_machine

from edgead.bundle import Bundle
from edgead.export import PrecisionOptions, export
from edgead.export.options import Budget

pytestmark = pytest.mark.long
ENGINE = ("--engine", "onnxruntime")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return make_machine(tmp_path_factory.mktemp("aarch64"))


@pytest.fixture(scope="module", params=["fp32", "int8"])
def carried(request: pytest.FixtureRequest, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that was made here."""
    if request.param == "fp32":
        return bundle
    out = tmp_path_factory.mktemp("int8") / "tiny.edgead"
    run = request.getfixturevalue("trained")
    return export(run, out=out, precision=PrecisionOptions("int8", budget=Budget(auroc_drop=1, flips=1)))


def test_the_golden_frames_agree(machine: Machine, carried: Bundle, tmp_path: Path) -> None:
    done = machine.run("inspect", carried.path, *ENGINE, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["manifest"]["precision"] == carried.manifest.precision


def test_frames_are_decided(machine: Machine, carried: Bundle, parts: Path, tmp_path: Path) -> None:
    images = sorted((parts / "test" / "good").iterdir())[:2]
    done = machine.run("predict", carried.path, *images, *ENGINE, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert [Path(result["path"]).name for result in results] == [image.name for image in images]
    assert {result["verdict"] for result in results} <= {"PASS", "FAIL"}


def test_a_stream_is_accounted_for(machine: Machine, carried: Bundle, tmp_path: Path) -> None:
    ends = ("--source", "synthetic:?frames=3", "--sink", f"jsonl:{tmp_path / 'r.jsonl'}")
    done = machine.run("run", carried.path, *ends, *ENGINE, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 3
