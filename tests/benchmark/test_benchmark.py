"""The harness: figures that can be recomputed, files that can be read, pages that need nothing else."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import edgead
from edgead.benchmark.accuracy import METRICS
from edgead.benchmark.benchmark import Report, benchmark, to_table
from edgead.benchmark.latency import measure_latency
from edgead.bundle import Bundle, manifest_digest
from edgead.console import Console
from edgead.datasets import open_category
from edgead.errors import ConfigError, DataError
from edgead.images import read_frame


@pytest.fixture(scope="module")
def measured(bundle: Bundle, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("report")
    return benchmark([bundle.path], parts, rounds=5, pixel_size=64, out=out, command=["edgead", "benchmark"])


def test_the_image_auroc_is_that_of_the_scores(measured: tuple[Report, Path], bundle: Bundle, parts: Path) -> None:
    [row] = measured[0].rows
    category = open_category(parts)
    with edgead.load(bundle.path) as inspector:
        results = [inspector.inspect(read_frame(sample.path)) for sample in category.test]
    labels = [sample.anomalous for sample in category.test]
    assert row["image_auroc"] == pytest.approx(roc_auc_score(labels, [result.score for result in results]))
    fails = np.array([result.verdict.value == "FAIL" for result in results])
    assert row["false_reject_rate"] == pytest.approx(fails[~np.array(labels)].mean())
    assert row["detection_rate"] == pytest.approx(fails[labels].mean())
    assert row["images"] == {"good": 4, "defective": 8, "with_mask": 8, "skipped": 0}


def test_every_metric_and_percentile_is_there(measured: tuple[Report, Path]) -> None:
    [row] = measured[0].rows
    assert all(0 <= row[name] <= 1 for name in METRICS)
    assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p90"] <= row["latency_ms"]["p99"]
    assert set(row["stages_ms"]) == {"fit", "infer", "post"}
    assert row["inspect_over_engine"] == pytest.approx(row["latency_ms"]["p50"] / row["engine_ms"]["p50"], abs=1e-3)
    assert row["rounds"] == 5
    assert row["mask_ms"]["p50"] > 0


def test_the_files_hold_the_same_figures(measured: tuple[Report, Path]) -> None:
    report, folder = measured
    results = json.loads((folder / "results.json").read_text())
    assert results == report.results
    assert results["machine"]["cores"] >= 1
    assert results["versions"]["edgead"] == edgead.__version__
    assert results["command"] == "edgead benchmark"
    [line] = csv.DictReader((folder / "results.csv").read_text().splitlines())
    assert float(line["image_auroc"]) == results["rows"][0]["image_auroc"]
    assert float(line["p50_ms"]) == results["rows"][0]["latency_ms"]["p50"]
    assert f"{100 * results['rows'][0]['image_auroc']:.1f}" in to_table(report.rows)


def test_the_page_needs_nothing_else(measured: tuple[Report, Path]) -> None:
    page = (measured[1] / "report.html").read_text()
    assert "<svg" in page
    assert page.count("data:image/jpeg;base64,") == 8  # four misses of each kind
    assert not any(word in page for word in ('src="http', 'href="http', "<script", "<link"))
    assert f"{100 * measured[0].rows[0]['image_auroc']:.1f}" in page


def test_categories_are_matched_and_averaged(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    bundles = []
    for name in ("bolt", "nut"):
        shutil.copytree(parts, tmp_path / "data" / name)
        copy = Path(shutil.copytree(bundle.path, tmp_path / f"{name}.edgead"))
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest.update(category=name, name=name)
        manifest["digest"] = manifest_digest(manifest)
        (copy / "manifest.json").write_text(json.dumps(manifest))
        bundles.append(copy)
    report, _ = benchmark(bundles, tmp_path / "data", rounds=1, pixel_size=64, out=tmp_path / "out")
    assert [row["category"] for row in report.rows] == ["bolt", "nut"]
    [average] = report.results["averages"]
    assert average["image_auroc"] == pytest.approx(np.mean([row["image_auroc"] for row in report.rows]))
    both = [*bundles, Path(shutil.copytree(bundles[0], tmp_path / "twin.edgead"))]
    with pytest.raises(ConfigError, match=r"results\.json exists already and was kept"):
        benchmark(both, tmp_path / "data", rounds=1, pixel_size=64, out=tmp_path / "out", command=["other"])
    for force in (True, False):  # the second time it is the report of the same command
        report, _ = benchmark(
            both, tmp_path / "data", rounds=1, pixel_size=64, out=tmp_path / "out", force=force, command=["edgead"]
        )
    assert not report.results["averages"]  # which of two on one category would count?
    with pytest.raises(DataError, match="was made for 'washer'; the data set has bolt, nut"):
        benchmark([bundle.path], tmp_path / "data", rounds=1, out=tmp_path / "other")


def test_a_promise_that_does_not_hold_is_told_everywhere(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle.path, tmp_path / "low.edgead"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["threshold"] |= {"value": -1.0, "normals": 99, "requested_bound": 0.01, "false_reject_bound": 0.01}
    manifest["digest"] = manifest_digest(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    said: list[str] = []
    console = Console()
    console.say = said.append  # type: ignore[method-assign]
    report, folder = benchmark([copy], parts, rounds=1, pixel_size=64, out=tmp_path / "out", console=console)
    [row] = report.rows
    assert row["false_reject_interval"] == [pytest.approx(0.025 ** (1 / 4)), 1.0]
    assert row["promise"]["average"] == 0.01
    warning = row["promise"]["warning"]
    assert "4 of 4 good test images are rejected" in warning
    [line] = csv.DictReader((folder / "results.csv").read_text().splitlines())
    assert line["warning"] == warning
    assert float(line["promised_limit"]) == row["promise"]["limit"]
    assert any(warning in text for text in said)
    assert warning in to_table(report.rows)
    assert "4 of 4 good test images" in (folder / "report.html").read_text()


def test_without_masks_there_are_no_pixel_metrics(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(parts, tmp_path / "washer"))
    shutil.rmtree(data / "ground_truth")
    report, folder = benchmark([bundle.path], data, rounds=1, pixel_size=64, out=tmp_path / "out")
    [row] = report.rows
    assert row["pixel_auroc"] is row["aupro"] is None
    assert row["image_auroc"] is not None
    assert "–" in (folder / "report.html").read_text()


def test_labelled_images_alone_are_enough(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    for folder in ("test", "ground_truth"):
        shutil.copytree(parts / folder, tmp_path / "washer" / folder)
    report, _ = benchmark([bundle.path], tmp_path / "washer", rounds=1, pixel_size=64, out=tmp_path / "out")
    assert report.rows[0]["images"]["defective"] == 8


def test_unlabelled_data_is_refused(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts / "train", tmp_path / "washer" / "train")
    with pytest.raises(DataError, match="no labelled test images"):
        benchmark([bundle.path], tmp_path / "washer", rounds=1)


def test_latencies_are_interleaved(bundle: Bundle, parts: Path) -> None:
    calls: list[str] = []
    inspectors = [edgead.load(bundle.path), edgead.load(bundle.path)]
    for name, inspector in zip("ab", inspectors):
        honest = inspector.inspect
        inspector.inspect = lambda frame, name=name, honest=honest: calls.append(name) or honest(frame)  # type: ignore
    frames = [read_frame(parts / "test" / "good" / "000.png")]
    measure_latency(inspectors, frames, 4, Console())
    assert calls == ["a", "b"] * 7  # three rounds of warm-up, four that count
