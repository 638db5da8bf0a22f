"""Axes, charts and fitted power laws."""

from __future__ import annotations

import numpy as np
import pytest

from edgead.reports.axes import fit_axis
from edgead.reports.charts import curves, histogram, power_laws
from edgead.reports.power_law import fit_power_law


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [(1.0, 1.0), (0.2, 0.3), (1e-6, 1e5), (3.0, 80.0), (97.1, 100.0)])
def test_ticks_lie_on_the_axis_at_their_values(values: tuple[float, float], log: bool) -> None:
    axis = fit_axis("x", values, 10, 410, log=log)
    places = [place for place, _ in axis.ticks]
    assert 1 <= len(places) <= 12
    assert all(10 <= place <= 410 for place in places)
    for place, text in axis.ticks:
        assert axis.place(float(text.replace(",", ""))) == pytest.approx(place, abs=0.5)


def test_a_histogram_counts_every_value() -> None:
    values = [0.1, 0.1, 0.2, 0.9, float("nan")]
    chart = histogram("t", {"good": values}, "score", {"threshold": 1.5})
    heights = [bar.height for bar in chart.bars]
    assert sum(heights) / min(heights) == pytest.approx(4, abs=0.05)
    assert chart.rules[0].x > max(bar.x for bar in chart.bars)


@pytest.mark.parametrize(("most", "ticks"), [(1, "0 1"), (3, "0 1 2 3"), (11, "0 5 10"), (60, "0 20 40 60")])
def test_a_histogram_counts_in_whole_numbers(most: int, ticks: str) -> None:
    chart = histogram("t", {"good": [0.1] * most + [0.9]}, "score", {})
    assert [text for _, text in chart.y.ticks] == ticks.split()


def test_curves_have_a_line_for_each_loss_and_few_points() -> None:
    series = {name: [(float(n), factor / n) for n in range(1, 5001)] for name, factor in (("total", 2), ("l2", 1))}
    chart = curves("t", series, "step", "loss")
    assert chart.y.log
    assert [line.name for line in chart.lines] == ["total", "l2"]
    assert all(300 < len(line.points.split()) <= 400 for line in chart.lines)
    assert not curves("t", {"nll": [(1.0, -2.0), (2.0, -3.0)]}, "step", "loss").y.log


def test_a_known_power_law_is_found() -> None:
    exact = fit_power_law([(size, 3 * size**1.7) for size in (1, 2, 4, 8)])
    assert (exact.exponent, exact.factor) == (pytest.approx(1.7), pytest.approx(3))
    assert exact.interval == pytest.approx((1.7, 1.7))
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        noisy = [(size, 3 * size**2 * np.exp(rng.normal(0, 0.1))) for size in (1, 2, 4, 8, 16)]
        low, high = fit_power_law(noisy).interval or (0, 0)
        inside += low <= 2 <= high
    assert 0.92 < inside / 400 < 0.98
    assert fit_power_law([(1, 1), (2, 4)]).interval is None
    with pytest.raises(ValueError, match="two different sizes"):
        fit_power_law([(2, 1), (2, 2)])
    chart = power_laws("t", {"a": ([(1, 3.0), (2, 6.0)], [(1, 3.0), (2, 6.0)])}, "x", "ms")
    assert len(chart.dots) == 2


@pytest.mark.parametrize(
    "scores", [(1000.001, 1000.0035), (123456.1, 123456.5), (0.9999991, 0.9999995), (1e-14, 3e-14)]
)
def test_ticks_of_a_narrow_range_are_told_apart(scores: tuple[float, float]) -> None:
    """Six ticks were all called 1,000; those of tiny scores were all 0, outside the figure."""
    axis = histogram("", {"good": scores}, "score", {}).x
    texts = [text for _, text in axis.ticks]
    assert len(set(texts)) == len(texts) > 1
    for place, text in axis.ticks:
        assert axis.start <= place <= axis.end
        assert place == pytest.approx(axis.place(float(text.replace(",", ""))), abs=0.02)
    assert 10 * max(map(len, texts)) * len(texts) <= axis.end - axis.start  # none overlaps the next
