"""The page of `benchmarks/scaling.py`: cost against one size at a time, with fitted exponents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from edgead.machine import Machine
from edgead.reports.charts import Chart, power_laws
from edgead.reports.page import describe_device, milliseconds, render, when
from edgead.reports.power_law import PowerLaw
from edgead.schema import Within

VERSION = 1
CURVE = 40
"""Points of a fitted curve."""


@dataclass(frozen=True)
class Series:
    """Medians of one engine, and the law fitted to them."""

    sizes: tuple[float, ...]
    milliseconds: tuple[float, ...]
    law: PowerLaw


@dataclass(frozen=True)
class Scaling:
    """Cost against one size.

    Attributes:
        title: what is varied, of what.
        unit: of the size.
        cost: what takes the milliseconds.
        series: name of an engine ↦ its figures.
    """

    title: str
    unit: str
    cost: str
    series: dict[str, Series]


@dataclass(frozen=True, kw_only=True)
class ScalingResults:
    """The results file: interleaved `rounds` of every size, one frame size and engine after the other."""

    created: str
    command: str
    machine: Machine
    versions: dict[str, str]
    rounds: int
    scalings: tuple[Scaling, ...]
    schema: Annotated[int, Within(VERSION, VERSION)] = VERSION


def scaling_page(results: ScalingResults) -> str:
    """Return the page."""
    header = ["what is varied", "engine", "exponent (95 % interval)", "sizes: ms"]
    lines = [
        [
            scaling.title,
            name,
            series.law.describe(),
            ", ".join(f"{size:g}: {milliseconds(ms)}" for size, ms in zip(series.sizes, series.milliseconds)),
        ]
        for scaling in results.scalings
        for name, series in scaling.series.items()
    ]
    return render(
        "scaling.html",
        kind="scaling",
        title="How the cost grows",
        created=when(results.created),
        device=describe_device(vars(results.machine)),
        rounds=results.rounds,
        header=header,
        rows=lines,
        charts=list(map(_chart, results.scalings)),
        command=results.command,
        footer=", ".join(f"{name} {version}" for name, version in results.versions.items()),
    )


def _chart(scaling: Scaling) -> Chart:
    drawn = {
        f"{name}: exponent {series.law.exponent:.2f}": (
            list(zip(series.sizes, series.milliseconds)),
            _fitted(series.law, series.sizes),
        )
        for name, series in scaling.series.items()
    }
    return power_laws(scaling.title, drawn, scaling.unit, f"ms, {scaling.cost}")


def _fitted(law: PowerLaw, sizes: Sequence[float]) -> list[tuple[float, float]]:
    ratio = max(sizes) / min(sizes)
    steps = (min(sizes) * ratio ** (number / CURVE) for number in range(CURVE + 1))
    return [(size, law.at(size)) for size in steps]
