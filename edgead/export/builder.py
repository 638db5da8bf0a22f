"""Build a bundle from any model source: a run, a third-party ONNX file or a published checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import edgead
from edgead import schema
from edgead.bundle import MODEL, Bundle, Golden, format_of
from edgead.bundle.manifest import DataRecord, ImageSizes, InputRecord, Manifest, ParityRecord, ReconstructionRecord
from edgead.bundle.provenance import Origin, TrainingRecord
from edgead.console import Console
from edgead.datasets import Category, Frames
from edgead.errors import ConfigError, describe
from edgead.export.draft import BundleDraft, DecisionLimits, finish_bundle, measure_limits
from edgead.export.inference import run_singly
from edgead.export.options import AUTO, BuildOptions, Calibration, PrecisionOptions
from edgead.export.parity import FLOAT16_TOLERANCE, PARITY_TOLERANCE, check_parity
from edgead.export.quantization.calibration import find_images
from edgead.export.quantization.gate import read_labelled
from edgead.export.quantization.selection import EvaluationSet, select_precision
from edgead.export.settings_gate import check_settings
from edgead.export.target import choose_target
from edgead.files import atomic_folder, scratch_folder
from edgead.geometry import STRETCH, Geometry
from edgead.geometry.tiling import Tiling
from edgead.reports.build import build_report
from edgead.reports.export_page import write_export_results
from edgead.runtime.engines import Engine
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.runtime.engines.tiled import with_tiles
from edgead.text import utc_now

GATE_ANOMALIES = 40
"""Synthetic anomalies on which the gate evaluates a lower precision."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceImages:
    """The images that a bundle is built with. Frames are ``[N, H, W, C] uint8``, whole canvases except the probes.

    Attributes:
        category: name of the product.
        data, sizes: fingerprints and sizes of the images, for the manifest.
        normals: held-out good images that the threshold is fitted to; None if the model has limits of its own.
        probes: frames of the graph on which it is compared with its reference.
        golden: indices of the probes that become golden frames.
        anomalies: synthetic anomalies for the gate.
        calibration, calibration_source: good images for INT8 calibration, and their name in the manifest.
        labelled: category with labelled test images for the gate.
        seed: random seed for drawing calibration images.
    """

    category: str = ""
    data: DataRecord = DataRecord()  # noqa: RUF009  (frozen)
    sizes: ImageSizes | None = None
    normals: Frames | None = None
    probes: NDArray[np.uint8]
    golden: Sequence[int]
    anomalies: NDArray[np.uint8] | None = None
    calibration: Sequence[Path] = ()
    calibration_source: Literal["training", "threshold"]
    labelled: Category | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelSource:
    """A model that becomes a bundle: its graph, its reference outputs and the facts for the manifest.

    Attributes:
        verb: ``"export"`` for a run, ``"import"`` for a model that was trained elsewhere.
        name: default name of the bundle.
        method, preset, config, input, training, reconstruction: fields of the manifest.
        geometry: how images are brought to the graph.
        files: of an imported model, file name ↦ SHA-256.
        origin: returns the manifest's `origin`, given the graph's engine; None for a run.
        precision: of the graph, before any lowering.
        write_graph: writes the graph to a file.
        write_published: writes the graph of the method's published settings, where the user exports with others: the
            graph must decide like it.
        reference: returns the outputs that the graph must reproduce.
        images: for comparison, threshold and calibration.
        limits: the model's own; used only without good images.
    """

    verb: Literal["export", "import"]
    name: str
    method: str
    preset: str
    config: Mapping[str, Any]  # JSON; each method has its own schema
    input: InputRecord
    training: TrainingRecord = TrainingRecord()  # noqa: RUF009  (frozen)
    reconstruction: ReconstructionRecord | None = None
    geometry: Geometry = STRETCH
    files: Mapping[str, str] = field(default_factory=dict)
    origin: Callable[[Engine], Origin] | None = None
    precision: str = "fp32"
    write_graph: Callable[[Path], None]
    write_published: Callable[[Path], None] | None = None
    reference: Callable[[NDArray[np.uint8]], Golden]
    images: SourceImages
    limits: DecisionLimits | None = None

    def is_source_of(self, bundle: Manifest, precision: PrecisionOptions, false_reject: float) -> bool:
        """Tell whether a bundle was built from the same model and data with the same options, and not changed since."""
        made_of = (
            self.method,
            schema.write(self.config),
            self.images.data,
            dict(self.files),
            (self.training.created, self.training.seed),
            self.geometry,
            false_reject if self.images.normals is not None else 1.0,
        )
        found = (
            bundle.method,
            bundle.config,
            bundle.data,
            bundle.origin.files if bundle.origin else {},
            (bundle.training.created, bundle.training.seed),
            bundle.geometry,
            bundle.threshold.requested_bound,
        )
        if bundle.changes:  # a version by `edgead review`
            return False
        wanted = precision.precision if precision.lowers else self.precision
        return made_of == found and wanted in (bundle.precision, AUTO) and self._calibrates(bundle, precision)

    def _calibrates(self, bundle: Manifest, precision: PrecisionOptions) -> bool:
        if bundle.calibration is None:
            return True
        # The images of another folder are not known before they are read.
        wanted = (precision.calibration.method, self.images.calibration_source)
        return (bundle.calibration.method, bundle.calibration.source) == wanted and not precision.calibration.data


def build_bundle(source: ModelSource, options: BuildOptions) -> Bundle:
    """Build a bundle.

    The graph is compared with its reference. The threshold is fitted to the graph's scores of held-out good images. A
    graph of lower precision must pass the gate, see docs/precision.md.

    Args:
        source: the model.
        options: see `edgead.export.export`.

    Raises:
        GateError: the graph differs from its reference, or the precision fails the gate.
        EdgeadError: see `edgead.errors`.
    """
    precision, false_reject, console = options.precision, options.false_reject, options.console

    def same(bundle: Manifest) -> bool:
        return source.is_source_of(bundle, precision, false_reject)

    def target(chosen: str) -> Path:
        return choose_target(options.out, source.verb, source.name, chosen, same, options.force)

    if precision.lowers:
        _check_lowering(source, precision.calibration)
    path = target(precision.precision)
    with scratch_folder(path) as work:
        draft = _draft(source, work / "fp32", false_reject, console)
        if source.write_published:
            assert source.images.normals is not None
            assert source.images.anomalies is not None
            source.write_published(published := work / "published.onnx")
            check_settings(draft, published, source.images.normals.frames, source.images.anomalies, options)
        if precision.lowers:
            evaluation = _evaluation_set(source, precision, draft, console)
            draft = select_precision(draft, evaluation, precision, false_reject, console)
        path = target(draft.manifest.precision if precision.lowers else precision.precision)  # may be taken meanwhile
        with atomic_folder(path) as folder:
            named = dataclasses.replace(draft.manifest, name=path.name.removesuffix(".edgead"))
            manifest = finish_bundle(folder, dataclasses.replace(draft, manifest=named), console)
    bundle = Bundle(path, manifest)
    _report(bundle, draft.scoring_ms, console)
    console.say(f"{source.verb.capitalize()}ed: {path}")
    return bundle


def _report(bundle: Bundle, scoring_ms: Mapping[str, float], console: Console) -> None:
    """Write the page beside a bundle. Whatever goes wrong with it, the bundle stands."""
    try:
        page = build_report(write_export_results(bundle, scoring_ms))
        console.say(f"Report: {page}")
    except Exception as error:
        console.say(f"Warning: the bundle is complete, but its report could not be written: {describe(error)}")


def _check_lowering(source: ModelSource, calibration: Calibration) -> None:
    if source.images.normals is None:
        raise ConfigError("The gate of a lower precision needs images of good parts. Add --threshold-data DIR.")
    if source.precision != "fp32":
        raise ConfigError(f"The model is already in {source.precision}. Leave out --precision.")
    find_images(calibration, source.images.calibration)  # report too few images before the long steps


def _draft(source: ModelSource, folder: Path, false_reject: float, console: Console) -> BundleDraft:
    """Write the graph, compare it with its reference and fit its limits."""
    folder.mkdir()
    source.write_graph(folder / MODEL)
    engine = OnnxRuntimeEngine(folder / MODEL)
    origin = source.origin(engine) if source.origin else None
    console.say(f"comparing graph and reference on {len(source.images.probes)} frames")
    expected = source.reference(source.images.probes)
    tolerance = FLOAT16_TOLERANCE if source.precision == "fp16" else PARITY_TOLERANCE
    parity = check_parity(expected, *run_singly(engine, source.images.probes), tolerance)
    limits = source.limits
    times: list[float] = []
    if source.images.normals is not None:
        tiling = Tiling(source.geometry, (source.input.height, source.input.width))
        limits, times = measure_limits(with_tiles(engine, tiling), source.images.normals, false_reject, console)
    assert limits is not None
    if not (expected.scores > limits.threshold.value).any():
        console.say(
            f"Warning: none of the {len(expected.scores)} frames, with synthetic defects or without, scores above the "
            f"threshold {limits.threshold.value:.6g}; their scores are {expected.scores.min():.6g} to "
            f"{expected.scores.max():.6g}. Such a model may let every part pass, for instance because its score is cut "
            "off, or higher for good parts. Try it on defective parts."
        )
    manifest = Manifest(
        format=format_of(source.geometry),
        name="",
        method=source.method,
        preset=source.preset,
        config=dict(source.config),
        category=source.images.category,
        input=source.input,
        precision=source.precision,
        threshold=limits.stored(),
        mask_threshold=limits.mask,
        parity=ParityRecord(**dataclasses.asdict(parity)),
        data=source.images.data,
        training=source.training,
        created=utc_now(),
        edgead=edgead.__version__,
        origin=origin,
        images=source.images.sizes,
        held_out=limits.held_out,
        reconstruction=source.reconstruction,
        stored_geometry=None if source.geometry == STRETCH else source.geometry,
    )
    golden = [*source.images.golden]
    frames = Golden(source.images.probes[golden], expected.scores[golden], expected.maps[golden])
    summary = f"graph and reference differ by at most {parity.largest:.2g} (allowed {parity.tolerance:.2g})"
    scoring_ms = {engine.name: round(float(np.median(times)), 3)} if times else {}
    return BundleDraft(folder, manifest, frames, summary, scoring_ms)


def _evaluation_set(
    source: ModelSource, precision: PrecisionOptions, draft: BundleDraft, console: Console
) -> EvaluationSet:
    images = source.images
    assert images.normals is not None
    assert images.anomalies is not None
    labelled = None
    if images.labelled:
        made = draft.manifest
        labelled = read_labelled(images.labelled, made.canvas, made.pixels, console, made.geometry)
    if labelled is None and precision.labelled:
        raise ConfigError(f"{precision.labelled} has no labelled test images; the gate needs good and defective ones.")
    return EvaluationSet(
        images.normals,
        images.anomalies,
        labelled,
        images.calibration,
        images.calibration_source,
        images.seed,
    )
