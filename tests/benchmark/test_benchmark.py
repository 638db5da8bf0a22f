"""The harness: figures that can be recomputed, files that can be read, pages that need nothing else."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from aligned_parts import aligning, part_frame
from level_bundle import make_level_bundle
from listener import Listener
from sklearn.metrics import roc_auc_score

import edgead
from edgead.benchmark import Report, benchmark, comparison, rows, to_table
from edgead.benchmark.accuracy import measure_accuracy
from edgead.benchmark.figures import Stability
from edgead.benchmark.latency import measure_latency
from edgead.benchmark.report import ImageCounts
from edgead.bundle import Bundle, manifest_digest
from edgead.console import Console
from edgead.datasets import open_category
from edgead.datasets.frames import fingerprint_of
from edgead.errors import ConfigError, DataError
from edgead.images import encode_png, read_frame
from edgead.runtime.inspector import Inspector

QUICK: dict[str, Any] = {"rounds": 1, "pixel_size": 64, "engine": "onnxruntime", "quick": True}
"""For tests of what does not depend on the engine, the floor or the start."""


@pytest.fixture(scope="module")
def measured(bundle: Bundle, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    out = tmp_path_factory.mktemp("report")
    return benchmark([bundle.path], parts, rounds=5, pixel_size=64, out=out, command=["edgead", "benchmark"])


def test_the_image_auroc_is_that_of_the_scores(measured: Report, bundle: Bundle, parts: Path) -> None:
    [row] = measured.rows
    category = open_category(parts)
    with edgead.load(bundle.path) as inspector:
        results = [inspector.inspect(read_frame(sample.path)) for sample in category.test]
    labels = [sample.anomalous for sample in category.test]
    assert row.metrics.image_auroc == pytest.approx(roc_auc_score(labels, [result.score for result in results]))
    fails = np.array([result.verdict.value == "FAIL" for result in results])
    assert row.decisions.false_reject_rate == pytest.approx(fails[~np.array(labels)].mean())
    assert row.decisions.detection_rate == pytest.approx(fails[labels].mean())
    assert row.images == ImageCounts(good=4, defective=8, with_mask=8, skipped=0)


@pytest.mark.parametrize("of", ["score", "map"])
def test_an_image_without_a_finite_score_is_named(bundle: Bundle, parts: Path, of: str) -> None:
    with edgead.load(bundle.path, engine="onnxruntime") as inspector:
        engine, second = inspector.engine, itertools.count()

        class Breaks:
            name, closed = engine.name, False

            def infer(self, frames: np.ndarray) -> Any:
                scores, maps = engine.infer(frames)
                if next(second) == 1:
                    (scores if of == "score" else maps)[:] = np.nan
                return scores, maps

        broken = open_category(parts).test[1].path
        with pytest.raises(DataError, match=rf"^{re.escape(str(broken))}: .*{of} is not finite"):
            measure_accuracy(Inspector(inspector.bundle, Breaks()), open_category(parts), 64, Console())


def test_every_metric_and_percentile_is_there(measured: Report) -> None:
    [row] = measured.rows
    latency, stages = row.latency, row.latency.stages_ms
    assert all(value is not None and 0 <= value <= 1 for value in row.metrics.values())
    assert 0 < latency.latency_ms.p50 <= latency.latency_ms.p90 <= latency.latency_ms.p99
    assert min(stages.fit.p50, stages.infer.p50, stages.post.p50, latency.mask_ms.p50) > 0
    assert latency.inspect_over_engine == pytest.approx(latency.latency_ms.p50 / latency.engine_ms.p50, abs=1e-3)
    assert latency.rounds == 5


def test_the_files_hold_the_same_figures(measured: Report) -> None:
    folder = measured.folder
    results = json.loads((folder / "results.json").read_text())
    assert results == json.loads(json.dumps(measured.to_dict()))
    assert results["machine"]["cores"] >= 1
    assert results["versions"]["edgead"] == edgead.__version__
    assert results["command"] == "edgead benchmark"
    [line] = csv.DictReader((folder / "results.csv").read_text().splitlines())
    assert float(line["image_auroc"]) == results["rows"][0]["image_auroc"]
    assert float(line["p50_ms"]) == results["rows"][0]["latency_ms"]["p50"]
    assert f"{100 * results['rows'][0]['image_auroc']:.1f}" in to_table(measured.rows)


def test_the_page_needs_nothing_else(measured: Report) -> None:
    page = measured.page.read_text()
    assert "<svg" in page
    assert page.count("data:image/jpeg;base64,") == 8  # four misses of each kind
    assert not any(word in page for word in ('src="http', 'href="http', "<script src", "<link"))
    assert f"{100 * measured.rows[0].metrics.image_auroc:.1f}" in page


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
    report = benchmark(bundles, tmp_path / "data", **QUICK, out=tmp_path / "out")
    assert [row.category for row in report.rows] == ["bolt", "nut"]
    [average] = report.averages
    assert average.metrics.image_auroc == pytest.approx(np.mean([row.metrics.image_auroc for row in report.rows]))
    assert average.metrics.aupro == pytest.approx(np.mean([row.metrics.aupro for row in report.rows]))
    without = replace(report.rows[0], metrics=replace(report.rows[0].metrics, aupro=None))
    assert rows.average([without, report.rows[1]])[0].metrics.aupro is None, "of one category, it is no mean of two"
    busy, quiet = (
        replace(row, latency=replace(row.latency, stability=Stability(0.0, None, None, text)))
        for row, text in zip(report.rows, ("busy", ""))
    )
    assert rows.average([busy, quiet])[0].latency_ms is None
    both = [*bundles, Path(shutil.copytree(bundles[0], tmp_path / "twin.edgead"))]
    with pytest.raises(ConfigError, match=r"results\.json exists already and was kept"):
        benchmark(both, tmp_path / "data", **QUICK, out=tmp_path / "out", command=["other"])
    for force in (True, False):  # the second time it is the report of the same command
        report = benchmark(both, tmp_path / "data", **QUICK, out=tmp_path / "out", force=force, command=["edgead"])
    assert not report.averages  # which of two on one category would count?
    assert [row.bundle for row in report.rows] == [str(tmp_path / "bolt"), "nut", str(tmp_path / "twin")]
    with pytest.raises(DataError, match=r"was trained on 'washer'\. Categories of the data set: bolt, nut"):
        benchmark([bundle.path], tmp_path / "data", **QUICK, out=tmp_path / "other")


def test_aligned_bundles_of_two_categories_are_timed_on_their_own_parts(tmp_path: Path) -> None:
    bundles = []
    for name, turned in (("bolt", 0), ("nut", 1)):
        draw = [np.rot90(part_frame(noise, noise > 2), turned) for noise in range(5)]
        bundles.append(make_level_bundle(tmp_path / f"{name}.edgead", geometry=aligning(draw[0])).path)
        manifest = json.loads((bundles[-1] / "manifest.json").read_text())
        manifest["category"] = name
        manifest["digest"] = manifest_digest(manifest)
        (bundles[-1] / "manifest.json").write_text(json.dumps(manifest))
        for number, frame in enumerate(draw[1:]):
            path = tmp_path / "data" / name / "test" / ("good" if number < 2 else "bad") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(np.ascontiguousarray(frame)))
    report = benchmark(bundles, tmp_path / "data", quick=True, rounds=2, out=tmp_path / "out")
    assert [(row.category, row.latency.rounds) for row in report.rows] == [("bolt", 2), ("nut", 2)]
    assert report.conditions.timed_frames == 8


def test_a_broken_promise_is_in_every_file_and_said_once(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle.path, tmp_path / "low.edgead"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["threshold"] |= {"value": -1.0, "normals": 99, "requested_bound": 0.01, "false_reject_bound": 0.01}
    manifest["digest"] = manifest_digest(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    said: list[str] = []
    console = Console()
    console.say = said.append  # type: ignore[method-assign]
    report = benchmark([copy], parts, **QUICK, out=tmp_path / "out", console=console)
    [row] = report.rows
    assert row.decisions.false_reject_interval == (pytest.approx(0.025 ** (1 / 4)), 1.0)
    promise = row.decisions.promise
    assert promise is not None
    assert promise.average == 0.01
    warning = promise.warning
    assert "4 of 4 good test images are rejected" in warning
    [line] = csv.DictReader((report.folder / "results.csv").read_text().splitlines())
    assert line["warning"] == warning
    assert float(line["promised_limit"]) == promise.limit
    assert [text for text in said if warning in text] == [f"Warning: {row.bundle}: {warning}"]
    assert warning not in to_table(report.rows)  # a terminal shows both
    assert "4 of 4 good test images" in report.page.read_text()


def test_a_threshold_set_on_test_images_is_warned_of(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle.path, tmp_path / "imported.edgead"))
    manifest = json.loads((copy / "manifest.json").read_text())
    said: list[str] = []
    console = Console()
    console.say = said.append  # type: ignore[method-assign]
    good = fingerprint_of(open_category(parts / "test" / "good").normals)  # as `edgead import` is given them
    for part, fingerprint in (("validation", ""), ("test", ""), ("folder", good)):
        said.clear()
        manifest["data"] |= {"held_out_part": part, "held_out_fingerprint": fingerprint}
        manifest["digest"] = manifest_digest(manifest)
        (copy / "manifest.json").write_text(json.dumps(manifest))
        benchmark([copy], parts, **QUICK, out=tmp_path / part, console=console)
        assert sum("was set on good test images" in text for text in said) == (part != "validation")


def test_without_masks_there_are_no_pixel_metrics(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(parts, tmp_path / "washer"))
    shutil.rmtree(data / "ground_truth")
    report = benchmark([bundle.path], data, **QUICK, out=tmp_path / "out")
    [row] = report.rows
    assert row.metrics.pixel_auroc is row.metrics.aupro is None
    assert row.metrics.image_auroc is not None
    assert "–" in report.page.read_text()


def test_labelled_images_alone_are_enough(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    for folder in ("test", "ground_truth"):
        shutil.copytree(parts / folder, tmp_path / "washer" / folder)
    report = benchmark([bundle.path], tmp_path / "washer", **QUICK, out=tmp_path / "out")
    assert report.rows[0].images.defective == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"rounds": "5"}, "rounds is .5.; it must be a whole number"),
        ({"seconds": 0}, "seconds is 0; it must be above 0"),
        ({"seconds": float("nan")}, "seconds is NaN"),
        ({"pixel_size": 0}, "pixel_size is 0; it must be from 32"),
        ({"engine": []}, "one or more engines"),
        ({"bundles": []}, "a list of one or more bundles"),
        ({"bundles": "bottle.edgead"}, "a list of one or more bundles"),
    ],
)
def test_a_wrong_argument_is_refused_before_any_work(
    bundle: Bundle, parts: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        benchmark(**{"bundles": [bundle.path], "data": parts, **options})


def test_a_report_that_could_not_be_written_is_not_measured(
    bundle: Bundle, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour of measurements ended with "Not a directory"."""
    monkeypatch.setattr(comparison, "load", lambda *_, **__: pytest.fail("measured"))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        benchmark([bundle.path], parts, out=tmp_path / "file" / "report")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").touch()
    with pytest.raises(NotADirectoryError):
        benchmark([bundle.path], parts)


def test_masks_that_are_empty_or_inverted_are_warned_of(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    for mark, words in ((0, "are empty at --pixel-size 64"), (255, "Zero must mean good")):
        data, listener = shutil.copytree(parts, tmp_path / str(mark) / parts.name), Listener()
        for path in (data / "ground_truth").rglob("*.png"):
            mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            mask[:] = (mask == 0) * np.uint8(mark)
            cv2.imwrite(str(path), mask)
        out = tmp_path / str(mark) / "report"
        benchmark([bundle.path], data, rounds=1, pixel_size=64, quick=True, out=out, console=listener)
        assert any(words in line for line in listener.said)


def test_unlabelled_data_is_refused(bundle: Bundle, parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts / "train", tmp_path / "washer" / "train")
    with pytest.raises(DataError, match="no labelled test images"):
        benchmark([bundle.path], tmp_path / "washer", **QUICK)


@pytest.mark.parametrize(
    ("left_out", "said"), [("good", "no readable good test images"), ("bad", "no readable defective")]
)
def test_one_kind_of_labelled_images_measures_nothing(
    bundle: Bundle, parts: Path, tmp_path: Path, left_out: str, said: str
) -> None:
    for folder in (parts / "test").iterdir():
        if (folder.name == "good") != (left_out == "good"):
            shutil.copytree(folder, tmp_path / "washer" / "test" / folder.name)
    shutil.copytree(parts / "train", tmp_path / "washer" / "train")
    with pytest.raises(DataError, match=said):
        benchmark([bundle.path], tmp_path / "washer", **QUICK)


def test_latencies_are_interleaved(bundle: Bundle, parts: Path) -> None:
    calls: list[str] = []
    inspectors = [edgead.load(bundle.path, engine="onnxruntime") for _ in "ab"]
    for name, inspector in zip("ab", inspectors):
        honest = inspector.inspect
        inspector.inspect = lambda frame, name=name, honest=honest: calls.append(name) or honest(frame)  # type: ignore
    frames = [read_frame(parts / "test" / "good" / "000.png")]
    measure_latency(inspectors, [frames] * len(inspectors), 4, Console())
    assert calls == ["a", "b"] * 7  # three rounds of warm-up, four that count
