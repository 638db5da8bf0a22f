"""`edgead demo`: from training to benchmark on drawn sample parts, brushed-metal washers with four kinds of defect.

The parts are easier than real ones, and so are the figures measured on them.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgead.console import Console
from edgead.errors import ConfigError, GateError, first_line, is_installed
from edgead.files import atomic_file, new_folder
from edgead.images import Frame, Mask, cv2, encode_png, read_frame
from edgead.table import Table
from edgead.text import percent

if TYPE_CHECKING:
    from edgead.benchmark import Report
    from edgead.export import PrecisionOptions
    from edgead.runtime.ledger import Ledger

Rng = np.random.Generator
SIDE_PIXELS = 256
"""Side of a picture, pixels."""
COLUMNS = ("model", "precision", "engine", "p50 ms", "times", "AUROC", "found", "rejected", "gate")
"""Head of the comparison: `times` as fast as the slowest; shares of defective and good test images that fail."""
DASH = "–"
TIMING_SECONDS = 40.0
"""Longest timing of all bundles and engines together."""


def _activation() -> list[str]:
    """Return the command after which the shell finds edgead: `make demo` uses an environment of its own."""
    script = Path(sys.prefix, "bin", "activate")
    if shutil.which("edgead") or not script.exists():
        return []
    return [f"            source {shlex.quote(os.path.relpath(script))}"]


@dataclass(frozen=True)
class DemoOutcome:
    """Results of the demo.

    Attributes:
        parts, run, overlays, still: paths of the data set, the run, the picture with overlays, and a saved result.
        bundle: path of the float32 bundle.
        int8: path of the INT8 bundle; None if it did not pass the gate.
        gate: what the gate found about INT8, in words.
        report: the benchmark's, one row for each bundle and engine.
        ledger: counts of verdicts on the streamed test images.
        minutes: duration of the demo.
    """

    parts: Path
    run: Path
    bundle: Path
    int8: Path | None
    gate: str
    overlays: Path
    still: Path
    report: Report
    ledger: Ledger
    minutes: float

    @property
    def comparison(self) -> Table:
        """The same model in each precision on each engine: times, decisions and the gate's verdict, best last."""
        rows = sorted(self.report.rows, key=lambda row: -row.latency.latency_ms.p50)
        lines = [
            (
                row.bundle,
                row.precision,
                row.engine,
                f"{row.latency.latency_ms.p50:.1f}",
                f"{rows[0].latency.latency_ms.p50 / row.latency.latency_ms.p50:.1f}",
                percent(row.metrics.image_auroc),
                f"{percent(row.decisions.detection_rate, 0)}%",
                f"{percent(row.decisions.false_reject_rate, 0)}%",
                "reference" if row.precision == "fp32" else "passed",
            )
            for row in rows
        ]
        dashes = (DASH,) * 5
        lines += [(each.bundle, DASH, each.engine, *dashes, "failed") for each in self.report.failed or ()]
        if self.int8 is None:
            lines.append((f"{self.bundle.stem}-int8", "int8", DASH, *dashes, "not passed"))
        return Table(COLUMNS, lines)

    @property
    def fastest(self) -> Path:
        """The bundle that is fastest here; a lower precision has passed the gate."""
        row = min(self.report.rows, key=lambda row: row.latency.latency_ms.p50)
        return self.int8 if self.int8 and row.precision != "fp32" else self.bundle

    @property
    def summary(self) -> str:
        """Verdicts, paths and next commands, for people."""
        counts, own = self.ledger, self.report.rows[0].decisions
        line = shlex.quote(f"watch:{self.parts / 'test'}?existing=1&subfolders=1")
        places = (self.fastest, self.parts / "test", self.bundle.parent / "overlays")
        bundle, test, folder = (shlex.quote(str(each)) for each in places)
        busy = any(row.latency.unstable for row in self.report.rows)
        page = "" if is_installed("starlette") else ", after pip install 'edgead[view]'"
        lines = [
            f"INT8: {self.gate}",
            *(f"{each.bundle} on {each.engine}: {each.reason}" for each in self.report.failed or ()),
            *(["The machine was busy: the times are uncertain."] if busy else []),
            "",
            f"{counts.captured} test images: {counts.passed} PASS, {counts.failed} FAIL, {counts.unknown} UNKNOWN. "
            f"The bundle's threshold rejects {percent(own.false_reject_rate, 0)}% of the good parts and finds "
            f"{percent(own.detection_rate, 0)}% of the defective ones.",
            f"These parts are drawn by a program; expect other figures on yours. Took {self.minutes:.1f} minutes.",
            "",
            f"Overlays:   {self.overlays}",
            f"Example:    {self.still}",
            f"Report:     {self.report.page}",
            "",
            "Next:       look at every verdict, ask what keeps up with two cameras, run the line",
            *_activation(),
            f"            edgead predict {bundle} {test} --save {folder}",
            f"            edgead plan --cameras 2 --fps 10 --deadline 100ms --bundle {bundle}",
            f"            edgead run {bundle} --source {line} --view",
            f"Live page:  the last command shows the line in a browser at http://127.0.0.1:8080/{page}",
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Return JSON values."""
        return {
            "summary": self.summary,
            "minutes": round(self.minutes, 2),
            "bundle": str(self.bundle),
            "int8": None if self.int8 is None else str(self.int8),
            "gate": self.gate,
            "run": str(self.run),
            "report": str(self.report.page),
            "overlays": str(self.overlays),
            "still": str(self.still),
            "row": self.report.rows[0].to_dict(),
            "rows": [row.to_dict() for row in self.report.rows],
        }


def run_demo(
    out: Path | None,
    seed: int,
    console: Console,
    *,
    settings: tuple[str, ...] = (),
    int8: str | PrecisionOptions = "int8",
) -> DemoOutcome:
    """Make sample parts, train `nano`, export in float32 and INT8, inspect the test images as a stream, and compare.

    Both bundles are measured on every engine that can run here.

    Args:
        out: folder for all results; by default a new folder in ``runs/demo``.
        seed: of the training.
        console: shows progress.
        settings: ``"NAME=VALUE"`` overrides of the training.
        int8: options of the second export.

    Raises:
        ConfigError: `out` is not empty.
    """
    from edgead.benchmark import benchmark
    from edgead.export import export
    from edgead.runtime.engines.opening import usable_engines
    from edgead.runtime.inspector import load
    from edgead.runtime.ledger import Ledger
    from edgead.runtime.pipeline import run_stream
    from edgead.runtime.predict import save_contact_sheet
    from edgead.runtime.sinks import open_sink
    from edgead.runtime.sources import open_source
    from edgead.train import train

    started = time.monotonic()
    if out and out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; choose another --out.")
    folder = out or new_folder(Path("runs", "demo", f"{datetime.now():%Y%m%d-%H%M%S}"))
    parts = make_parts(folder / "washer", console=console)
    [run] = train("draem", parts, preset="nano", settings=settings, out=folder / "run", seed=seed, console=console)
    bundle = export(run, out=folder / "washer.edgead", console=console)
    lowered, gate = _export_int8(run, folder / "washer-int8.edgead", int8, console)
    ledger, overlays = Ledger(), folder / "overlays.png"
    with load(bundle.path) as inspector:
        source = open_source(str(parts / "test"))
        run_stream(inspector, source, [open_sink(f"jsonl:{folder / 'results.jsonl'}")], ledger)
        shown = [parts / "test" / kind / "001.png" for kind in ("good", *DEFECTS)]
        save_contact_sheet(inspector, shown, overlays)
        results = [inspector.inspect(read_frame(path)) for path in shown]
        still = max(results, key=lambda result: result.score).save(folder / "still.png")
    report = benchmark(
        [each for each in (bundle.path, lowered) if each],
        parts,
        engine=usable_engines(),
        seconds=TIMING_SECONDS,
        quick=True,
        out=folder / "report",
        command=["edgead", "demo"],
        console=console,
    )
    minutes = (time.monotonic() - started) / 60
    return DemoOutcome(parts, run, bundle.path, lowered, gate, overlays, still, report, ledger, minutes)


def _export_int8(run: Path, out: Path, precision: str | PrecisionOptions, console: Console) -> tuple[Path | None, str]:
    """Export a run in INT8; return the bundle's path, None if it did not pass the gate, and what the gate found."""
    from edgead.export import export

    try:
        bundle = export(run, out=out, precision=precision, console=console)
    except GateError as error:
        return None, first_line(error)
    return bundle.path, bundle.manifest.gate.describe() if bundle.manifest.gate else ""


def make_parts(
    root: Path, *, train: int = 60, good: int = 20, bad: int = 8, seed: int = 7, console: Console | None = None
) -> Path:
    """Draw a data set of washers.

    Args:
        root: folder of the category.
        train: good images to train on.
        good: good test images.
        bad: test images of each kind of defect.
        seed: random seed.
        console: shows progress.

    Returns:
        `root`.
    """
    console = console or Console()
    rng = np.random.default_rng(seed)
    jobs = [(f"train/good/{index:03}.png", "") for index in range(train)]
    jobs += [(f"test/good/{index:03}.png", "") for index in range(good)]
    jobs += [(f"test/{kind}/{index:03}.png", kind) for kind in DEFECTS for index in range(bad)]
    for name, kind in console.track("drawing parts")(jobs):
        picture, part = draw_part(rng)
        if kind:
            picture, mask = DEFECTS[kind](rng, picture, part)
            target = root / "ground_truth" / kind / (Path(name).stem + "_mask.png")
            _write(target, mask.astype(np.uint8) * 255)
        noisy = picture + rng.normal(0, 2.5, picture.shape)
        _write(root / name, np.clip(noisy, 0, 255).astype(np.uint8))
    return root


def draw_part(rng: Rng) -> tuple[Frame, Mask]:
    """Draw a good washer on a dark bench. Place, angle, size and light vary; the grain follows the lathe.

    Returns:
        The picture ``[H, W, 3] uint8 BGR`` without sensor noise, and the metal's mask ``[H, W] bool``. Both sides are
        `SIDE_PIXELS`.
    """
    rows, columns = np.mgrid[:SIDE_PIXELS, :SIDE_PIXELS].astype(np.float64)
    x, y = columns - SIDE_PIXELS / 2 - rng.uniform(-5, 5), rows - SIDE_PIXELS / 2 - rng.uniform(-5, 5)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    outer, inner = 96 * rng.uniform(0.98, 1.02), 34 * rng.uniform(0.98, 1.02)
    edge = np.clip(outer - radius, 0, 1) * np.clip(radius - inner, 0, 1)
    turning = _smooth(rng.normal(0, 1, 512), 1.2)[np.clip(radius * 3, 0, 511).astype(int)]
    streaks = cv2().GaussianBlur(rng.normal(0, 1, (SIDE_PIXELS, SIDE_PIXELS)), (0, 0), 1.5)
    light = rng.uniform(-0.2, 0.2) + 0.6
    anisotropy = 0.16 * np.cos(2 * (angle - light)) + 0.05 * np.cos(angle - light)
    chamfer = 0.22 * np.exp(-(((radius - outer + 5) / 3) ** 2)) - 0.18 * np.exp(-(((radius - inner - 4) / 3) ** 2))
    metal = (0.56 + anisotropy + chamfer + 0.03 * turning + 0.05 * streaks) * rng.uniform(0.93, 1.07)
    bench = (
        0.13
        + 0.03 * (x + y) / SIDE_PIXELS
        + 0.03 * cv2().GaussianBlur(rng.normal(0, 1, (SIDE_PIXELS, SIDE_PIXELS)), (0, 0), 3)
    )
    shadow = 1 - 0.5 * np.exp(-np.clip(np.hypot(x - 5, y - 7) - outer, 0, None) / 7)
    tint_metal, tint_bench = np.array([1.02, 1.0, 0.96]), np.array([1.1, 1.0, 0.85])
    picture = (bench * shadow)[..., None] * tint_bench * (1 - edge[..., None])
    picture = picture + metal[..., None] * tint_metal * edge[..., None]
    return np.clip(picture * 255, 0, 255).astype(np.uint8), edge > 0.5


def _scratch(rng: Rng, picture: Frame, part: Mask) -> tuple[Frame, Mask]:
    row, column = _inside(rng, part)
    turn, bend = rng.uniform(0, np.pi), rng.uniform(-0.02, 0.02)
    steps = np.arange(rng.integers(25, 60))
    heading = turn + bend * steps
    path = np.stack([column + np.cumsum(np.cos(heading)), row + np.cumsum(np.sin(heading))], axis=1)
    line = np.zeros(part.shape, np.uint8)
    cv2().polylines(line, [np.round(path).astype(np.int32)], False, 255, int(rng.integers(1, 3)), cv2().LINE_AA)
    return _paint(picture, line / 255.0 * part, rng.choice([25.0, 240.0]), 0.75)


def _dent(rng: Rng, picture: Frame, part: Mask) -> tuple[Frame, Mask]:
    row, column = _inside(rng, part)
    rows, columns = np.mgrid[:SIDE_PIXELS, :SIDE_PIXELS].astype(np.float64)
    size, turn = rng.uniform(6, 11), rng.uniform(0, 2 * np.pi)
    x, y = (columns - column) / size, (rows - row) / size
    bowl = np.exp(-(x**2 + y**2) * 1.5) * part
    shade = (x * np.cos(turn) + y * np.sin(turn)) * bowl * 130
    changed = np.clip(picture.astype(np.float64) + shade[..., None], 0, 255).astype(np.uint8)
    return changed, (x**2 + y**2 < 1.2) & part


def _stain(rng: Rng, picture: Frame, part: Mask) -> tuple[Frame, Mask]:
    row, column = _inside(rng, part)
    rows, columns = np.mgrid[:SIDE_PIXELS, :SIDE_PIXELS].astype(np.float64)
    wobble = cv2().GaussianBlur(rng.normal(0, 1, part.shape), (0, 0), 5) * 25
    distance = np.hypot(columns - column, rows - row) + wobble
    alpha = np.clip((rng.uniform(9, 16) - distance) / 3, 0, 1) * part
    colour = np.array([[30, 60, 105], [40, 45, 40], [120, 70, 30]][rng.integers(3)], np.float64)
    changed = picture * (1 - 0.6 * alpha[..., None]) + colour * 0.6 * alpha[..., None]
    return changed.astype(np.uint8), alpha > 0.3


def _chip(rng: Rng, picture: Frame, part: Mask) -> tuple[Frame, Mask]:
    contours, _ = cv2().findContours(part.astype(np.uint8), cv2().RETR_EXTERNAL, cv2().CHAIN_APPROX_NONE)
    rim = max(contours, key=len)[:, 0]
    column, row = rim[rng.integers(len(rim))]
    corners = [
        (column + rng.uniform(5, 11) * np.cos(turn), row + rng.uniform(5, 11) * np.sin(turn))
        for turn in np.linspace(0, 2 * np.pi, 7)[:-1]
    ]
    bite = np.zeros(part.shape, np.uint8)
    cv2().fillPoly(bite, [np.round(corners).astype(np.int32)], 255, cv2().LINE_AA)
    return _paint(picture, bite / 255.0 * part, 28.0, 1.0)


DEFECTS: dict[str, Callable[[Rng, Frame, Mask], tuple[Frame, Mask]]] = {
    "chip": _chip,
    "dent": _dent,
    "scratch": _scratch,
    "stain": _stain,
}
"""Kind of defect ↦ function that draws one and returns the picture and the defect's mask."""


def _inside(rng: Rng, part: Mask) -> tuple[int, int]:
    """Draw a pixel well inside the part."""
    core = cv2().erode(part.astype(np.uint8), np.ones((9, 9), np.uint8))
    places = np.argwhere(core)
    row, column = places[rng.integers(len(places))]
    return int(row), int(column)


def _paint(picture: Frame, alpha: NDArray[Any], tone: float, opacity: float) -> tuple[Frame, Mask]:
    weight = (alpha * opacity)[..., None]
    return (picture * (1 - weight) + tone * weight).astype(np.uint8), alpha > 0.3


def _smooth(values: NDArray[Any], sigma: float) -> NDArray[Any]:
    return np.asarray(cv2().GaussianBlur(values[None], (0, 0), sigma)[0])


def _write(path: Path, image: NDArray[Any]) -> None:
    with atomic_file(path) as stream:
        stream.write(encode_png(image))
