"""The bundle on disk: what is refused, and with which words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgead.bundle import FORMAT, Bundle, manifest_digest, read_bundle
from edgead.errors import BundleError
from edgead.runtime.engines import open_engine
from edgead.runtime.golden import check_golden


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.path, tmp_path / "copy.edgead"))


def change_manifest(path: Path, **values: Any) -> None:
    """Change fields (None removes one) and seal the manifest again."""
    manifest = json.loads((path / "manifest.json").read_text())
    manifest.update(values)
    manifest = {key: value for key, value in manifest.items() if value is not None}
    manifest["digest"] = manifest_digest(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_what_was_written_is_read(bundle: Bundle) -> None:
    again = read_bundle(bundle.path)
    assert json.dumps(again.manifest.__dict__) == json.dumps(bundle.manifest.__dict__)
    golden = again.golden()
    assert golden.frames.shape == (4, 64, 64, 3)
    assert golden.maps.shape == (4, 64, 64)
    assert set(again.manifest.files) == {path.name for path in bundle.path.iterdir()} - {"manifest.json"}


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
def test_a_flipped_bit_is_found(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        read_bundle(copy)


def test_a_changed_threshold_is_found(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["threshold"]["value"] += 0.5
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="was changed since it was written"):
        read_bundle(copy)


def test_a_missing_file_is_found(copy: Path) -> None:
    (copy / "golden.npz").unlink()
    with pytest.raises(BundleError, match=r"incomplete: golden\.npz is missing"):
        read_bundle(copy)


def test_a_newer_format_says_upgrade(copy: Path) -> None:
    change_manifest(copy, format=FORMAT + 1)
    with pytest.raises(BundleError, match=r"(?s)has format 2; this edgead reads up to 1.*pip install --upgrade"):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": None}, "it has no threshold"),
        ({"format": "one"}, "no format version"),
        ({"input": {"height": 64}}, "width"),
        ({"input": {"height": 64, "width": 64}}, "bit_depth"),
        ({"parity": {}}, "damaged"),
        ({"parity": {"score_error": 0, "map_error": 0}}, "tolerance"),
        ({"threshold": {"value": "high"}}, "damaged"),
        ({"files": {"model.onnx": "0"}}, "damaged"),
        ({"files": {}}, "does not list"),
        ({"files": {"../outside": "0"}}, "missing"),
        ({"files": ["model.onnx"]}, "damaged"),
        ({"mask_threshold": "x"}, "damaged"),
    ],
)
def test_a_damaged_manifest_is_refused(copy: Path, values: dict[str, Any], message: str) -> None:
    change_manifest(copy, **values)
    with pytest.raises(BundleError, match=message):
        read_bundle(copy)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1'])
def test_a_manifest_that_is_no_manifest(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="damaged"):
        read_bundle(copy)


def test_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        read_bundle(tmp_path / "absent")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        read_bundle(tmp_path)


def test_pickles_are_never_loaded(copy: Path) -> None:
    from edgead.files import sha256

    np.savez(copy / "golden.npz", frames=np.array([object()]), scores=np.zeros(1), maps=np.zeros(1))
    files = {"model.onnx": sha256(copy / "model.onnx"), "golden.npz": sha256(copy / "golden.npz")}
    change_manifest(copy, files=files)
    with pytest.raises(BundleError, match="pickle"):
        read_bundle(copy).golden()


def test_the_golden_frames_prove_the_bundle(bundle: Bundle) -> None:
    check = check_golden(bundle, open_engine("onnxruntime", bundle))
    assert check.good
    assert check.frames == 4


def test_the_golden_frames_find_another_graph(bundle: Bundle) -> None:
    class Biased:
        name = "biased"

        def __init__(self) -> None:
            self.engine = open_engine("onnxruntime", bundle)

        def infer(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            scores, maps = self.engine.infer(frames)
            return scores + 0.01, maps

        def close(self) -> None: ...

    check = check_golden(bundle, Biased())
    assert not check.good
    assert check.score_error == pytest.approx(0.01, abs=1e-3)
