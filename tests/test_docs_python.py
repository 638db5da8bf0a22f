"""docs/python.md: its programs run, and its names are what it says."""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
PROGRAMS = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SMALLER = {
    '"steps=2000"': '"steps=2", "size=64", "reconstructive_width=4", "discriminative_width=4", "batch_size=2"',
    "rounds=20": "rounds=1, pixel_size=32",
}
"""What a test has no time for ↦ what it does."""


@pytest.mark.long
def test_the_programs_run(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnx import parser, save_model

    assert len(PROGRAMS) == PAGE.count("```python") == 6
    shutil.copytree(parts, tmp_path / "photos")
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        main (float[N, 3, 16, 16] image) => (float[N, 1, 16, 16] heat) <float[1, 3, 1, 1] w = {0.2, 0.3, 0.5}>
        { heat = Conv (image, w) }""")
    save_model(model, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    text = "\n".join(program for _, program in PROGRAMS)
    assert all(large in text for large in SMALLER)
    for title, program in PROGRAMS:
        assert len(program.splitlines()) <= 20, title
        for large, small in SMALLER.items():
            program = program.replace(large, small)
        exec(compile(program, f"docs/python.md: {title}", "exec"), {"__name__": "program"})
    printed = capsys.readouterr().out
    assert "finished: runs/bottle" in printed
    assert "12 = 12 + dropped" in printed
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 12


def test_the_names_are_there() -> None:
    rows = re.findall(r"^\| `edgead\.([\w.]+)` \| (\w+)(?: → `([^`]+)`)?", PAGE, re.MULTILINE)
    assert len(rows) == PAGE.count("\n| `edgead.") == 29
    for path, kind, returned in rows:
        module, _, name = f"edgead.{path}".rpartition(".")
        found = getattr(importlib.import_module(module), name)
        assert inspect.isclass(found) == (kind != "function"), path
        if returned:
            assert inspect.signature(found).return_annotation == returned, path
