"""No engine decides that does not give the golden outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from level_bundle import (
    make_level_bundle,
    needs_openvino,
)

import edgead
from edgead.bundle import Bundle
from edgead.errors import DeviceError
from edgead.export.inference import run_singly
from edgead.runtime.engines.checked import check
from edgead.runtime.engines.opening import open_engine, open_validated
from edgead.runtime.golden import check_golden


@pytest.mark.parametrize("name", ["onnxruntime", pytest.param("openvino", marks=needs_openvino), "auto"])
def test_no_engine_decides_that_does_not_give_the_golden_outputs(tmp_path: Path, name: str) -> None:
    wrong = make_level_bundle(tmp_path / "wrong.edgead", golden_error=0.5)
    with pytest.raises(DeviceError, match="differs from the reference outputs"):
        edgead.load(wrong.path, engine=name)


class Wrong:
    """An engine that is right on single frames, and wrong by so much in a batch."""

    name = "wrong in batches"

    def __init__(self, bundle: Bundle, error: float, exact: bool = True) -> None:
        self.engine, self.error, self.exact, self.closed = open_engine("onnxruntime", bundle), error, exact, False

    def infer(self, frames: Any) -> Any:
        scores, maps = self.engine.infer(frames)
        return scores + np.float32(self.error * (len(frames) > 1)), maps

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
