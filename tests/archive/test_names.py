"""Names of files are any bytes: one that is no text costs an archive no row."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from level_bundle import frame_of, make_level_bundle

from edgead.archive import Scorer
from edgead.cli import cli
from edgead.images import encode_png

pandas = pytest.importorskip("pandas", reason="pandas is not installed")
arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """An image and a pipe whose names are no UTF-8, and one with a line break."""
    folder = tmp_path / "images"
    folder.mkdir()
    odd, pipe = (Path(os.fsdecode(bytes(folder) + name)) for name in (b"/caf\xe9.png", b"/p\xfcpe.png"))
    try:
        odd.write_bytes(encode_png(frame_of(200)))
        os.mkfifo(pipe)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (folder / "a\nb.png").write_bytes(encode_png(frame_of(50)))
    return [folder / "a\nb.png", odd, pipe]


def test_a_table_of_any_names_can_be_written(images: list[Path], tmp_path: Path) -> None:
    bundle = make_level_bundle(tmp_path / "level.edgead")
    names = pandas.Series([str(path) for path in images], dtype=object)
    rows = Scorer(bundle.path, engine="onnxruntime")(pandas.DataFrame({"path": names}))
    assert rows["verdict"].tolist() == ["PASS", "FAIL", "UNKNOWN"]
    written = arrow.Table.from_pylist(rows.to_dict("records")).column("path").to_pylist()
    assert [Path(name).name for name in written] == ["a\nb.png", "caf\\xe9.png", "p\\xfcpe.png"]


@pytest.mark.long
def test_an_archive_with_any_names_is_scored(images: list[Path], tmp_path: Path) -> None:
    """One such name ended the scoring of everything else in an internal error."""
    pytest.importorskip("ray", reason="Ray is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    bundle, out = make_level_bundle(tmp_path / "level.edgead"), tmp_path / "rows.parquet"
    command = ["predict", bundle.path, images[0].parent, "--ray", "local", "--out", out, "--engine", "onnxruntime"]
    done = subprocess.run([sys.executable, "-m", "edgead", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = parquet.read_table(out).to_pylist()
    found = [(Path(row["path"]).name, row["verdict"]) for row in rows]
    assert found == [("a\nb.png", "PASS"), ("caf\\xe9.png", "FAIL"), ("p\\xfcpe.png", "UNKNOWN")]
    assert "p\\xfcpe.png: not a regular file" in rows[2]["reason"]


def test_an_archive_is_written_as_parquet_only(images: list[Path], tmp_path: Path) -> None:
    """A file named .csv had Parquet in it."""
    bundle, out = make_level_bundle(tmp_path / "level.edgead"), tmp_path / "rows.csv"
    command = ["predict", str(bundle.path), str(images[0].parent), "--ray", "local", "--out", str(out)]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 2, done.output
    assert "rows.parquet" in done.output
    assert not out.exists()
