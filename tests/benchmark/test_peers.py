"""The comparison with peers: figures of a process of its own, and a file that `edgead report` draws."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

import edgead
from edgead.bundle import Bundle
from edgead.datasets import open_category
from edgead.images import read_frame
from edgead.reports.build import report

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "peers" / "pareto.py"


@pytest.mark.slow
def test_a_bundle_is_scored_and_timed_in_a_process_of_its_own(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "peers.json"
    command = [sys.executable, str(SCRIPT), str(parts), "--bundle", str(bundle.path), "--rounds", "2", "--calls", "3"]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [row] = json.loads(out.read_text())["rows"]
    category = open_category(parts)
    with edgead.load(bundle.path, engine="onnxruntime") as inspector:
        scores = [inspector.inspect(read_frame(sample.path)).score for sample in category.test]
    labels = [sample.anomalous for sample in category.test]
    assert row["image_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p99"]
    assert row["calls"] == 6
    assert 0 <= row["aupro"] <= 1
    page = report([out], out=tmp_path / "page.html")
    assert bundle.path.stem in page.read_text(encoding="utf-8")
    assert (tmp_path / "pareto.svg").is_file()
