"""examples/tutorial.ipynb: it runs, and shows results as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import TINY

NOTEBOOK = Path(__file__).parents[1] / "examples" / "tutorial.ipynb"
SMALLER = {
    "train=150, good=40, bad=10": "train=12, good=4, bad=2",
    'preset="nano"': f'preset="nano", settings={list(TINY)}',
    "rounds=20": "rounds=1, pixel_size=32",
    "test/stain/005.png": "test/stain/001.png",
}
"""What a test has no time for ↦ what it does."""


def outputs(notebook: Any, kind: str) -> list[str]:
    """Return what the cells show of a MIME type; of ``"stdout"`` what they print."""
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    if kind == "stdout":
        return [output["text"] for output in shown if output["output_type"] == "stream" and output["name"] == kind]
    return [output["data"][kind] for output in shown if kind in output.get("data", {})]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the packages that run notebooks
def test_the_notebook_runs_and_shows_pictures(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="no nbformat (pip install 'edgead[dev]')")
    client = pytest.importorskip("nbclient", reason="no nbclient (pip install 'edgead[dev]')")
    pytest.importorskip("ipykernel", reason="no ipykernel (pip install 'edgead[dev]')")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert all(large in text for large in SMALLER)
    for cell in notebook.cells:
        for large, small in SMALLER.items():
            cell.source = cell.source.replace(large, small)
    client.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert len(outputs(notebook, "image/png")) == 3
    printed = "".join(outputs(notebook, "stdout"))
    assert "out of 1,000 good parts" in printed
    assert sum(line.startswith(("PASS ", "FAIL ")) for line in printed.splitlines()) == 12
    assert "defects found" in printed
    assert (tmp_path / "report" / "report.html").is_file()


def test_the_stored_notebook_shows_its_pictures() -> None:
    """Whoever reads it on the web page of the repository sees what it makes, and nothing of the machine it ran on."""
    nbformat = pytest.importorskip("nbformat", reason="no nbformat (pip install 'edgead[dev]')")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert len(outputs(notebook, "image/png")) == 3
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 600_000
    assert not any(word in text for word in ('"/', "/home/", "/root/", "/tmp/", "Traceback"))
