"""edgead on 64-bit Arm, under emulation: the installed package gives the reference outputs, in float32 and in INT8.

`every_method.py` does the same with every method and more processors.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import emulation
import every_method
import pytest
from small_bundles import PRECISIONS, make_pictures

from edgead.bundle import Bundle
from edgead.demo import make_parts
from edgead.export import export

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def work(trained: Path, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the emulated machine: edgead as a wheel, two bundles of one run, pictures."""
    folder = tmp_path_factory.mktemp("arm")
    try:
        emulation.require_tools()
    except emulation.NotHereError as error:
        pytest.skip(str(error))
    emulation.install(folder)
    make_pictures(make_parts(folder / "parts", train=1, good=1, bad=1), folder / "pictures")
    shutil.copytree(bundle.path, folder / "tiny.edgead")
    export(trained, out=folder / "tiny-int8.edgead", precision=PRECISIONS["int8"])
    return folder


@pytest.fixture(params=["3.10", "3.12"])
def python(request: pytest.FixtureRequest) -> str:
    """The Python of a JetPack, prepared for the emulated machine."""
    try:
        emulation.prepare(request.param)
    except emulation.NotHereError as error:
        pytest.skip(str(error))
    return str(request.param)


@pytest.mark.parametrize("name", ["tiny.edgead", "tiny-int8.edgead"])
def test_a_bundle_gives_the_same_scores_on_64_bit_arm(work: Path, python: str, name: str) -> None:
    here = every_method.use_here(work / name)
    there = every_method.use_there(work / name, here, python, emulation.CPUS[0])
    assert there["good"], there
    assert there["golden"]["frames"] >= 2
    assert there["spread"] > there["golden"]["tolerance"]  # the pictures' scores are not all one
    assert there["versions"]["edgead"] == here["versions"]["edgead"]
    assert there["versions"]["python"].startswith(python)


def test_another_score_is_found(work: Path, python: str) -> None:
    here = every_method.use_here(work / "tiny.edgead")
    wrong = {**here, "scores": [score + 0.01 for score in here["scores"]]}
    there = every_method.use_there(work / "tiny.edgead", wrong, python, emulation.CPUS[0])
    assert not there["good"]
    assert there["score_difference"] == pytest.approx(0.01, abs=1e-3)


def test_why_a_machine_cannot_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(emulation.NotHereError) as refused:
        emulation.prepare("3.12")
    assert len(str(refused.value).splitlines()) == 1
    assert "apt-get install qemu-user-static" in str(refused.value)
