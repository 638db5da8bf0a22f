"""`edgead export --precision`: what a bundle of lower precision holds, and that it runs."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from listener import Listener
from numpy.typing import NDArray
from tensorrt_on_cpu import make_shim

from edgead.bundle import MANIFEST, Bundle, manifest_digest, read_bundle
from edgead.bundle.gate_record import BudgetRecord
from edgead.cli import main
from edgead.datasets import open_category
from edgead.errors import ConfigError
from edgead.export import PrecisionOptions, export
from edgead.export.options import Budget, Calibration
from edgead.export.quantization.selection import FASTER_RATIO, _fastest
from edgead.machine import overflows_int8
from edgead.runtime.engines import CPU_MODEL
from edgead.runtime.engines.opening import open_engine
from edgead.runtime.golden import check_golden
from edgead.runtime.inspector import load
from edgead.runtime.reconstruction import Reconstructor

ANYTHING = Budget(auroc_drop=1, flips=1)
"""The shared run is trained for twelve steps: its scores differ by less than INT8 resolves."""


@pytest.fixture(scope="module")
def int8(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(
        trained,
        out=tmp_path_factory.mktemp("int8") / "tiny.edgead",
        precision=PrecisionOptions("int8", budget=ANYTHING),
    )


def test_an_int8_bundle_holds_the_reconstruction_too(int8: Bundle, bundle: Bundle) -> None:
    frame = bundle.golden().frames[0]
    change = np.abs(Reconstructor(int8)(frame).astype(int) - Reconstructor(bundle)(frame))
    assert change.mean() < 6


def test_an_int8_bundle_says_how_it_came_about(int8: Bundle, bundle: Bundle) -> None:
    manifest = read_bundle(int8.path).manifest
    assert sorted(manifest.files) == ["golden.npz", "model.cpu.onnx", "model.onnx"]
    assert sorted(path.name for path in int8.path.iterdir()) == ["golden.npz", MANIFEST, "model.cpu.onnx", "model.onnx"]
    assert manifest.precision == "int8"
    assert manifest.calibration.method == "minmax"
    assert manifest.calibration.source == "training"
    assert manifest.calibration.images == bundle.manifest.training.images
    assert len(manifest.calibration.fingerprint) == 64
    gate = manifest.gate
    assert gate.budget == BudgetRecord(1, 1)
    assert set(gate.variants) == {"model.onnx", "model.cpu.onnx"}
    assert gate.synthetic_anomalies == 40
    assert gate.kept_in_float32 == ()
    assert gate.layers == 51
    assert len(gate.attempts) == 1
    assert set(gate.milliseconds_here) == {"fp32", "int8"}
    assert set(gate.failed_here) <= {"int8"}  # an engine that no GPU is there for is not in it
    worst = max(form.score_error for form in gate.variants.values())
    assert manifest.parity.score_error == worst
    golden = int8.golden()
    assert len(golden.variants) == 2
    for values, limit in zip(zip(*golden.variants), ("tolerance", "map_tolerance")):
        spread = max(float(np.ptp(each)) for each in values)
        assert 0 < getattr(manifest.parity, limit) <= 0.25 * spread + 1e-4
    assert manifest.parity.tolerance <= 1.5 * worst + 1e-4
    assert bundle.manifest.gate is bundle.manifest.calibration is None


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_cpu_engines_run_the_form_for_cpus_and_give_the_golden_outputs(int8: Bundle, engine: str) -> None:
    pytest.importorskip(engine)
    if engine == "openvino" and overflows_int8():
        pytest.skip("without VNNI OpenVINO's INT8 sums overflow, and the golden frames refuse it: docs/precision.md")
    opened = open_engine(engine, int8)
    assert check_golden(int8, opened).good
    golden = int8.golden()
    scores, _ = opened.infer(golden.frames)
    assert np.abs(scores - golden.scores).max() > 1e-7  # it is not the float32 graph
    opened.close()
    (int8.path / CPU_MODEL).rename(int8.path / "away")
    try:
        with pytest.raises(Exception, match=r"model\.cpu\.onnx"):
            open_engine(engine, int8)
    finally:
        (int8.path / "away").rename(int8.path / CPU_MODEL)


def test_the_threshold_is_that_of_the_lowered_graph(int8: Bundle) -> None:
    with load(int8.path, engine="auto") as inspector:
        result = inspector.inspect(int8.golden().frames[0])
        assert result.precision == "int8"
        assert result.threshold == int8.manifest.threshold.value
    assert int8.manifest.threshold.value == pytest.approx(max(int8.manifest.threshold.scores), abs=1e-6)


@pytest.mark.slow
def test_a_float16_bundle(trained: Path, tmp_path: Path) -> None:
    bundle = export(trained, out=tmp_path / "half.edgead", precision=PrecisionOptions("fp16", budget=ANYTHING))
    types = {tensor.data_type for tensor in onnx.load(bundle.model).graph.initializer if len(tensor.dims) == 4}
    assert types == {onnx.TensorProto.FLOAT16}
    assert sorted(bundle.manifest.files) == ["golden.npz", "model.onnx"]
    for name in ("onnxruntime", "openvino"):
        engine = open_engine(name, bundle)
        assert check_golden(bundle, engine).good
        engine.close()


@pytest.mark.long
def test_int8_beside_float16(trained: Path, tmp_path: Path) -> None:
    bundle = export(trained, out=tmp_path / "mixed.edgead", precision=PrecisionOptions("int8-fp16", budget=ANYTHING))
    model = onnx.load(bundle.model)
    assert model.opset_import[0].version == 19
    assert {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4} == {onnx.TensorProto.INT8}
    assert set(bundle.manifest.gate.variants) == {"model.onnx in float16", "model.cpu.onnx"}


@pytest.mark.slow
def test_auto_takes_the_fastest_that_passes(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("tensorrt") is None:  # installed and without a driver it changes nothing
        monkeypatch.syspath_prepend(str(make_shim(tmp_path / "shim")))
    console = Listener()
    bundle = export(
        trained, out=tmp_path / "auto.edgead", console=console, precision=PrecisionOptions("auto", budget=ANYTHING)
    )
    speed = bundle.manifest.gate.milliseconds_here
    best = {name: min(times.values()) for name, times in speed.items()}
    assert set(best) == {"fp32", "fp16", "int8"}
    assert bundle.manifest.precision == _fastest(speed)
    assert best[bundle.manifest.precision] * FASTER_RATIO <= min(best.values())
    assert f"auto selects {bundle.manifest.precision}" in console.said
    assert not [line for line in console.said if "slower" in line or "tensorrt" in line]
    assert read_bundle(bundle.path).manifest == bundle.manifest


def test_a_lower_precision_must_be_faster_than_noise() -> None:
    assert _fastest({"fp32": {"a": 0.789, "b": 2}, "fp16": {"a": 0.852}, "int8": {"b": 0.787}}) == "fp32"
    assert _fastest({"fp32": {"a": 10}, "fp16": {"a": 6.1}, "int8": {"a": 6}}) == "fp16"
    assert _fastest({"fp32": {"a": 10}, "fp16": {"a": 11}, "int8": {"a": 6}}) == "int8"


@pytest.mark.long
def test_a_slower_precision_is_said(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgead.export.quantization import selection

    honest = selection.time_engines

    def slow(engines, frames, *others):  # type: ignore[no-untyped-def]
        return {key: value + 1e3 * (key[0] == "fp16") for key, value in honest(engines, frames, *others).items()}

    monkeypatch.setattr(selection, "time_engines", slow)
    console = Listener()
    export(trained, precision="fp16", out=tmp_path / "slow.edgead", console=console)
    assert "Warning: fp16 is slower than fp32 on this machine; --precision auto selects the fastest." in console.said


@pytest.mark.long
def test_labelled_images_in_data_are_judged(trained: Path, parts: Path, tmp_path: Path) -> None:
    bundle = export(trained, precision="fp16", data=parts, out=tmp_path / "labelled.edgead")
    assert bundle.manifest.gate.labelled_images == len(open_category(parts).test)
    for form in bundle.manifest.gate.variants.values():
        assert form.image_auroc_drop <= 0.005
        assert form.aupro_drop is not None


def test_options_are_checked(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='precision is "int4"; it must be one of fp32, fp16, int8, int8-fp16, auto'):
        export(trained, precision="int4", out=tmp_path / "x.edgead")
    with pytest.raises(ConfigError, match=r"budget\.flips is 2; it must be from 0 to 1"):
        Budget(flips=2)
    assert Calibration().samples == 128


class Constant:
    """An engine that gives the same for every frame: the middle of what is right."""

    name = "constant"

    def __init__(self, bundle: Bundle, form: int) -> None:
        scores, maps = bundle.golden().variants[form]
        self.score, self.map = (scores.max() + scores.min()) / 2, (maps.max(axis=0) + maps.min(axis=0)) / 2

    def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return np.full(len(frames), self.score, np.float32), np.repeat(self.map[None], len(frames), axis=0)

    def close(self) -> None:
        """There is nothing to close."""


@pytest.mark.parametrize("form", [0, 1])
def test_an_engine_that_always_says_the_same_does_not_pass(int8: Bundle, form: int) -> None:
    assert not check_golden(int8, Constant(int8, form)).good


def test_a_bundle_without_gate_is_still_read(bundle: Bundle, tmp_path: Path) -> None:
    """As written before there was one."""
    import shutil

    old = Path(shutil.copytree(bundle.path, tmp_path / "old.edgead"))
    values = json.loads((old / MANIFEST).read_text())
    for name in ("gate", "calibration"):
        del values[name]
    del values["parity"]["map_tolerance"]
    values["digest"] = manifest_digest(values)
    (old / MANIFEST).write_text(json.dumps(values))
    assert check_golden(read_bundle(old), open_engine("onnxruntime", read_bundle(old))).good


def run_cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


@pytest.mark.slow
def test_the_command_line(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "cli.edgead")
    options = ["--precision", "int8", "--max-flips", "1", "--max-auroc-drop", "1", "--calib-samples", "8"]
    code = run_cli(
        "export", "--checkpoint", str(trained), *options, "--calib-method", "percentile", "--out", out, "--json"
    )
    printed = capsys.readouterr()
    assert code == 0
    [entry] = json.loads(printed.out)["bundles"]
    assert entry["manifest"]["calibration"]["images"] == 8
    assert entry["manifest"]["calibration"]["method"] == "percentile"
    assert "settled verdicts" in printed.err
    value = entry["manifest"]["threshold"]["value"]
    assert re.search(rf"differ by at most \S+, and the threshold is {value:.4g} \(fp32: [\d.]+\)", printed.err)
    assert run_cli("inspect", out) == 0
    shown = capsys.readouterr().out
    assert "precision  int8" in shown
    assert "gate       passed with 0 of 51 layers in float32" in shown
    assert "calibrated percentile on 8 good images (training)" in shown


BLINDED = """
    <ir_version: 8, opset_import: ["": 17]>
    blinded (float[N,3,32,32] images) => (float[N,1,32,32] map)
    <float[3,1,1] far = {1.0, 1.0, 1000000.0}, float[1,3,1,1] weights = {1.0, 1.0, 0.0}> {
        apart = Mul(images, far)
        map = Conv(apart, weights)
    }"""
"""Its only layer reads the brightness beside a channel a million times as large: INT8 leaves nothing of it."""


def test_a_precision_that_the_gate_refuses_ends_with_3_and_says_what_to_do(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "blinded.onnx", tmp_path / "refused.edgead"
    onnx.save(onnx.parser.parse_model(BLINDED), model)
    chosen = ["--map", "map", "--threshold-data", str(parts), "--precision", "int8", "--out", str(out)]
    assert run_cli("import", str(model), *chosen) == 3
    said = capsys.readouterr()
    assert said.out == ""
    error = said.err[said.err.index("Error: ") :].splitlines()
    assert len(error) == 2
    assert error[0].startswith("Error: int8 fails the gate (")
    assert ", even with only node_5 lowered, the least sensitive of " in error[0]
    assert error[1] == (
        "  No bundle was written. Choose another precision (--precision fp32, fp16 or auto), or allow more: "
        "--max-flips, --max-auroc-drop."
    )
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["blinded.onnx"]
    assert run_cli("import", str(model), *chosen, "--max-auroc-drop", "1", "--max-flips", "1") == 0


SHIFTED = """
    <ir_version: 8, opset_import: ["": 17]>
    shifted (float[N,3,32,32] images) => (float[N,1,32,32] map)
    <float[1,3,1,1] weights = {0.3, 0.3, 0.3}, float[1,1,1,1] one = {1.0}, float[1] far = {10000.0}> {
        bright = Conv(images, weights)
        again = Conv(bright, one)
        up = Add(again, far)
        map = Sub(up, far)
    }"""
"""Float16 holds 10,000, but in steps of 8."""


def test_what_float16_breaks_is_handed_back_beside_int8_too(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "shifted.onnx", tmp_path / "b.edgead"
    onnx.save(onnx.parser.parse_model(SHIFTED), model)
    chosen = [
        "--map",
        "map",
        "--threshold-data",
        str(parts),
        "--out",
        str(out),
        "--max-flips",
        "0.1",
        "--max-auroc-drop",
        "0.1",
    ]
    assert run_cli("import", str(model), *chosen, "--precision", "int8-fp16") == 0
    gate = read_bundle(out).manifest.gate
    assert len(gate.kept_in_float32) < gate.layers
    kept = {node.op_type for node in onnx.load(out / "model.onnx").graph.node if node.name in gate.kept_in_float32}
    assert {"Add", "Sub"} <= kept
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(out / "model.onnx").graph.node)
    capsys.readouterr()
    assert run_cli("inspect", str(out)) == 0
    assert f"in fp32    {', '.join(gate.kept_in_float32)}" in capsys.readouterr().out


def test_where_there_is_nothing_to_lower_there_is_no_int8_bundle(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
        <ir_version: 8, opset_import: ["": 17]>
        brightest (float[N,3,32,32] images) => (float[N,1,32,32] map) {
            map = ReduceMax<axes=[1], keepdims=1>(images)
        }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "brightest.onnx")
    chosen = [
        "--map",
        "map",
        "--threshold-data",
        str(parts),
        "--precision",
        "int8",
        "--out",
        str(tmp_path / "b.edgead"),
    ]
    assert run_cli("import", str(tmp_path / "brightest.onnx"), *chosen) == 3
    assert "This graph has no layer that can be int8" in capsys.readouterr().err
    assert not (tmp_path / "b.edgead").exists()


def test_labelled_images_judge_an_imported_model_too(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "blinded.onnx", tmp_path / "b.edgead"
    onnx.save(onnx.parser.parse_model(BLINDED), model)
    chosen = ["--map", "map", "--threshold-data", str(parts / "train" / "good"), "--out", str(out)]
    wide = ["--precision", "int8", "--max-flips", "1", "--max-auroc-drop", "1", "--data"]
    assert run_cli("import", str(model), *chosen, *wide, str(parts)) == 0
    gate = read_bundle(out).manifest.gate
    assert gate.labelled_images == len(list((parts / "test").glob("*/*.png")))
    form = gate.variants["model.cpu.onnx"]
    assert None not in (form.image_auroc_drop, form.aupro_drop)
    assert run_cli("import", str(model), *chosen, *wide, str(parts / "train" / "good")) == 2
    assert "has no labelled test images" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["export", "import"])
def test_options_of_lower_precision_are_refused_where_they_mean_nothing(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / "m.onnx")] if verb == "import" else []
    assert run_cli(verb, *files, "--calib-data", str(tmp_path)) == 2
    assert "--calib-data has no effect at --precision fp32" in capsys.readouterr().err


def test_scores_of_both_forms_are_below_the_common_threshold(int8: Bundle) -> None:
    """The held-out images that are golden frames pass whichever form runs."""
    frames = int8.golden().frames[:2]
    for name in ("onnxruntime", "openvino"):
        engine = open_engine(name, int8)
        scores = np.concatenate([engine.infer(frame[None])[0] for frame in frames])
        assert (scores <= int8.manifest.threshold.value + 1e-5).all()
        engine.close()
