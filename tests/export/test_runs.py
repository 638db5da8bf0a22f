"""From a run to a bundle: parity, threshold, golden frames, refusals."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from listener import Listener
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from torch import nn

from edgead.bundle import Bundle, Golden, read_bundle
from edgead.decision import conformal_threshold
from edgead.errors import CheckpointError, ConfigError, DataError, EdgeadError, GateError
from edgead.export import PrecisionOptions, builder, export
from edgead.export.inference import run_reference
from edgead.export.options import Budget
from edgead.export.parity import check_parity
from edgead.export.runs import find_run, find_runs_of_all
from edgead.files import sha256, write_json
from edgead.images import fit_frame, read_frame
from edgead.review.version import write_version
from edgead.runtime.inspector import load
from edgead.train import checkpoint, run_config, train
from edgead.train.methods.draem.method import Draem


def test_the_manifest_tells_how_the_bundle_came_about(bundle: Bundle, trained: Path) -> None:
    manifest, run = bundle.manifest, run_config.load_run_config(trained)
    assert (manifest.method, manifest.preset, manifest.category) == ("draem", "nano", "washer")
    assert manifest.size == (64, 64)
    assert manifest.data.fingerprint == run.fingerprint
    assert len(manifest.data.held_out_fingerprint) == 64
    assert manifest.training.steps == 12
    assert manifest.training.images == len(run.normals)
    assert manifest.parity.frames == 4
    assert manifest.parity.score_error <= manifest.parity.tolerance <= 1e-4
    assert manifest.parity.map_error <= manifest.parity.map_tolerance <= 1e-4
    text = (bundle.path / "manifest.json").read_text()
    assert str(Path.home()) not in text
    assert run.data not in text


def test_the_threshold_is_that_of_the_held_out_images(bundle: Bundle, trained: Path) -> None:
    """Recomputed from the run: the trained network on the held-out files, read as the runtime reads them."""
    run, method = checkpoint.load_method(trained)
    frames = np.stack([fit_frame(read_frame(Path(run.data, name)), (64, 64)) for name in run.held_out])
    reference = run_reference(method.reference_model(), frames)
    threshold = conformal_threshold(reference.scores, 0.01)
    assert bundle.manifest.threshold.value == pytest.approx(threshold.value, abs=1e-4)
    assert bundle.manifest.threshold.false_reject_bound == pytest.approx(1 / (len(run.held_out) + 1))
    assert bundle.manifest.mask_threshold == pytest.approx(float(reference.maps.max()), abs=1e-4)


def test_no_held_out_image_fails_with_so_few(bundle: Bundle, trained: Path) -> None:
    """On the engine that gave the threshold, which is the largest of their scores: another may round it up."""
    run = run_config.load_run_config(trained)
    with load(bundle.path, engine="onnxruntime") as inspector:
        verdicts = [inspector.inspect(read_frame(Path(run.data, name))).verdict.value for name in run.held_out]
    assert set(verdicts) == {"PASS"}


def test_golden_frames_are_good_and_anomalous(bundle: Bundle, trained: Path) -> None:
    golden = bundle.golden()
    run, method = checkpoint.load_method(trained)
    held_out = [fit_frame(read_frame(Path(run.data, name)), (64, 64)) for name in run.held_out]
    assert all(any(np.array_equal(frame, other) for other in held_out) for frame in golden.frames[:2])
    assert not any(np.array_equal(golden.frames[2], other) for other in held_out)
    again = run_reference(method.reference_model(), golden.frames)
    assert np.array_equal(again.scores, golden.scores)


def test_batch_norms_are_folded(bundle: Bundle) -> None:
    model = onnx.load(bundle.model)
    assert not any(node.op_type in ("BatchNormalization", "Softmax") for node in model.graph.node)


def test_a_graph_that_is_not_the_network_is_refused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Draem.export_model

    def wrong(self: Draem) -> nn.Module:
        module = honest(self)
        with torch.no_grad():
            list(module.parameters())[-1].add_(0.05)
        return module

    monkeypatch.setattr(Draem, "export_model", wrong)
    with pytest.raises(GateError, match="does not reproduce the model"):
        export(trained, out=tmp_path / "wrong.edgead")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [2e-4, np.nan, np.inf])
def test_the_tolerance_holds_for_scores_and_maps(bundle: Bundle, error: float) -> None:
    golden = bundle.golden()
    check_parity(golden, golden.scores, golden.maps)
    refusal = "scores differ by .* maps by"
    with pytest.raises(GateError, match=refusal):
        check_parity(golden, golden.scores + np.float32(error), golden.maps)
    maps = golden.maps.copy()
    maps[0, 3, 3] += error
    with pytest.raises(GateError, match=refusal):
        check_parity(golden, golden.scores, maps)


def test_small_outputs_are_held_to_their_spread(bundle: Bundle) -> None:
    golden, tiny = bundle.golden(), np.float32(1e-7)
    scores, maps = (
        np.linspace(1, 2, each.size, dtype=np.float32).reshape(each.shape) * tiny
        for each in (golden.scores, golden.maps)
    )
    small = Golden(golden.frames, scores, maps)
    check_parity(small, scores * np.float32(1.01), maps)
    with pytest.raises(GateError, match="scores differ by"):
        check_parity(small, np.full_like(scores, 1.5 * tiny), maps)
    with pytest.raises(GateError, match="maps by"):
        check_parity(small, scores, np.full_like(maps, 1.5 * tiny))


def test_moved_data(trained: Path, parts: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(parts, tmp_path / "moved"))
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    values = json.loads((run / run_config.CONFIG).read_text())
    values["data"] = str(tmp_path / "gone")
    (run / run_config.CONFIG).write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"(?s)held-out images of this run are missing.*--data"):
        export(run, out=tmp_path / "out.edgead")
    assert read_bundle(export(run, data=moved, out=tmp_path / "out.edgead").path)
    values["category"] = "moved"  # its folder may stand among others
    (run / run_config.CONFIG).write_text(json.dumps(values))
    assert read_bundle(export(run, data=tmp_path, out=tmp_path / "out.edgead").path)
    for path in (moved / "train" / "good").iterdir():
        path.write_bytes(next((moved / "test" / "chip").iterdir()).read_bytes())
    with pytest.raises(DataError, match="differ from those that this run was started with"):
        export(run, data=moved, out=tmp_path / "other.edgead")


def test_a_bundle_is_replaced_and_nothing_else(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.edgead"
    first = export(trained, out=out)
    second = export(trained, out=out)
    assert first.manifest.files == second.manifest.files  # the same run gives the same bytes
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dear.png").write_bytes(b"x")
    with pytest.raises(DataError, match="is not a bundle"):
        export(trained, out=tmp_path / "photos")
    assert (tmp_path / "photos" / "dear.png").exists()
    (out / "dear.png").write_bytes(b"x")
    with pytest.raises(DataError, match="holds other files"):
        export(trained, out=out)
    (out / "dear.png").unlink()
    (tmp_path / "link.edgead").symlink_to(out)
    export(trained, out=tmp_path / "link.edgead")
    assert (tmp_path / "link.edgead").is_symlink()
    names = ["link.edgead", "link.report", "out.edgead", "out.report", "photos"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.long
def test_settings_that_are_open_at_export(trained: Path, parts: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"fixed when the run was started\. Settings of draem that may change at export: none\."
    ):
        export(trained, out=tmp_path / "out.edgead", settings=["steps=1"])
    quick = ("size=32", "multipliers=1,1", "steps=1", "batch_size=2", "reverse_steps=1")
    [run] = train("transfusion", parts, preset="nano", settings=quick, out=tmp_path / "run")
    before = (run / run_config.CONFIG).read_bytes()
    anything = PrecisionOptions(budget=Budget(1, 1))
    for settings, steps in (((), 1), (("reverse_steps=3",), 3)):
        bundle = export(run, out=tmp_path / "out.edgead", settings=settings, precision=anything, force=True)
        assert read_bundle(bundle.path).manifest.config["reverse_steps"] == steps
        thresholds = [node for node in onnx.load(bundle.model).graph.node if node.op_type == "Greater"]
        assert len(thresholds) == steps
    assert (run / run_config.CONFIG).read_bytes() == before
    with pytest.raises(
        GateError, match=r"(?s)^With these --set values the graph does not decide as .* allowed .*or allow more with"
    ):
        export(run, out=tmp_path / "none.edgead", settings=["reconstruction_weight=1"])
    assert not (tmp_path / "none.edgead").exists()
    with pytest.raises(ConfigError, match="must be from 1 to 18"):
        export(run, out=tmp_path / "out.edgead", settings=["reverse_steps=19"])
    with pytest.raises(
        ConfigError, match=r"width was fixed .* of transfusion that may change at export: reverse_steps, "
    ):
        export(run, out=tmp_path / "out.edgead", settings=["width=64"])


def test_the_newest_finished_run_is_found(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"(?s)No finished run of draem.*edgead train --method draem"):
        find_run("draem", root=tmp_path)
    for name, created, category in (
        ("a", "2026-01-02", "nut"),
        ("b", "2026-01-03", "nut"),
        ("c", "2026-01-01", "bolt"),
    ):
        folder = Path(shutil.copytree(trained, tmp_path / name))
        values = json.loads((folder / run_config.CONFIG).read_text())
        values.update(created=created, category=category)
        (folder / run_config.CONFIG).write_text(json.dumps(values))
    (tmp_path / "unfinished").mkdir()
    shutil.copy(tmp_path / "b" / run_config.CONFIG, tmp_path / "unfinished")
    listener = Listener()
    assert find_run("draem", root=tmp_path, console=listener).name == "b"
    assert listener.said == []
    values = json.loads((tmp_path / "unfinished" / run_config.CONFIG).read_text())
    write_json(tmp_path / "unfinished" / run_config.CONFIG, {**values, "created": "2026-01-04"})
    assert find_run("draem", root=tmp_path, console=listener).name == "b"
    assert re.search(r"unfinished is newer, and not finished\. .*b is exported", listener.said[0])
    assert find_run("draem", "bolt", root=tmp_path).name == "c"
    assert [run.name for run in find_runs_of_all("draem", tmp_path)] == ["c", "b"]
    with pytest.raises(CheckpointError, match="is not finished"):
        export(tmp_path / "unfinished", out=tmp_path / "x.edgead")


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_damaged_weights_are_refused(trained: Path, tmp_path: Path, damage: str) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    weights = run / checkpoint.WEIGHTS
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        values = json.loads((run / run_config.CONFIG).read_text())
        values["config"]["discriminative_width"] = 6
        (run / run_config.CONFIG).write_text(json.dumps(values))
    said = "is damaged, or belongs to another run" if damage == "cut" else "does not hold the weights"
    with pytest.raises(CheckpointError, match=said):
        export(run, out=tmp_path / "x.edgead")


def test_weights_of_another_run_are_refused(trained: Path, tmp_path: Path) -> None:
    """Of the same network, so that nothing else tells them apart. A run of before the hash was kept is exported."""
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    weights = run / checkpoint.WEIGHTS
    assert json.loads((run / run_config.CONFIG).read_text())["weights_sha256"] == sha256(weights)
    tensors = {name: value * 1.01 for name, value in load_file(weights).items() if value.is_floating_point()}
    save_file({**load_file(weights), **tensors}, weights)
    with pytest.raises(CheckpointError, match="its SHA-256 differs from that in config"):
        export(run, out=tmp_path / "x.edgead")
    values = json.loads((run / run_config.CONFIG).read_text())
    del values["weights_sha256"]
    (run / run_config.CONFIG).write_text(json.dumps(values))
    assert checkpoint.load_method(run)


@pytest.mark.parametrize("name", ["draem", "depth"])
def test_run_configurations_of_format_1_are_read_and_lose_nothing(name: str, tmp_path: Path) -> None:
    file = Path(__file__).parents[1] / "format_1" / "runs" / f"{name}.json"
    (tmp_path / "config.json").write_bytes(file.read_bytes())
    run = run_config.load_run_config(tmp_path)
    run_config.save_run_config(tmp_path, run)
    before, after = (json.loads(path.read_text()) for path in (file, tmp_path / "config.json"))
    assert {name: after[name] for name in before} == before


def test_a_wrong_value_in_a_run_is_refused_with_its_place(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    good, odd = json.loads((run / run_config.CONFIG).read_text()), []
    for name in good:
        for wrong in (None, "x", -1, 10**30, True, [], {"a": 1}, "\ud800", float("nan")):
            (run / run_config.CONFIG).write_text(json.dumps({**good, name: wrong}))
            try:
                checkpoint.load_method(run)
            except EdgeadError as error:
                odd += [(name, wrong, error)] if len(str(error).splitlines()) > 3 else []
    assert not odd
    (run / run_config.CONFIG).write_text(json.dumps({**good, "bit_depth": "x"}))
    with pytest.raises(CheckpointError, match=r'config\.json is damaged: bit_depth is "x"; it must be a whole number'):
        run_config.load_run_config(run)


@pytest.mark.long
def test_another_bundle_is_kept(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names say the precision; what is made in another way gets another name, or is refused."""
    monkeypatch.chdir(tmp_path)
    loose = Budget(1, 1)
    first = export(trained)
    again = export(trained)
    assert first.path == again.path == Path(f"runs/export/{trained.name}.edgead")
    half = export(trained, precision=PrecisionOptions("fp16", budget=loose))
    assert half.path == Path(f"runs/export/{trained.name}-fp16.edgead")
    strict = export(trained, false_reject=0.2)
    assert strict.path == Path(f"runs/export/{trained.name}-2.edgead")
    assert strict.manifest.name == f"{trained.name}-2"
    assert export(trained, false_reject=0.2).path == strict.path
    assert read_bundle(first.path).manifest.to_dict() == again.manifest.to_dict()
    with pytest.raises(DataError, match=r"(?s)holds another bundle \(fp16, draem on 'washer'.*--force"):
        export(trained, out=half.path)
    assert read_bundle(half.path).manifest.to_dict() == half.manifest.to_dict()
    assert export(trained, out=half.path, force=True).manifest.precision == "fp32"


def test_a_version_by_review_is_not_exported_over(bundle: Bundle, trained: Path, tmp_path: Path) -> None:
    """A new export of the same run took its place without --force, with the threshold that people had replaced."""
    version = write_version(bundle, tmp_path / "b.edgead", 150.0, marks=tmp_path, marked={})
    with pytest.raises(DataError, match="holds another bundle"):
        export(trained, out=tmp_path / "b.edgead")
    assert read_bundle(tmp_path / "b.edgead").manifest.digest == version.digest


def test_a_bundle_that_came_during_the_export_is_kept(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, draft = tmp_path / "b.edgead", builder._draft

    def draft_beside(*given: Any) -> Any:
        monkeypatch.setattr(builder, "_draft", draft)
        export(trained, out=out, false_reject=0.3)
        return draft(*given)

    monkeypatch.setattr(builder, "_draft", draft_beside)
    with pytest.raises(DataError, match="holds another bundle"):
        export(trained, out=out)
    assert read_bundle(out).manifest.threshold.requested_bound == 0.3


def test_the_graph_is_ordinary_onnx(bundle: Bundle) -> None:
    model = onnx.load(bundle.model)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    assert sum(numpy_helper.to_array(tensor).size for tensor in model.graph.initializer) > 10_000
    assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx"}
