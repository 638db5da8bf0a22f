"""The page of a bundle: parity with the trained network, the gate in words, layers, timings, threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from edgead import schema
from edgead.bundle import Bundle
from edgead.bundle.gate_record import AttemptRecord, GateRecord, VariantRecord
from edgead.bundle.manifest import Manifest
from edgead.decision import decide
from edgead.files import write_json
from edgead.machine import Machine, describe_machine, versions
from edgead.masks import draw_overlay, fit_mask
from edgead.reports.charts import Chart, histogram
from edgead.reports.page import DASH, RESULTS, describe_device, milliseconds, percent, read_page_results, render, when
from edgead.reports.pictures import Group, picture, write_pictures
from edgead.schema import OneOf, Within, left_out
from edgead.text import utc_now

VERSION = 1
SHOWN_LAYERS = 25
"""Rows of the layer table; the manifest has all."""
COMPARED = (
    "The exported graph and the trained network ran on the same frames. The largest differences are in units of the "
    "score. An engine may differ from the graph's reference outputs by as much as the last column says."
)
COMPARED_LOWERED = (
    "The exported graphs and the float32 graph ran on the same frames. The largest differences are in units of the "
    "score: they are what the lower precision costs, and the gate below has judged them. The last column is another "
    "limit: by how much an engine may differ from the reference outputs of one of these graphs."
)


@dataclass(frozen=True, kw_only=True)
class ExportResults:
    """The content of results.json beside a bundle.

    Attributes:
        created: UTC, ISO 8601.
        bundle: name of its folder.
        machine, versions: that exported it; None if the page was rebuilt from the bundle alone.
        scoring_ms: engine ↦ median time of one inference while the held-out images were scored.
        bytes: of all files of the bundle.
        manifest: of the bundle.
    """

    created: str
    bundle: str
    bytes: int
    manifest: Manifest
    machine: Machine | None = left_out()
    versions: dict[str, str] | None = left_out()
    scoring_ms: dict[str, float] | None = left_out()
    kind: Annotated[str, OneOf(("export",))] = "export"
    schema: Annotated[int, Within(VERSION, VERSION)] = VERSION


def report_folder(bundle: Path) -> Path:
    """Return the folder of a bundle's report: ``NAME.report`` beside ``NAME.edgead``, which stays as it is."""
    return bundle.with_name(f"{bundle.name.removesuffix('.edgead')}.report")


def write_export_results(bundle: Bundle, scoring_ms: Mapping[str, float] | None = None) -> Path:
    """Write the results and pictures of a bundle beside it; return their folder.

    Args:
        bundle: complete.
        scoring_ms: see `ExportResults`; None for a bundle that was exported earlier, perhaps elsewhere.
    """
    folder = report_folder(bundle.path)
    folder.mkdir(exist_ok=True)
    here = scoring_ms is not None
    results = ExportResults(
        created=utc_now(),
        bundle=bundle.path.name,
        bytes=sum(path.stat().st_size for path in bundle.path.iterdir()),
        manifest=bundle.manifest,
        machine=describe_machine() if here else None,
        versions=versions() if here else None,
        scoring_ms=None if scoring_ms is None else dict(scoring_ms),
    )
    write_pictures(folder, [_golden(bundle)])
    write_json(folder / RESULTS, schema.write(results))
    return folder


def _golden(bundle: Bundle) -> Group:
    golden, manifest = bundle.golden(), bundle.manifest
    pictures = []
    for frame, score, anomaly_map in zip(golden.frames, golden.scores, golden.maps):
        verdict, _ = decide(float(score), manifest.threshold.value)
        mask = fit_mask(anomaly_map > manifest.mask_threshold, (frame.shape[0], frame.shape[1]))
        drawn = draw_overlay(frame, anomaly_map, mask & (verdict == "FAIL"), manifest.mask_threshold)
        pictures.append(picture(f"{verdict}, score {score:.4g}", np.ascontiguousarray(drawn)))
    note = "The first half are held-out good images, the rest synthetic anomalies." if manifest.origin is None else ""
    return Group("Golden frames, which are re-run on the target machine", tuple(pictures), note)


def export_page(folder: Path, pictures: Sequence[Group]) -> str:
    """Return the page of a bundle's report.

    Raises:
        DataError: results.json is damaged.
    """
    results = read_page_results(ExportResults, folder / RESULTS, "Rebuild it from the bundle: edgead report BUNDLE")
    manifest, gate = results.manifest, results.manifest.gate
    return render(
        "export.html",
        kind="export",
        title=results.bundle,
        key=_key(results),
        parity=_parity(manifest),
        compared=COMPARED if manifest.precision == "fp32" else COMPARED_LOWERED,
        threshold=manifest.threshold.describe(manifest.data.unseen),
        scores=_scores(manifest),
        trace=gate_in_words(gate, manifest.precision) if gate else [],
        variants=_variants(gate),
        layers=_layers(gate),
        timings=_timings(results),
        failed=[[*names, why] for names, why in _failed(gate)],
        pictures=pictures,
        facts=_facts(results),
        raw=manifest.to_dict(),
        footer="Rebuild this page with: edgead report BUNDLE",
    )


def _key(results: ExportResults) -> list[tuple[str, str]]:
    manifest = results.manifest
    return [
        ("method, preset", f"{manifest.method} {manifest.preset}"),
        ("precision", manifest.precision),
        ("input, pixels", f"{manifest.size[0]}×{manifest.size[1]}"),
        *([("geometry", manifest.geometry.describe())] if manifest.stored_geometry else []),
        ("size, MB", f"{results.bytes / 1e6:.1f}"),
        ("threshold", f"{manifest.threshold.value:.6g}"),
    ]


def _parity(manifest: Manifest) -> tuple[list[str], list[list[str]]]:
    record = manifest.parity
    allowed = record.tolerance if record.map_tolerance is None else record.map_tolerance
    rows = [
        ["score", f"{record.score_error:.3g}", f"{record.tolerance:.3g}"],
        ["map", f"{record.map_error:.3g}", f"{allowed:.3g}"],
    ]
    return ["output", "largest difference", "allowed for an engine"], rows


def _scores(manifest: Manifest) -> Chart | None:
    if not manifest.threshold.scores:
        return None
    rules = {"threshold": manifest.threshold.value}
    return histogram(
        "Scores of held-out good images by the exported graph", {"good": manifest.threshold.scores}, "score", rules
    )


def gate_in_words(gate: GateRecord, precision: str) -> list[str]:
    """Tell what the gate tried and decided, one sentence for each attempt."""
    if not gate.attempts:
        return ["float32 was selected: it needs no gate."]
    total = f"{gate.layers} layers" if gate.layers else "the layers"
    lines = []
    for attempt in gate.attempts:
        kept = attempt.kept_in_float32
        what = f"{kept} of {total} in float32, the others in {precision}" if kept else f"All {total} in {precision}"
        lines.append(f"{what}: {_outcome(attempt)}.")
    images = [
        f"{gate.held_out_normals} held-out good images",
        f"{gate.synthetic_anomalies} synthetic anomalies",
        f"{gate.labelled_images} labelled images" if gate.labelled_images else "no labelled images",
    ]
    judged = f"The gate judged verdicts on {images[0]}, {images[1]} and {images[2]}."
    if gate.budget:
        judged += (
            f" At most {percent(gate.budget.flips, 2)} % of the settled verdicts may change, and AUROC and AUPRO may "
            f"drop by {100 * gate.budget.auroc_drop:g} points."
        )
    return [judged, *lines, gate.describe()[:1].upper() + gate.describe()[1:] + "."]


def _outcome(attempt: AttemptRecord) -> str:
    return f"refused, because {'; '.join(attempt.failures)}" if attempt.failures else "passed"


def _variants(gate: GateRecord | None) -> tuple[list[str], list[list[str]]]:
    header = [
        "graph",
        "score error",
        "map error",
        "settled verdicts changed",
        "borderline changed",
        "image AUROC, %",
        "loss, points",
    ]
    rows = []
    for name, each in ((gate and gate.variants) or {}).items():
        flips = each.flips_of_normals + each.flips_of_synthetic_anomalies
        rows.append(
            [
                name,
                _error(each.score_error),
                _error(each.map_error),
                f"{flips} of {each.settled}",
                f"{each.borderline_flips} of {each.frames - each.settled}",
                *_labelled(each),
            ]
        )
    return header, rows


def _labelled(variant: VariantRecord) -> list[str]:
    drop = variant.image_auroc_drop
    return [percent(variant.image_auroc), DASH if drop is None else f"{100 * drop:+.2f}"]


def _layers(gate: GateRecord | None) -> tuple[list[str], list[list[str]], int]:
    """Return header, rows and the number of all layers."""
    table = (gate and gate.sensitivity) or ()
    kept = set((gate and gate.kept_in_float32) or ())
    rows = [
        [row.layer, _error(row.score_error), _error(row.map_error), "float32" if row.layer in kept else "lowered"]
        for row in table[:SHOWN_LAYERS]
    ]
    return ["layer", "score error, lowered alone", "map error", "in this bundle"], rows, len(table)


def _error(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"


def _timings(results: ExportResults) -> list[list[str]]:
    gate = results.manifest.gate
    rows = [
        [precision, engine, milliseconds(time), "interleaved on golden frames"]
        for precision, times in ((gate and gate.milliseconds_here) or {}).items()
        for engine, time in times.items()
    ]
    for engine, time in (results.scoring_ms or {}).items():
        rows.append(["fp32", engine, milliseconds(time), "median while held-out images were scored"])
    return rows


def _failed(gate: GateRecord | None) -> list[tuple[list[str], str]]:
    failed = (gate and gate.failed_here) or {}
    return [([precision, engine], why) for precision, reasons in failed.items() for engine, why in reasons.items()]


def _facts(results: ExportResults) -> list[tuple[str, str]]:
    manifest, calibration = results.manifest, results.manifest.calibration
    texts = {
        "category": manifest.category,
        "exported": when(manifest.created),
        "on": describe_device(schema.write(results.machine)) if results.machine else "unknown machine",
        "origin": manifest.origin.describe() if manifest.origin else "",
        "parity frames": str(manifest.parity.frames),
        "calibration": calibration.describe() if calibration else "",
        "versions": ", ".join(f"{name} {version}" for name, version in (results.versions or {}).items()),
        "edgead": manifest.edgead,
        "digest": manifest.digest,
    }
    return [(name, text) for name, text in texts.items() if text]
