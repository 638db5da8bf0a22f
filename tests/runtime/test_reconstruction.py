"""The good image that a network sees in a frame: to look at, and at no cost to anything else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import edgead
from edgead.bundle import Bundle, manifest_digest, read_bundle
from edgead.errors import BundleError
from edgead.export.graph.to_onnx import reconstruction_record, write_onnx
from edgead.files import sha256
from edgead.folders import list_images
from edgead.images import fit_frame, read_frame
from edgead.runtime.predict import collect_images, predict
from edgead.runtime.reconstruction import Reconstructor, open_reconstructor
from edgead.train import checkpoint
from edgead.train.configuration import configure
from edgead.train.methods import get_method


def save(bundle: Path, images: Path, out: Path) -> list[str]:
    """The names of what `predict --save` writes for one image."""
    with edgead.load(bundle, engine="onnxruntime") as inspector:
        list(predict(inspector, collect_images([images]), out))
    return sorted(path.name for path in out.iterdir())


def test_it_is_what_the_trained_network_makes(bundle: Bundle, trained: Path, parts: Path) -> None:
    _, method = checkpoint.load_method(trained)
    fitted = fit_frame(read_frame(list_images(parts / "test" / "chip")[0]), bundle.manifest.size)
    with torch.no_grad():
        image = torch.from_numpy(fitted.transpose(2, 0, 1)[None].astype(np.float32) / 255)
        made = method.network.eval().reconstructive(image)[0]
    expected = np.clip(np.rint(made.numpy().transpose(1, 2, 0) * 255), 0, 255)
    found = Reconstructor(bundle)(fitted)
    assert found.shape == (*bundle.manifest.size, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert found.std() > 0


def test_the_graph_has_its_two_outputs_and_no_others(bundle: Bundle) -> None:
    """So no engine computes, binds or copies anything for it: there is nothing to ignore."""
    outputs = [value.name for value in onnx.load(bundle.model).graph.output]
    assert outputs == ["scores", "maps"]


def test_predict_saves_it_beside_the_overlay(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    image = list_images(parts / "test" / "chip")[0]
    names = save(bundle.path, image, tmp_path / "out")
    assert names == [f"{image.stem}.overlay.png", f"{image.stem}.reconstruction.png"]
    assert read_frame(tmp_path / "out" / names[1]).shape == (*bundle.manifest.size, 3)


def test_bundles_of_before_it_save_overlays_alone(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(bundle.path, tmp_path / "old.edgead"))
    manifest = json.loads((old / "manifest.json").read_text())
    del manifest["reconstruction"]
    manifest["digest"] = manifest_digest(manifest)
    (old / "manifest.json").write_text(json.dumps(manifest))
    assert open_reconstructor(read_bundle(old)) is None
    image = list_images(parts / "test" / "chip")[0]
    assert save(old, image, tmp_path / "out") == [f"{image.stem}.overlay.png"]


def test_a_tensor_that_is_not_there_is_an_error(bundle: Bundle, tmp_path: Path) -> None:
    other = Path(shutil.copytree(bundle.path, tmp_path / "other.edgead"))
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["reconstruction"]["tensor"] = "x" * 300  # lengths of two bytes, too
    manifest["digest"] = manifest_digest(manifest)
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="has no tensor 'xxx"):
        Reconstructor(read_bundle(other))


@pytest.mark.parametrize(("weight", "depth"), [("0.05", "false"), ("0.05", "true"), ("0", "false")])
def test_transfusions_last_image(weight: str, depth: str, tmp_path: Path, bundle: Bundle) -> None:
    kind = get_method("transfusion")
    settings = ["size=32", "multipliers=1,1", f"reconstruction_weight={weight}", f"depth={depth}", "reverse_steps=2"]
    if depth == "true":
        settings.append("width=64")
    torch.manual_seed(0)
    method = kind(configure(kind, "nano", settings))
    shown = method.reconstruction()
    assert (shown is None) == (weight == "0")
    if shown is None:
        assert reconstruction_record(method) is None
        return
    folder = Path(shutil.copytree(bundle.path, tmp_path / "t.edgead"))
    channels = method.config.channels
    write_onnx(method.export_model(), (32, 32), folder / "model.onnx", method.sensitive, channels, shown.module)
    rng = np.random.default_rng(0)
    frame = rng.integers(1, 256, (32, 32, channels), dtype=np.uint8)
    manifest = read_bundle(bundle.path).manifest
    facts, files = reconstruction_record(method), {"model.onnx": sha256(folder / "model.onnx")}
    found = Reconstructor(
        Bundle(folder, type(manifest)(**{**vars(manifest), "reconstruction": facts, "files": files}))
    )(frame)
    with torch.no_grad():
        from edgead.train.methods.transfusion.preprocessing import preprocess

        planes = preprocess(torch.from_numpy(frame[None]))
        image = torch.cat([planes[:, :3].flip(1), planes[:, 3:]], dim=1)
        left, _ = method.reference_model().reverse(image)  # type: ignore[operator]
    expected = np.clip(np.rint((left[0, :3].flip(0).numpy().transpose(1, 2, 0) + 1) * 127.5), 0, 255)
    assert np.abs(found.astype(int) - expected).max() <= 1
