"""No engine decides that does not give the golden outputs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from level_bundle import (
    make_level_bundle,
    needs_openvino,
)
from running import Listener

import edgead
from edgead.bundle import Bundle, Golden
from edgead.errors import DeviceError
from edgead.export.inference import run_singly
from edgead.runtime.engines.checked import check
from edgead.runtime.engines.opening import open_engine, open_validated
from edgead.runtime.golden import check_golden, compare


@pytest.mark.parametrize("name", ["onnxruntime", pytest.param("openvino", marks=needs_openvino), "auto"])
def test_no_engine_decides_that_does_not_give_the_golden_outputs(tmp_path: Path, name: str) -> None:
    wrong = make_level_bundle(tmp_path / "wrong.edgead", golden_error=0.5)
    with pytest.raises(DeviceError, match="differs from the reference outputs"):
        edgead.load(wrong.path, engine=name)


class Wrong:
    """An engine that is right on single frames and wrong in a batch; its maps may be wrong always."""

    name = "wrong in batches"

    def __init__(self, bundle: Bundle, error: float, exact: bool = True, map_error: float = 0.0) -> None:
        self.engine, self.error, self.exact, self.closed = open_engine("onnxruntime", bundle), error, exact, False
        self.map_error, self.most = map_error, 0

    def infer(self, frames: Any) -> Any:
        self.most = max(self.most, len(frames))
        scores, maps = self.engine.infer(frames)
        return scores + np.float32(self.error * (len(frames) > 1)), maps + np.float32(self.map_error)

    def close(self) -> None:
        self.closed = True


def test_a_batch_is_proven_too(first: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_golden(first, Wrong(first, 1.0), batch=1).good
    assert not check_golden(first, Wrong(first, 1.0), batch=3).good
    assert check_golden(first, Wrong(first, 0.0), batch=7).good
    wrong = Wrong(first, 1.0)
    monkeypatch.setattr(
        "edgead.runtime.engines.opening.open_engine", lambda name, bundle, **options: check(wrong, bundle)
    )
    with pytest.raises(DeviceError, match="wrong in batches differs from the reference outputs"):
        open_validated("onnxruntime", first, batch=3)
    assert wrong.closed


def test_an_engine_that_is_less_precise_by_name_may_differ_by_a_quarter_of_the_spread(first: Bundle) -> None:
    assert check_golden(first, Wrong(first, 60.0, exact=False), batch=2).good  # the golden scores are 0 to 250
    assert not check_golden(first, Wrong(first, 65.0, exact=False), batch=2).good


def test_a_graph_of_a_fixed_batch_is_not_run_in_another(first: Bundle) -> None:
    fixed = dataclasses.replace(first.manifest.input, batch=1)
    bundle = dataclasses.replace(first, manifest=dataclasses.replace(first.manifest, input=fixed))
    for each, most in ((first, 3), (bundle, 1)):
        engine = Wrong(first, 0.0)
        assert check_golden(each, engine, batch=3).good
        assert engine.most == most


@pytest.mark.parametrize(("map_tolerance", "good"), [(None, False), (0.01, False), (0.4, False), (0.6, True)])
def test_maps_are_held_to_their_own_tolerance(first: Bundle, map_tolerance: float | None, good: bool) -> None:
    parity = dataclasses.replace(first.manifest.parity, tolerance=0.01, map_tolerance=map_tolerance)
    bundle = dataclasses.replace(first, manifest=dataclasses.replace(first.manifest, parity=parity))
    found = check_golden(bundle, Wrong(first, 0.0, map_error=0.5))
    assert found.good is good
    assert found.map_error == pytest.approx(0.5, abs=1e-3)
    assert found.map_tolerance == (0.01 if map_tolerance is None else map_tolerance)


def outputs(score: float, level: float) -> tuple[Any, Any]:
    """Scores and maps of two frames."""
    return np.full(2, score, np.float32), np.full((2, 4, 4), level, np.float32)


def test_scores_and_maps_are_compared_each_with_its_tolerance() -> None:
    reference = Golden(np.zeros((2, 4, 4, 3), np.uint8), *outputs(1, 1))
    assert compare(reference, *outputs(1.1, 1), 0.2).good
    assert compare(reference, *outputs(1, 1.1), 0.2).good
    assert compare(reference, *outputs(1.5, 0.5), 0.5).good
    assert not compare(reference, *outputs(1.3, 1), 0.2, map_tolerance=9).good
    assert not compare(reference, *outputs(1, 1.3), 9, map_tolerance=0.2).good
    assert not compare(reference, *outputs(1, np.nan), 0.2).good
    assert not compare(reference, outputs(1, 1)[0][:1], outputs(1, 1)[1], 0.2).good


def test_the_graph_that_agrees_best_is_compared_with() -> None:
    """Best relative to what is allowed: the second is nearer in the score and too far in the maps."""
    forms = (outputs(1.1, 2.5), outputs(1, 1.5))
    reference = Golden(np.zeros((2, 4, 4, 3), np.uint8), *outputs(9, 9), forms)
    found = compare(reference, *outputs(1, 2.6), 0.2, map_tolerance=0.3)
    assert (found.score_error, found.map_error) == pytest.approx((0.1, 0.1), abs=1e-6)
    assert found.good


def test_an_engine_that_is_less_precise_says_how_far_it_is(first: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for exact in (True, False):
        engine, console = check(Wrong(first, 20.0, exact), first), Listener()
        monkeypatch.setattr(
            "edgead.runtime.engines.opening.open_engine", lambda name, bundle, engine=engine, **_: engine
        )
        open_validated("onnxruntime", first, console=console).close()
        assert len(console.said) == (not exact)
        assert all(re.match(r"wrong in batches is less precise .*scores within 0 ", line) for line in console.said)


@needs_openvino
def test_bf16_opens_by_name_and_says_how_far_it_is(first: Bundle) -> None:
    assert not open_engine("openvino-bf16", first).exact
    assert open_engine("openvino", first).exact
    open_validated("openvino-bf16", first).close()


@pytest.mark.parametrize("outputs", [(np.zeros(2, np.float32), 0), (np.zeros(1), np.zeros((1, 64, 64))), None])
def test_outputs_of_another_shape_are_refused_where_bundles_are_made(outputs: Any) -> None:
    class Odd:
        name = "odd"

        def infer(self, frames: Any) -> Any:
            return outputs

        def close(self) -> None:
            """Nothing is kept open."""

    with pytest.raises(DeviceError, match="The engine odd returned"):
        run_singly(Odd(), np.zeros((2, 64, 64, 3), np.uint8), iter)
