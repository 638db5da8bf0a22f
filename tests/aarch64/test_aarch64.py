"""edgead on 64-bit Arm, under emulation: the installed package gives the reference outputs, in float32 and in INT8.

`every_method.py` does the same with every method and with more Pythons and processors: minutes for each method.
"""

from __future__ import annotations

from pathlib import Path

import emulation
import every_method
import pytest
from small_bundles import make_bundles

pytestmark = pytest.mark.long
CPU, JETPACK_7 = emulation.CPUS[0], "3.12"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the emulated machine, with edgead as a wheel."""
    folder = tmp_path_factory.mktemp("arm")
    try:
        emulation.require_tools()
    except emulation.NotHereError as error:
        pytest.skip(str(error))
    emulation.install(folder)
    return folder


def prepare(python: str) -> None:
    """Prepare the emulated machine, or skip with the reason why that cannot be."""
    try:
        emulation.prepare(python)
    except emulation.NotHereError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("python", "method"), [("3.10", "draem"), (JETPACK_7, "patchcore"), (JETPACK_7, "student")])
def test_bundles_give_the_same_scores_on_64_bit_arm(work: Path, python: str, method: str) -> None:
    prepare(python)
    for bundle in make_bundles(work, [method]):
        here = every_method.use_here(bundle)
        there = every_method.use_there(bundle, here, python, CPU)
        assert there["good"], (bundle.name, there)
        assert there["golden"]["frames"] >= 2
        assert there["spread"] > there["golden"]["tolerance"]  # the pictures' scores are not all one
        assert there["versions"]["edgead"] == here["versions"]["edgead"]
        assert there["versions"]["python"].startswith(python)


def test_the_runtimes_tests_pass_on_64_bit_arm(work: Path) -> None:
    prepare(JETPACK_7)
    list(make_bundles(work, ["draem"]))
    found = every_method.run_tests(work, JETPACK_7, CPU)
    assert found["good"], found["why"]
    assert found["passed"] > 300


def test_another_score_is_found(work: Path) -> None:
    prepare(JETPACK_7)
    bundle = next(make_bundles(work, ["draem"]))
    here = every_method.use_here(bundle)
    wrong = {**here, "scores": [score + 0.01 for score in here["scores"]]}
    there = every_method.use_there(bundle, wrong, JETPACK_7, CPU)
    assert not there["good"]
    assert there["score_difference"] == pytest.approx(0.01, abs=1e-3)


def test_why_a_machine_cannot_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(emulation.NotHereError) as refused:
        emulation.prepare("3.12")
    assert len(str(refused.value).splitlines()) == 1
    assert "apt-get install qemu-user-static" in str(refused.value)
