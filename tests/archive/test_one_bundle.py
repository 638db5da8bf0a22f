"""An archive is decided by one bundle, although each process loads it for itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from level_bundle import frame_of, make_level_bundle

from edgead.images import encode_png

REPLACED = """
import os, sys
from pathlib import Path
from edgead.archive import Scorer
from edgead.archive.score_archive import score_archive
from edgead.console import Console
from edgead.errors import DeviceError

bundle, other, images, out = map(Path, sys.argv[1:])

class Replacing(Console):
    def bar(self, *arguments):
        os.rename(bundle, bundle.with_name("old"))
        os.rename(other, bundle)
        return super().bar(*arguments)

try:
    score_archive(Scorer(bundle, engine="onnxruntime"), [images], out, console=Replacing())
except DeviceError as error:
    print(error)
"""


@pytest.mark.long
def test_a_bundle_that_is_replaced_meanwhile(tmp_path: Path) -> None:
    """The rows were of the new one, or of both; an old copy on one machine of a cluster did the same."""
    for package in ("ray", "pandas", "pyarrow"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    image, out = tmp_path / "images" / "a.png", tmp_path / "rows.parquet"
    image.parent.mkdir()
    image.write_bytes(encode_png(frame_of(200)))
    bundles = [make_level_bundle(tmp_path / f"{name}.edgead", offset).path for name, offset in (("a", 0), ("b", 100))]
    command = [sys.executable, "-c", REPLACED, *bundles, image.parent, out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{image} was decided by another bundle: {bundles[0]} was replaced" in done.stdout
    assert [each.name for each in tmp_path.iterdir() if "rows" in each.name] == []
