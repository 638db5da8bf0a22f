"""`edgead.export.import_model`: light to import, one call for ONNX and checkpoints, and how its bundles are named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from third_party_models import plain_model, save

from edgead.errors import ConfigError
from edgead.export import Budget, Calibration, PrecisionOptions, import_model

BAN = """
import sys
class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxruntime", "cv2", "PIL"):
            raise ImportError(name)
sys.meta_path.insert(0, Ban())
from edgead.export import PrecisionOptions, export, import_model
from edgead.errors import MissingDependencyError
for call in (lambda: import_model("m.onnx", precision="int8"), lambda: export("run")):
    try:
        call()
    except MissingDependencyError as error:
        print(error)
"""


def test_importing_the_package_needs_neither_torch_nor_onnx(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", BAN], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "pip install 'edgead[import]'" in done.stdout
    assert "pip install 'edgead[train]'" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "draem", "source": "onnx"}, "Leave out the options for ONNX files"),
        ({"method": "draem", "map": "heat"}, "Leave out the options for ONNX files"),
        ({"settings": ["size=64"]}, "Set its method"),
        ({"source": "keras"}, "Unknown source 'keras'"),
        ({"precision": "int4"}, "it must be one of fp32"),
        ({"std": (0.0, 1.0, 1.0)}, "it must be above 0"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        import_model("m.onnx", **options)
    with pytest.raises(ConfigError, match="One ONNX file at a time"):
        import_model(["a.onnx", "b.onnx"])


def test_auto_names_the_bundle_by_the_precision_that_was_selected(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = save(plain_model(), tmp_path / "m.onnx")
    auto = PrecisionOptions("auto", Calibration(8), Budget(1, 1))
    first, again = (import_model(model, map="heat", threshold_data=parts, precision=auto) for _ in range(2))
    selected = first.manifest.precision
    assert first.path == Path("runs/import", "m.edgead" if selected == "fp32" else f"m-{selected}.edgead")
    assert first.manifest.name == first.path.stem
    if again.manifest.precision == selected:  # speed decides, which may change
        assert again.path == first.path
    assert len(list(Path("runs/import").glob("*.edgead"))) == len({first.path, again.path})
