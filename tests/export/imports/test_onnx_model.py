"""Models that come as ONNX: what is read from them, what their bundles give, what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from listener import Listener
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image
from third_party_models import (
    HEADS,
    MEAN,
    ODD,
    PIXEL_SPREAD,
    PIXEL_THRESHOLD,
    SIDE,
    SPREAD,
    STD,
    THRESHOLD,
    anomalib_model,
    build,
    bytes_model,
    odd_model,
    plain_model,
    quantised_model,
    save,
    stubborn_model,
    with_location,
    with_operator,
)

from edgead.bundle import Bundle, read_bundle
from edgead.bundle.gate_record import describe_sensitivity
from edgead.bundle.provenance import HeadRecord
from edgead.decision import Verdict
from edgead.errors import BundleError, ConfigError, DataError, GateError, ModelError
from edgead.export import import_model
from edgead.export.graph.opset import OPSET, downgrade, opset_of
from edgead.export.options import Budget, Calibration, OnnxOptions, PrecisionOptions
from edgead.folders import list_images
from edgead.geometry.interpolation import interpolation_matrix
from edgead.images import cv2, fit_frame, read_frame
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.runtime.golden import check_golden
from edgead.runtime.inspector import load
from edgead.runtime.rules import choose_threshold
from edgead.runtime.sources.source import Captured

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]


def noise(size: tuple[int, int], count: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def run_bundle(bundle: Bundle, frames: NDArray[np.uint8]) -> Outputs:
    return OnnxRuntimeEngine(bundle.model).infer(frames)


def tensors(model: onnx.ModelProto, image: NDArray[Any], *names: str) -> list[NDArray[Any]]:
    """Tensors inside a model, by onnx's own slow interpreter."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    del opened.graph.output[:]
    opened.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return ReferenceEvaluator(opened).run(None, {opened.graph.input[0].name: image})


def run_model(model: onnx.ModelProto, name: str, image: NDArray[np.float32]) -> list[NDArray[Any]]:
    """A model's outputs, by ONNX Runtime: onnx's interpreter has no old quantisation."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {name: image}))


def planar(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (frames[..., ::-1].transpose(0, 3, 1, 2) / 255).astype(np.float32)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("heads", [name for name in HEADS if name != "plain"])
def test_anomalibs_raw_values_are_taken(heads: str, dynamic: bool, parts: Path, tmp_path: Path) -> None:
    model = anomalib_model(heads, dynamic)
    path = save(model, tmp_path / "model.onnx", external=True)
    bundle = import_model(path, source="anomalib", threshold_data=parts, out=tmp_path / "b.edgead")
    assert bundle.manifest.size == (SIDE, SIDE)
    frames = noise((SIDE, SIDE))
    scores, maps = run_bundle(bundle, frames)
    raw_scores, raw_maps = tensors(model, planar(frames), "raw_score", "raw_map")
    assert np.abs(scores - raw_scores[:, 0]).max() < 1e-5
    assert np.abs(maps - raw_maps[:, 0]).max() < 1e-5
    assert scores.max() > THRESHOLD + 1  # where the model's own score is cut off
    assert bundle.manifest.origin.anomalib["pred_score"] == HeadRecord("raw_score", 1.5, 2.0)


def test_the_threshold_comes_from_good_images_or_from_the_model(parts: Path, tmp_path: Path) -> None:
    path = save(anomalib_model(), tmp_path / "model.onnx")
    bundle = import_model(path, source="anomalib", threshold_data=parts, out=tmp_path / "b.edgead")
    good = np.stack([fit_frame(read_frame(image), (SIDE, SIDE)) for image in list_images(parts / "test" / "good")])
    assert bundle.manifest.data.held_out_part == "test"  # the model may have been trained on train/good
    assert bundle.manifest.threshold.value == pytest.approx(run_bundle(bundle, good)[0].max(), abs=1e-6)
    assert bundle.manifest.threshold.normals == len(good)
    own = import_model(path, source="anomalib", out=tmp_path / "own.edgead").manifest
    assert (own.threshold.value, own.mask_threshold) == (THRESHOLD, PIXEL_THRESHOLD)
    assert (own.threshold.normals, own.threshold.false_reject_bound) == (0, 1.0)
    with pytest.raises(BundleError, match="has no scores of held-out good parts"):
        choose_threshold(own, "fpr:0.1")


def test_anomalibs_sensitivity_moves_its_threshold(tmp_path: Path) -> None:
    model = anomalib_model(sensitivity=(0.7, 0.25))
    bundle = import_model(save(model, tmp_path / "m.onnx"), source="anomalib", out=tmp_path / "b.edgead")
    limits = THRESHOLD - 0.2 * SPREAD, PIXEL_THRESHOLD + 0.25 * PIXEL_SPREAD
    assert (bundle.manifest.threshold.value, bundle.manifest.mask_threshold) == pytest.approx(limits, rel=1e-6)
    assert bundle.manifest.origin.anomalib["pred_score"] == HeadRecord("raw_score", THRESHOLD, SPREAD)
    contrast = np.linspace(0, 1, 24)[:, None, None, None]
    frames = (120 + contrast * (noise((SIDE, SIDE), 1) - 120.0)).astype(np.uint8)
    [labels] = tensors(model, planar(frames), "pred_label")
    assert 0 < labels.sum() < len(labels)
    assert np.array_equal(run_bundle(bundle, frames)[0] > bundle.manifest.threshold.value, labels[:, 0])


def test_a_model_that_sets_no_label_holds_no_threshold(tmp_path: Path) -> None:
    model = anomalib_model()  # as anomalib exports it with enable_thresholding=False: normalised around the middle
    for name in ("pred_label", "pred_mask"):
        model.graph.node.remove(*(node for node in model.graph.node if node.output[0] == name))
        model.graph.output.remove(*(value for value in model.graph.output if value.name == name))
    with pytest.raises(ConfigError, match="The model holds no threshold"):
        import_model(save(model, tmp_path / "m.onnx"), source="anomalib", out=tmp_path / "b.edgead")


def test_the_bundle_says_where_it_came_from(tmp_path: Path) -> None:
    path = save(anomalib_model(), tmp_path / "model.onnx", external=True)
    import_model(path, source="anomalib", out=tmp_path / "b.edgead")
    bundle = read_bundle(tmp_path / "b.edgead")
    origin = bundle.manifest.origin
    assert list(origin.files) == ["model.onnx", "model.onnx.data"]
    assert origin.versions["maker"] == "pytorch 2.13.0"
    assert origin.opset == {"model": 18, "bundle": OPSET}
    assert str(tmp_path) not in (bundle.path / "manifest.json").read_text()
    assert {file.name for file in bundle.path.iterdir()} == {"manifest.json", "model.onnx", "golden.npz"}
    model = onnx.load(bundle.model)
    assert opset_of(model) == OPSET
    assert not {"Greater", "Where", "Clip"} & {node.op_type for node in model.graph.node}  # labels and masks are gone
    assert check_golden(bundle, OnnxRuntimeEngine(bundle.model)).good


def test_a_model_that_does_not_normalise_is_taken_as_it_is(tmp_path: Path) -> None:
    model = anomalib_model("plain")
    bundle = import_model(save(model, tmp_path / "m.onnx"), source="anomalib", out=tmp_path / "b.edgead")
    assert bundle.manifest.threshold.value == 0.5  # what its label compares with
    assert "no normalisation was found" in bundle.manifest.origin.notes[0]


def test_the_threshold_of_the_map_is_not_that_of_the_score(tmp_path: Path) -> None:
    model = anomalib_model("plain")
    [label] = [node for node in model.graph.node if node.output[0] == "pred_label"]
    model.graph.node.remove(label)
    model.graph.output.remove(model.graph.output[1])
    with pytest.raises(ConfigError, match="The model holds no threshold"):
        import_model(save(model, tmp_path / "m.onnx"), source="anomalib", out=tmp_path / "b.edgead")


def test_a_model_that_crops_gives_maps_of_the_whole_frame(tmp_path: Path) -> None:
    model = anomalib_model(crop=4)
    bundle = import_model(save(model, tmp_path / "m.onnx"), source="anomalib", out=tmp_path / "b.edgead")
    assert bundle.manifest.config["crop"] == (SIDE - 8, SIDE - 8)
    frames = noise((SIDE, SIDE))
    _, maps = run_bundle(bundle, frames)
    [inner] = tensors(model, planar(frames), "raw_map")
    assert np.abs(maps[:, 4:-4, 4:-4] - inner[:, 0]).max() < 1e-5
    assert np.allclose(maps[:, :4].max(axis=(1, 2)), inner.min(axis=(1, 2, 3)), atol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("rgb", [False, True])
def test_frames_reach_any_model_as_it_wants_them(channels_last: bool, rgb: bool, parts: Path, tmp_path: Path) -> None:
    model = plain_model(channels_last=channels_last)
    options = OnnxOptions(score="score", map="heat", rgb=rgb, scale=2.0, mean=MEAN, std=STD)
    path = save(model, tmp_path / "m.onnx")
    bundle = import_model(path, **vars(options), threshold_data=parts, out=tmp_path / "b.edgead")
    frames = noise((24, 32))
    scores, maps = run_bundle(bundle, frames)
    images = (frames[..., ::-1] if rgb else frames).astype(np.float32) / 2
    images = (images - np.float32(MEAN)) / np.float32(STD)
    score, heat = tensors(model, images if channels_last else images.transpose(0, 3, 1, 2), "score", "heat")
    assert np.abs(scores - score).max() < 1e-3 * np.abs(score).max()
    expected = np.stack([cv2().resize(each[0], (32, 24), interpolation=cv2().INTER_LINEAR) for each in heat])
    assert np.abs(maps - expected).max() < 1e-4 * expected.max()


def test_a_half_precision_model_is_converted_at_the_door(parts: Path, tmp_path: Path) -> None:
    options = OnnxOptions(score="score", map="heat")
    half, whole = (
        import_model(
            save(plain_model(kind=kind), tmp_path / f"{kind}.onnx"),
            **vars(options),
            threshold_data=parts,
            out=tmp_path / f"{kind}.edgead",
        )
        for kind in ("float16", "float")
    )
    assert (half.manifest.precision, whole.manifest.precision) == ("fp16", "fp32")
    scores, maps = run_bundle(half, noise((24, 32)))
    assert scores.dtype == maps.dtype == np.float32
    assert np.allclose(scores, run_bundle(whole, noise((24, 32)))[0], rtol=2e-3)


@pytest.mark.parametrize(("kind", "mean"), [("uint8", 0), ("uint16", 0), ("int64", 0), ("int8", 128)])
def test_a_model_that_takes_whole_numbers_gets_whole_pixels(kind: str, mean: int, parts: Path, tmp_path: Path) -> None:
    path = save(bytes_model(kind), tmp_path / "m.onnx")
    own = (float(mean),) * 3 if mean else None
    bundle = import_model(path, threshold_data=parts, rgb=False, mean=own, out=tmp_path / "b.edgead")
    frames = noise((24, 32))
    assert np.array_equal(run_bundle(bundle, frames)[1], frames.max(axis=3).astype(np.float32) - mean)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("int64", {"scale": 255}), ("uint8", {"scale": 255}), ("int8", {}), ("int32", {"std": (1, 2, 1)})],
)
def test_pixels_that_whole_numbers_cannot_hold_are_refused(
    kind: str, options: dict[str, Any], parts: Path, tmp_path: Path
) -> None:
    path = save(bytes_model(kind), tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match=rf"whole numbers from -?\d+ to \d+ \({kind}\). Pixels would become"):
        import_model(path, threshold_data=parts, **options, out=tmp_path / "b.edgead")


@pytest.mark.parametrize("kind", ["double", "int64", "int32", "uint8", "float16", "bool"])
def test_outputs_of_any_number_become_float32(kind: str, parts: Path, tmp_path: Path) -> None:
    code = onnx.TensorProto.DataType.Value(kind.upper())
    model = build(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        main (uint8[N, 24, 32, 3] image) => ({kind}[N, 24, 32] heat) {{
            values = Cast <to = 1> (image)
            means = ReduceMean <axes = [3], keepdims = 0> (values)
            whole = Floor(means)
            heat = Cast <to = {code}> (whole)
        }}""",
        {},
    )
    path = save(model, tmp_path / "m.onnx")
    bundle = import_model(path, threshold_data=parts, rgb=False, out=tmp_path / "b.edgead")
    frames = noise((24, 32))
    wanted = np.floor(frames.mean(axis=3, dtype=np.float32))
    scores, maps = run_bundle(bundle, frames)
    assert scores.dtype == maps.dtype == np.float32
    np.testing.assert_allclose(maps, wanted > 0 if kind == "bool" else wanted, atol=0.01)


def test_text_and_outputs_that_are_not_finite_are_refused(parts: Path, tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    main (uint8[N, 24, 32, 3] image) => (KIND[N, 24, 32] heat) {
        values = Cast <to = 1> (image)
        means = ReduceMean <axes = [3], keepdims = 0> (values)
        LAST
    }"""
    cases = {
        "'heat' is a tensor.string.": ("string", "heat = Cast <to = 8> (means)"),
        "not finite": ("float", "heat = Div(means, zero)"),
    }
    for words, (kind, last) in cases.items():
        model = build(text.replace("KIND", kind).replace("LAST", last), {"zero": np.float32(0)})
        path = save(model, tmp_path / f"{kind}.onnx")
        with pytest.raises((ModelError, GateError), match=words):
            import_model(path, threshold_data=parts, rgb=False, out=tmp_path / "b.edgead")
    assert not (tmp_path / "b.edgead").exists()


@pytest.mark.parametrize(
    ("last", "reported"),
    [
        ("score = Mul(highest, zero)", True),  # one score for all frames
        ("score = Clip(highest, zero, limit)", True),  # cut off: some good parts have the highest score there is
        ("score = Sub(zero, highest)", True),  # how good a part is
        ("score = Identity(highest)", False),
    ],
)
def test_a_model_that_lets_every_part_pass_is_reported(last: str, reported: bool, parts: Path, tmp_path: Path) -> None:
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    main (uint8[N, 24, 32, 3] image) => (float[N, 24, 32] heat, float[N] score) {{
        values = Cast <to = 1> (image)
        heat = ReduceMean <axes = [3], keepdims = 0> (values)
        highest = ReduceMax <axes = [1, 2], keepdims = 0> (heat)
        {last}
    }}"""
    console = Listener()
    path = save(build(text, {"zero": np.float32(0), "limit": np.float32(215)}), tmp_path / "m.onnx")
    import_model(path, score="score", threshold_data=parts, out=tmp_path / "b.edgead", console=console)
    assert any("may let every part pass" in line for line in console.said) == reported, console.said


def test_a_coarse_map_that_noise_drives_to_its_limit_covers_the_whole_image(parts: Path, tmp_path: Path) -> None:
    """All noise gives it one value. That looked as if it saw the middle only, where its map was then put."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    main (float[N, 3, 32, 32] image) => (float[N, 1, 8, 8] heat) {
        coarse = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (image)
        light = ReduceMean <axes = [1], keepdims = 1> (coarse)
        lighter = Mul(light, four)
        heat = Clip(lighter, zero, one)
    }"""
    model = build(text, {"four": np.float32(4), "zero": np.float32(0), "one": np.float32(1)})
    bundle = import_model(save(model, tmp_path / "m.onnx"), threshold_data=parts, out=tmp_path / "b.edgead")
    frame = np.zeros((1, 32, 32, 3), np.uint8)
    frame[:, :8, :8] = 255
    _, [found] = run_bundle(bundle, frame)
    assert found[:6, :6].min() == 1
    assert found[12:].max() == 0


@pytest.mark.parametrize(("pool", "count"), [("max", 1), ("top:0.25", 12), ("top:1", 48)])
def test_a_missing_score_is_computed_from_the_map(pool: str, count: int, parts: Path, tmp_path: Path) -> None:
    model = plain_model()
    path = save(model, tmp_path / "m.onnx")
    options = OnnxOptions(map="heat", pool=pool)
    bundle = import_model(path, **vars(options), threshold_data=parts, out=tmp_path / "b.edgead")
    frames = noise((24, 32))
    scores, _ = run_bundle(bundle, frames)
    [heat] = tensors(model, planar(frames), "heat")
    assert np.allclose(scores, np.sort(heat.reshape(3, -1), axis=1)[:, -count:].mean(axis=1), rtol=1e-4)


def test_a_missing_map_must_be_admitted(parts: Path, tmp_path: Path) -> None:
    model = plain_model()
    del model.graph.output[2]
    path = save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="--map none imports a model with a score only"):
        import_model(path, score="score", threshold_data=parts, out=tmp_path / "b.edgead")
    options = OnnxOptions(score="score", map="none")
    bundle = import_model(path, **vars(options), threshold_data=parts, out=tmp_path / "b.edgead")
    scores, maps = run_bundle(bundle, noise((24, 32)))
    assert np.array_equal(maps, np.broadcast_to(scores[:, None, None], (3, 24, 32)))


def test_a_quantised_model_is_accepted(parts: Path, tmp_path: Path) -> None:
    model = quantised_model()
    bundle = import_model(save(model, tmp_path / "m.onnx"), threshold_data=parts, out=tmp_path / "b.edgead")
    kinds = [node.op_type for node in onnx.load(bundle.model).graph.node]
    assert kinds.count("QuantizeLinear") == 1
    assert kinds.count("DequantizeLinear") == 2
    frames = noise((24, 32))
    [heat] = run_model(model, "image", planar(frames))
    assert np.abs(run_bundle(bundle, frames)[0] - heat.max(axis=(1, 2, 3))).max() < 1e-4
    assert bundle.manifest.parity.map_error < 1e-6
    assert bundle.manifest.precision == "int8"


def test_a_lower_precision_passes_the_gate(parts: Path, tmp_path: Path) -> None:
    path = save(plain_model(), tmp_path / "m.onnx")
    options, calibration = OnnxOptions(map="heat"), Calibration(samples=8)
    anything = PrecisionOptions("int8", calibration, Budget(auroc_drop=1, flips=1))
    bundle = import_model(path, **vars(options), threshold_data=parts, precision=anything, out=tmp_path / "b.edgead")
    assert sorted(bundle.manifest.files) == ["golden.npz", "model.cpu.onnx", "model.onnx"]
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(bundle.model).graph.node}
    assert (bundle.manifest.precision, bundle.manifest.calibration.source) == ("int8", "threshold")
    with load(bundle.path, engine="onnxruntime") as inspector:
        image = read_frame(list_images(parts / "train" / "good")[0])
        assert inspector.inspect(image).verdict is Verdict.PASS
    lowered = PrecisionOptions("int8", calibration)
    quantised = save(quantised_model(), tmp_path / "q.onnx")
    with pytest.raises(ConfigError, match="The model is already in int8"):
        import_model(quantised, threshold_data=parts, precision=lowered, out=tmp_path / "q.edgead")
    with pytest.raises(ConfigError, match="it must be one of fp32"):
        PrecisionOptions("int4")


@pytest.mark.parametrize("precision", ["fp16", "int8-fp16"])
@pytest.mark.parametrize("kind", list(ODD))
def test_what_float16_is_not_simply_made_of(kind: str, precision: str, parts: Path, tmp_path: Path) -> None:
    path = save(odd_model(kind), tmp_path / "m.onnx")
    options = PrecisionOptions(precision, Calibration(samples=8), Budget(auroc_drop=1, flips=1))
    if kind == "control flow":
        with pytest.raises(GateError, match=r"\(If\) contains a subgraph"):
            import_model(path, threshold_data=parts, precision=options, out=tmp_path / "b.edgead")
        assert not (tmp_path / "b.edgead").exists()
        return
    bundle = import_model(path, threshold_data=parts, precision=options, out=tmp_path / "b.edgead")
    assert bundle.manifest.precision == precision
    for file in bundle.path.glob("*.onnx"):
        onnx.checker.check_model(file, full_check=True)
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    model = onnx.load(bundle.model)
    assert any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
    if (kind, precision) == ("minus infinity in float16", "fp16"):  # which stays in float32, and JSON cannot hold
        assert bundle.manifest.gate.kept_in_float32
        forms = [form for each in bundle.manifest.gate.attempts for form in each.variants.values()]
        assert any(form.map_error is None for form in forms)
        assert "not finite" in describe_sensitivity(read_bundle(bundle.path).manifest.gate.sensitivity)


@pytest.mark.parametrize("stubborn", [True, False])
def test_batches_are_tried(stubborn: bool, parts: Path, tmp_path: Path) -> None:
    """What a file says about its batch is not believed, either way."""
    model = stubborn_model() if stubborn else plain_model(batch=1)
    options = OnnxOptions(map="heat")
    path = save(model, tmp_path / "m.onnx")
    bundle = import_model(path, **vars(options), threshold_data=parts, out=tmp_path / "b.edgead")
    assert (bundle.manifest.input.batch or 0) == int(stubborn)
    frames = [read_frame(image) for image in list_images(parts / "test" / "good")]
    with load(bundle.path, engine="onnxruntime") as inspector:
        prepared = [inspector.prepare(Captured(frame, "", "", 0, 0.0)) for frame in frames]
        together = [result.score for result in inspector.infer(prepared)]
        singly = [inspector.inspect(frame).score for frame in frames]
    assert len(set(singly)) == len(frames) > 1
    assert together == pytest.approx(singly, rel=1e-5)


def test_maps_are_enlarged_as_opencv_does_it() -> None:
    rng = np.random.default_rng(0)
    for (height, width), (h, w) in (((24, 32), (6, 8)), ((31, 17), (5, 9)), ((10, 10), (13, 1))):
        small = rng.normal(size=(h, w)).astype(np.float32)
        expected = cv2().resize(small, (width, height), interpolation=cv2().INTER_LINEAR)
        assert (
            np.abs(interpolation_matrix(height, h) @ small @ interpolation_matrix(width, w).T - expected).max() < 1e-5
        )


def test_a_newer_operator_set_is_lowered_where_nothing_new_is_used() -> None:
    model = anomalib_model("where", dynamic=True)
    lowered, blocking = downgrade(model)
    assert (opset_of(model), opset_of(lowered), blocking) == (18, OPSET, [])
    image = np.random.default_rng(0).random((1, 3, 40, 50), dtype=np.float32)
    for before, after in zip(ReferenceEvaluator(model).run(None, {"input": image}), run_model(lowered, "input", image)):
        assert np.allclose(before, after, atol=1e-5)


def test_an_operator_that_came_later_keeps_its_operator_set(parts: Path, tmp_path: Path) -> None:
    model = with_operator(plain_model(opset=20), "Gelu")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("extra"))
    lowered, blocking = downgrade(model)
    assert (opset_of(lowered), blocking) == (20, ["Gelu"])
    options = OnnxOptions(score="score", map="heat")
    path = save(plain_model(opset=20), tmp_path / "m.onnx")  # without it
    bundle = import_model(path, **vars(options), threshold_data=parts, out=tmp_path / "b.edgead")
    assert opset_of(onnx.load(bundle.model)) == OPSET


def test_old_operator_sets_are_raised(parts: Path, tmp_path: Path) -> None:
    path = save(plain_model(opset=11), tmp_path / "m.onnx")
    options = OnnxOptions(score="score", map="heat")
    bundle = import_model(path, **vars(options), threshold_data=parts, out=tmp_path / "b.edgead")
    assert opset_of(onnx.load(bundle.model)) == 13


def test_a_model_of_the_first_file_format_is_imported(parts: Path, tmp_path: Path) -> None:
    """Its weights are inputs, too, as those of the adapter had to be: the import blamed the model."""
    model = plain_model(opset=8)
    model.ir_version = 3
    for weight in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    path = save(model, tmp_path / "m.onnx")
    bundle = import_model(path, score="score", map="heat", threshold_data=parts, out=tmp_path / "b.edgead")
    with load(bundle.path, engine="onnxruntime") as inspector:
        assert inspector.inspect(np.zeros((24, 32, 3), np.uint8)).score == pytest.approx(0, abs=1e-6)


def test_a_map_that_lies_across_the_image_is_refused(parts: Path, tmp_path: Path) -> None:
    """It was stretched over the image: a defect on the left was marked at the top."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    main (float[N, 3, 24, 32] image) => (float[N, 1, 32, 24] heat) {
        grey = ReduceMean <axes = [1], keepdims = 1> (image)
        heat = Transpose <perm = [0, 1, 3, 2]> (grey)
    }"""
    path = save(build(text, {}), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="32×24 values for an image of 24×32: its sides are exchanged"):
        import_model(path, threshold_data=parts, out=tmp_path / "b.edgead")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """A folder of files that are no models, or models that are not to be trusted."""
    folder = tmp_path / "models"
    whole = save(plain_model(), folder / "whole.onnx").read_bytes()
    write(folder / "cut.onnx", whole[: len(whole) // 2])
    write(folder / "empty.onnx", b"")
    write(folder / "text.onnx", b"this is no model at all, but it is long enough to look at")
    write(folder / "torch.onnx", b"PK\x03\x04 and so on")
    write(folder / "pickle.onnx", b"\x80\x02}q\x00.")
    write(tmp_path / "secret.bin", bytes(192))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    write(folder / "short.bin", bytes(16))
    for name, location in (
        ("absent", "absent.bin"),
        ("above", "../secret.bin"),
        ("absolute", str(tmp_path / "secret.bin")),
        ("linked", "link.bin"),
        ("windows", "..\\secret.bin"),
        ("null", "weights\0.bin"),
        ("long", "w" * 300),
    ):
        write(folder / f"{name}.onnx", with_location(plain_model(), location).SerializeToString())
    short = with_location(plain_model(), "short.bin")
    kernel = short.graph.initializer[0]
    kernel.external_data.append(onnx.StringStringEntryProto(key="length", value="192"))
    write(folder / "short.onnx", short.SerializeToString())
    write(folder / "custom.onnx", with_operator(plain_model(), "Special", "com.acme").SerializeToString())
    write(folder / "unknown.onnx", with_operator(plain_model(), "Gelu").SerializeToString())
    body = onnx.helper.make_graph([], "body", [], [])
    endless = plain_model()
    endless.graph.node.append(onnx.helper.make_node("Loop", ["", ""], ["extra"], body=body))
    write(folder / "endless.onnx", endless.SerializeToString())
    future = plain_model()
    future.opset_import[0].version = 99
    write(folder / "future.onnx", future.SerializeToString())
    save(plain_model(size=("H", "W")), folder / "dynamic.onnx")
    save(plain_model(batch=4), folder / "four.onnx")
    infrared = plain_model()
    infrared.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    write(folder / "infrared.onnx", infrared.SerializeToString())
    two = plain_model()
    two.graph.input.append(onnx.helper.make_tensor_value_info("other", 1, [1]))
    write(folder / "two.onnx", two.SerializeToString())
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut", "is not an ONNX file, or it is truncated"),
        ("empty", "is not an ONNX file, or it is truncated"),
        ("text", "is not an ONNX file, or it is truncated"),
        ("torch", "is a PyTorch or pickle file, not ONNX"),
        ("pickle", "is a PyTorch or pickle file, not ONNX"),
        ("none", "does not exist"),
        ("absent", "keeps its weights in absent.bin, which does not exist"),
        ("above", "Weights outside the model's folder are refused"),
        ("absolute", "Weights outside the model's folder are refused"),
        ("linked", "Weights outside the model's folder are refused"),
        ("null", "Weights outside the model's folder are refused"),
        ("long", "Weights outside the model's folder are refused"),
        ("windows", "Weights outside the model's folder are refused"),
        ("short", "is truncated: 'kernel' of short.onnx is beyond its end"),
        ("custom", "not part of ONNX: com.acme.Special"),
        ("unknown", "not in operator set 17: Gelu"),
        ("future", "uses operator set 99"),
        ("endless", r"contains loops \(Loop\), which may never end"),
        ("dynamic", "--size HEIGHTxWIDTH"),
        ("four", "takes batches of 4 images"),
        ("infrared", "has the shape N×4×24×32; colour images have three channels, grey images one"),
        ("two", "The model has 2 inputs: image, other. Select the image with --input"),
    ],
)
def test_what_cannot_be_taken_over_is_said(spoilt: Path, name: str, words: str, parts: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        import_model(
            spoilt / f"{name}.onnx", score="score", map="heat", threshold_data=parts, out=tmp_path / "b.edgead"
        )
    assert len(str(caught.value).splitlines()) <= 3
    assert not (tmp_path / "b.edgead").exists()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"input": "picture"}, ModelError, "Unknown input 'picture'. Available: image"),
        ({"map": "head"}, ModelError, "Unknown tensor 'head'. Outputs of the model: logits N×2, score N, heat N×1×6×8"),
        ({"map": "logits", "score": "score"}, ModelError, "a map has one value per pixel"),
        ({"score": "logits", "map": "heat"}, ModelError, "'logits' has the shape 1×2 for one image"),
        ({"score": "logits", "map": "none"}, ModelError, "If it has a value per class, export the defect's alone"),
        ({"map": "none"}, ModelError, "select the score with --score"),
        ({"map": "heat", "size": (48, 48)}, ConfigError, "The model's input is 24×32"),
        ({"map": "heat", "pool": "mean"}, ConfigError, "--pool takes max or top:SHARE"),
        ({"map": "heat", "score": "score", "pool": "top:0.5"}, ConfigError, "so --pool has no effect"),
        ({"map": "heat", "source": ""}, ConfigError, "Unknown source ''"),
    ],
)
def test_options_that_do_not_fit(
    options: dict[str, Any], error: type[Exception], words: str, parts: Path, tmp_path: Path
) -> None:
    path = save(plain_model(), tmp_path / "m.onnx")
    with pytest.raises(error, match=words):
        import_model(path, **options, threshold_data=parts, out=tmp_path / "b.edgead")


def test_the_threshold_needs_images(tmp_path: Path) -> None:
    path = save(plain_model(), tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match="--threshold-data DIR"):
        import_model(path, map="heat", out=tmp_path / "b.edgead")
    (tmp_path / "bad").mkdir()
    write(tmp_path / "bad" / "1.png", b"not an image")
    with pytest.raises(DataError, match="No readable image"):
        import_model(path, map="heat", threshold_data=tmp_path / "bad", out=tmp_path / "b.edgead")


def test_other_models_are_not_anomalibs(tmp_path: Path) -> None:
    path = save(plain_model(), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"Not an anomalib 2\.x export: its outputs are logits, score, heat"):
        import_model(path, source="anomalib", out=tmp_path / "b.edgead")


def test_the_score_of_an_anomalib_model_is_not_pooled(tmp_path: Path) -> None:
    path = save(anomalib_model(), tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match="the tensor 'raw_score', so --pool has no effect"):
        import_model(path, source="anomalib", pool="top:0.01", out=tmp_path / "b.edgead")


def test_a_size_that_no_bundle_may_have_is_refused(parts: Path, tmp_path: Path) -> None:
    """The bundle was written, and could not be read."""
    path = save(plain_model(size=("H", "W")), tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match=r"size\[0\] is 17000; it must be from 8 to 16384"):
        import_model(
            path, score="score", map="heat", size=(17_000, 64), threshold_data=parts, out=tmp_path / "m.edgead"
        )
    assert not (tmp_path / "m.edgead").exists()


def test_a_dynamic_model_takes_the_size_it_is_told(parts: Path, tmp_path: Path) -> None:
    path = save(plain_model(size=("H", "W")), tmp_path / "m.onnx")
    options = OnnxOptions(score="score", map="heat", size=(40, 48))
    bundle = import_model(path, **vars(options), threshold_data=parts, out=tmp_path / "b.edgead")
    assert bundle.manifest.size == (40, 48)
    assert run_bundle(bundle, noise((40, 48)))[1].shape == (3, 40, 48)


def test_weights_are_inside_the_bundle(parts: Path, tmp_path: Path) -> None:
    model = plain_model()
    path = save(model, tmp_path / "m.onnx", external=True)
    options = OnnxOptions(score="score", map="heat")
    bundle = import_model(path, **vars(options), threshold_data=parts, out=tmp_path / "b.edgead")
    [kernel] = [value for value in onnx.load(bundle.model).graph.initializer if value.name == "model/kernel"]
    [before] = [value for value in model.graph.initializer if value.name == "kernel"]
    assert np.array_equal(numpy_helper.to_array(kernel), numpy_helper.to_array(before))


def test_real_anomalib_models(tmp_path: Path) -> None:
    """EDGEAD_ANOMALIB_MODELS: a folder of NAME/**/model.onnx, each NAME with reference.npz (docs/import.md)."""
    folder = os.environ.get("EDGEAD_ANOMALIB_MODELS")
    if not folder:
        pytest.skip("EDGEAD_ANOMALIB_MODELS names no folder of real exports")
    models = sorted(Path(folder).glob("*/**/model.onnx"))
    assert models
    for path in models:
        name = path.relative_to(folder).parts[0]
        reference = np.load(Path(folder, name, "reference.npz"))
        bundle = import_model(path, source="anomalib", out=tmp_path / f"{name}.edgead")
        outputs = [run_bundle(bundle, frame[None]) for frame in reference["frames"]]
        scores, maps = (np.concatenate(values) for values in zip(*outputs))
        largest = max(1, np.abs(reference["raw_maps"]).max())
        assert np.abs(scores - reference["raw_scores"]).max() < 1e-4 * largest, path
        assert np.abs(maps - reference["raw_maps"]).max() < 1e-4 * largest, path


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_grey_model_gets_grey_values_as_pillow_makes_them(channels_last: bool, parts: Path, tmp_path: Path) -> None:
    shape, perm = ("N, 24, 32, 1", "Transpose <perm = [0, 3, 1, 2]>") if channels_last else ("N, 1, 24, 32", "Identity")
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    main (float[{shape}] image) => (float[N, 1, 6, 8] heat) {{
        planes = {perm}(image)
        features = Conv <strides = [4, 4], kernel_shape = [4, 4]> (planes, kernel)
        heat = Abs(features)
    }}"""
    model = build(text, {"kernel": np.random.default_rng(1).normal(0, 0.2, (1, 1, 4, 4)).astype(np.float32)})
    path = save(model, tmp_path / "grey.onnx")
    options = OnnxOptions(mean=(0.45,), std=(0.2,))
    bundle = import_model(path, threshold_data=parts, **vars(options), out=tmp_path / "b.edgead")
    frames = noise((24, 32))
    grey = np.stack([np.asarray(Image.fromarray(frame[..., ::-1].copy()).convert("L")) for frame in frames])
    values = ((grey.astype(np.float32) / 255 - 0.45) / 0.2)[:, None]
    [heat] = tensors(model, values.transpose(0, 2, 3, 1) if channels_last else values, "heat")
    scores, _ = run_bundle(bundle, frames)
    assert np.abs(scores - heat.max(axis=(1, 2, 3))).max() < 1e-5
    assert bundle.manifest.config["channels"] == 1
    assert check_golden(bundle, OnnxRuntimeEngine(bundle.model)).good


@pytest.mark.parametrize(
    ("options", "words"),
    [(OnnxOptions(rgb=True), "no colour order"), (OnnxOptions(mean=(0.1, 0.2, 0.3)), r"per channel \(here 1\)")],
)
def test_what_a_grey_model_has_no_use_for_is_refused(options: OnnxOptions, words: str, tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    main (float[N, 1, 24, 32] image) => (float[N, 1, 24, 32] heat) {
        heat = Abs(image)
    }"""
    with pytest.raises(ConfigError, match=words):
        import_model(save(build(text, {}), tmp_path / "grey.onnx"), **vars(options), threshold_data=tmp_path)
