"""The page of a distillation: teacher and student side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from edgead import schema
from edgead.machine import Machine
from edgead.reports.page import RESULTS, describe_device, milliseconds, percent, read_page_results, render, when
from edgead.reports.pictures import Group
from edgead.schema import Computed, Milliseconds, OneOf, Within, left_out

VERSION = 1
BUSY = 1.5
"""Load for each core from which times are not to be trusted."""
Pair = tuple[Computed, Computed]
"""Of teacher and student."""


@dataclass(frozen=True)
class Time:
    """Milliseconds of one inference, timed in turn with the other bundle.

    Attributes:
        median: of all.
        undisturbed: the fastest tenth's slowest.
    """

    median: Milliseconds
    undisturbed: Milliseconds


@dataclass(frozen=True)
class Agreement:
    """How alike two bundles are, whatever is right.

    Attributes:
        scores: rank correlation.
        maps: correlation of the pixels, the teacher's compressed as the student learns them.
        verdicts: share of the images with the same verdict, each with its own threshold.
    """

    scores: float
    maps: float
    verdicts: Computed


@dataclass(frozen=True)
class Labelled:
    """Figures on labelled images, 0 to 1, of teacher and student. Nothing was chosen by them.

    Attributes:
        images: that could be read.
        image_auroc, pixel_auroc, aupro: the last two are None without masks.
        agreement: rank correlation of the scores.
    """

    images: int
    image_auroc: Pair
    agreement: float
    pixel_auroc: Pair | None = left_out()
    aupro: Pair | None = left_out()


@dataclass(frozen=True, kw_only=True)
class DistillationResults:
    """The content of results.json.

    Attributes:
        created: UTC, ISO 8601.
        category: name of the product.
        teacher, student: the bundles, with method and precision.
        teacher_digest, student_digest: of their manifests.
        engine, target_ms: what the student was chosen for.
        time: ``teacher`` and ``student``.
        agreement: on held-out good images, the same jittered, and synthetic anomalies.
        held_out, jittered, anomalies: number of these.
        synthetic_auroc: of the first two against the last.
        labelled: None without labelled images.
        seed, steps, config: of the student's training.
        machine, versions: where it was measured, with its load.
    """

    created: str
    category: str
    teacher: str
    student: str
    teacher_digest: str
    student_digest: str
    engine: str
    target_ms: Milliseconds
    time: dict[str, Time]
    agreement: Agreement
    held_out: int
    jittered: int
    anomalies: int
    synthetic_auroc: Pair
    labelled: Labelled | None = left_out()
    seed: int
    steps: int
    config: dict[str, Any]  # JSON; the student's settings
    machine: Machine
    versions: dict[str, str]
    kind: Annotated[str, OneOf(("distillation",))] = "distillation"
    schema: Annotated[int, Within(VERSION, VERSION)] = VERSION

    @property
    def faster(self) -> float:
        """Times that the student is faster, by the undisturbed milliseconds."""
        return self.time["teacher"].undisturbed / self.time["student"].undisturbed

    def in_words(self) -> list[str]:
        """Return the result in a few sentences."""
        times = [milliseconds(self.time[name].undisturbed) for name in ("teacher", "student")]
        student = self.time["student"].undisturbed
        met = "met" if student <= self.target_ms else "missed"
        agree = self.agreement
        busy = self.machine.load_before > BUSY * (self.machine.usable_cores or 1)
        lines = [
            f"The student takes {times[1]} ms on {self.engine}, the teacher {times[0]} ms: {self.faster:.1f} times as "
            f"fast. The target of {self.target_ms:g} ms is {met}."
            + (f" The machine was busy (load {self.machine.load_before:.1f}): measure again at rest." if busy else ""),
            f"Rank correlation of the scores {agree.scores:.3f}, correlation of the maps {agree.maps:.3f}, same "
            f"verdict on {percent(agree.verdicts)} % of {self.held_out} held-out good images, {self.jittered} jittered "
            f"ones and {self.anomalies} synthetic anomalies.",
            f"AUROC of good against synthetic: teacher {percent(self.synthetic_auroc[0])}, student "
            f"{percent(self.synthetic_auroc[1])}.",
        ]
        if self.labelled:
            first, second = self.labelled.image_auroc
            lines.append(
                f"Image AUROC on {self.labelled.images} labelled images, which were not used for any choice: teacher "
                f"{percent(first)}, student {percent(second)}."
            )
        return lines


def distillation_page(folder: Path, pictures: Sequence[Group]) -> str:
    """Return the page.

    Raises:
        DataError: results.json is damaged.
    """
    results = read_page_results(DistillationResults, folder / RESULTS, "Run `edgead distil` again.")
    return render(
        "distillation.html",
        kind="distillation",
        title=f"{results.student} learns from {results.teacher}",
        key=_key(results),
        words=results.in_words(),
        figures=_figures(results),
        pictures=pictures,
        facts=_facts(results),
        footer="Rebuild this page with: edgead report FOLDER",
    )


def _key(results: DistillationResults) -> list[tuple[str, str]]:
    found = [
        ("times as fast", f"{results.faster:.1f}"),
        ("ms, student", milliseconds(results.time["student"].undisturbed)),
        ("rank correlation", f"{results.agreement.scores:.3f}"),
    ]
    if results.labelled:
        first, second = results.labelled.image_auroc
        found.append(("points of image AUROC, student − teacher", f"{100 * (second - first):+.1f}"))
    return found


def _figures(results: DistillationResults) -> list[list[str]]:
    times = [results.time[name] for name in ("teacher", "student")]
    rows = [
        ["ms, undisturbed", *(milliseconds(time.undisturbed) for time in times)],
        ["ms, median", *(milliseconds(time.median) for time in times)],
        ["AUROC, good against synthetic, %", *map(percent, results.synthetic_auroc)],
    ]
    labelled = results.labelled
    if labelled:
        pairs = {"image AUROC": labelled.image_auroc, "pixel AUROC": labelled.pixel_auroc, "AUPRO": labelled.aupro}
        rows += [[f"{name}, labelled, %", *map(percent, pair)] for name, pair in pairs.items() if pair]
    return rows


def _facts(results: DistillationResults) -> list[tuple[str, str]]:
    return [
        ("category", results.category),
        ("engine", results.engine),
        ("target", f"{results.target_ms:g} ms"),
        ("teacher's digest", results.teacher_digest),
        ("student's digest", results.student_digest),
        ("seed", str(results.seed)),
        ("optimiser steps", f"{results.steps:,}"),
        ("settings", ", ".join(f"{name} {value}" for name, value in results.config.items())),
        ("measured", when(results.created)),
        ("on", describe_device(schema.write(results.machine))),
        ("load", f"{results.machine.load_before:g}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in results.versions.items())),
    ]
