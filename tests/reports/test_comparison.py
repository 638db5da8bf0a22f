"""Latency against AUROC: points, their front, the page and the picture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from page_reader import HOSTILE, check_alone

from edgead import schema
from edgead.cli import cli
from edgead.decision import Threshold
from edgead.errors import ConfigError, DataError
from edgead.reports.build import report
from edgead.reports.comparison import compare
from edgead.reports.page import describe_device, when
from edgead.reports.pareto import draw
from edgead.reports.points import ALL, PEER, PUBLISHED, Point, front, read_points
from edgead.schema import SchemaError

RECORDED = Path(__file__).parents[1] / "benchmark" / "recorded"


def row(name: str, p50: float, auroc: float, **others: Any) -> dict[str, Any]:
    latency = {"p50": p50, "p90": p50 * 1.1, "p99": p50 * 1.5}
    values = {"method": "draem", "preset": "nano", "category": "screw", "engine": "openvino-cpu", "precision": "fp32"}
    return {"bundle": name, **values, "size": [64, 64], "image_auroc": auroc, "latency_ms": latency} | others


def write(path: Path, *rows: dict[str, Any], **others: Any) -> Path:
    machine = {"cpu": "AMD EPYC", "cores": 2, "usable_cores": 2, "accelerator": None}
    path.write_text(json.dumps({"created": "2026-11-27T10:00:00+00:00", "machine": machine, "rows": rows} | others))
    return path


def test_the_front_holds_what_nothing_beats() -> None:
    found = [Point(str(n), p50=p50, auroc=auroc) for n, (p50, auroc) in enumerate(
        [(10, 0.9), (5, 0.8), (20, 0.95), (12, 0.85), (20, 0.94), (5, 0.7), (30, 0.95)]
    )]  # fmt: skip
    published = Point("other", p50=1, auroc=0.99, kind=PUBLISHED)
    assert [point.name for point in front([*found, published, Point("none", p50=1)])] == ["1", "0", "2"]


def test_a_time_of_a_busy_machine_does_not_make_the_front(tmp_path: Path) -> None:
    """The table said unstable in place of the time, and the plot drew the front through it."""
    busy = {"stability": {"unstable": "other processes took 40 % of the processor time"}}
    file = write(tmp_path / "a.json", row("quiet", 10, 0.8), row("busy", 5, 0.9, **busy))
    assert [point.name for point in front(read_points([file]))] == ["quiet"]
    page = report([file], out=tmp_path / "page.html").read_text()
    assert page.count(">unstable</td>") == 1
    picture = (tmp_path / "pareto.svg").read_text()
    assert (picture.count('class="mark measured counts'), picture.count('class="mark measured unstable')) == (1, 1)


def test_a_mean_over_categories_has_no_figure_that_one_of_them_lacks(tmp_path: Path) -> None:
    rows = [row("a", 10, 0.9, category=name, **found) for name, found in (("nut", {"aupro": 0.8}), ("bolt", {}))]
    [mean] = [point for point in compare([write(tmp_path / "a.json", *rows)]).points if point.category == ALL][:1]
    assert (mean.auroc, mean.p50, mean.aupro) == (0.9, 10, None)


def test_points_of_benchmarks_sweeps_and_peers(tmp_path: Path) -> None:
    measured = write(tmp_path / "a.json", row("a", 10, 0.9, image_auroc_interval=[0.85, 0.94]))
    peer = write(
        tmp_path / "peers.json",
        {
            "name": "PatchCore",
            "latency_ms": {"p50": 50},
            "image_auroc": 0.98,
            "device": "some GPU",
            "category": "screw",
        },
        {"name": "slow", "reason": "out of memory"},
    )
    figures = row("x", 20, 0.8)
    cells = [
        {**{name: figures[name] for name in ("method", "preset", "category", "precision")}, "label": "L", "seed": seed}
        | {"state": "done", "train_seconds": 600, "figures": figures | {"image_auroc": auroc, "engine": "openvino-cpu"}}
        for seed, auroc in enumerate((0.8, 0.9))
    ]
    sweep = write(tmp_path / "sweep.json", *cells, file="s.toml")
    one, two, failed, both = read_points([measured, peer, sweep, measured])
    assert (one.name, one.p50, one.auroc, one.interval, one.device) == ("a", 10, 0.9, (0.85, 0.94), "AMD EPYC, 2 cores")
    assert (two.kind, two.device, two.p50, two.method) == (PEER, "some GPU", 50, "PatchCore")
    assert (failed.plotted, failed.unusable) == (False, "out of memory")
    assert (both.seeds, both.auroc) == (2, pytest.approx(0.85))
    assert both.spread == pytest.approx(0.0707, abs=1e-4)
    assert dict(both.conditions)["training"] == "10 min"


def test_every_row_that_could_not_be_measured_is_shown(tmp_path: Path) -> None:
    """Of one bundle that two engines could not run, only the first was."""
    failed = [{"bundle": "a", "engine": engine, "reason": "not installed"} for engine in ("tensorrt", "openvino")]
    measured = write(tmp_path / "a.json", row("a", 10, 0.9), failed=failed)
    cells = [{**row("L", 1, 1), "label": "L", "seed": seed, "state": "failed", "figures": None} for seed in (0, 1)]
    sweep = write(tmp_path / "sweep.json", *cells, file="s.toml")
    points = read_points([measured, sweep, measured])
    assert [point.engine for point in points if point.unusable] == [
        "tensorrt",
        "openvino",
        "openvino-cpu",
        "openvino-cpu",
    ]


def test_means_only_over_the_same_categories(tmp_path: Path) -> None:
    rows = [row("n", 10, 0.8), row("n", 20, 0.9, category="tile"), row("m", 5, 0.5, method="aand")]
    found = [point for point in compare([write(tmp_path / "a.json", *rows)]).points if point.category == ALL]
    assert [(point.name, point.auroc, point.p50) for point in found[:-1]] == [("n", pytest.approx(0.85), 15)]
    assert found[-1].kind == PUBLISHED


def test_the_page_shows_every_point_and_escapes_names(tmp_path: Path) -> None:
    rows = [row("fast", 5, 0.8), row(HOSTILE, 50, 0.95, method=HOSTILE, category=HOSTILE), row("slow", 80, 0.7)]
    page = report([write(tmp_path / "a.json", *rows)], out=tmp_path / "page.html")
    text = page.read_text()
    parsed = check_alone(text)
    assert HOSTILE not in text
    marks = parsed.all("g", "mark")
    assert len(marks) == 2 * 4  # two sizes of the plot; three rows and the published point
    assert {mark["data-number"] for mark in marks} == {"0", "1", "2", "3"}
    shown = {mark["data-number"] for mark in marks if "hidden" not in mark}
    assert shown == {"0", "2", "3"}  # the category with most points, and the published one
    assert all(mark["tabindex"] == "0" for mark in marks)
    assert [each["data-category"] for each in parsed.all("template")] == ["screw", HOSTILE, "screw", "*"]
    assert text.count("published elsewhere, not measured here") >= 3
    assert "27 Nov 2026, 10:00 UTC" in text
    picture = (tmp_path / "pareto.svg").read_text()
    assert picture.count('class="mark') == 3
    assert "http" not in picture.replace('xmlns="http://www.w3.org/2000/svg"', "")


def test_times_of_several_machines_are_shown_in_one_zone(tmp_path: Path) -> None:
    """That of a file with an offset stood as 17:18, without a word, beside times in UTC."""
    file = write(tmp_path / "a.json", row("a", 5, 0.8), created="2026-11-27T17:18:00+02:00")
    assert "27 Nov 2026, 15:18 UTC" in report([file], out=tmp_path / "page.html").read_text()


def test_a_time_that_utc_does_not_have_is_shown_as_it_is() -> None:
    assert when("0001-01-01T00:00:00+02:00") == "0001-01-01T00:00:00+02:00"


def test_marks_are_where_the_figures_say(tmp_path: Path) -> None:
    points = [Point("a", p50=10, auroc=0.8), Point("b", p50=100, auroc=0.9), Point("c", p50=1000, auroc=1.0)]
    plot = draw(points)
    (ax, ay), (bx, by), (cx, cy) = ((mark.x, mark.y) for mark in plot.marks)
    assert bx - ax == pytest.approx(cx - bx, abs=0.1)  # equal ratios of latency are equally long
    assert ay - by == pytest.approx(by - cy, abs=0.1)
    assert ay > by > cy
    assert [tuple(map(float, each.split(","))) for each in plot.front.split()][::2] == [(ax, ay), (bx, by), (cx, cy)]


def test_labels_name_the_engine_where_it_makes_the_difference_and_avoid_the_front() -> None:
    both = [
        Point(name, "draem", "nano", engine=name, p50=p50, auroc=0.9) for name, p50 in (("openvino", 2), ("ort", 20))
    ]
    other = Point("c", "aand", "nano", engine="ort", p50=60, auroc=0.8)
    plot = draw([*both, other])
    assert [mark.label for mark in plot.marks] == ["draem nano, openvino", "draem nano, ort", "aand nano"]
    front_y = float(plot.front.split()[0].split(",")[1])
    on_front = [mark for mark in plot.marks if mark.y == front_y]
    assert len(on_front) == 2
    assert all(mark.label_y <= front_y - 3 or mark.label_y >= front_y + 10 for mark in on_front)


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    for content, message in (
        ("[]", "JSON object"),
        ("{}", "no rows"),
        ("{", "cannot be read"),
        ('{"rows": []}', "no rows"),
    ):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(DataError, match=message):
            report([tmp_path / "x.json"])
    with pytest.raises(DataError, match="does not exist"):
        report([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="nothing to report on"):
        report([tmp_path / "empty"])
    with pytest.raises(ConfigError, match="--out"):
        report([RECORDED], out=tmp_path / "x.html")
    done = CliRunner().invoke(cli, ["report", str(tmp_path / "empty")])
    assert isinstance(done.exception, DataError)


def test_a_page_replaces_only_a_page(tmp_path: Path) -> None:
    results = [write(tmp_path / f"{name}.json", row(name, 10, 0.9)) for name in "ab"]
    before = results[0].read_bytes()
    with pytest.raises(ConfigError, match=r"a\.json exists already, is not an HTML page and was kept"):
        report(results, out=results[0])
    assert results[0].read_bytes() == before
    page = report(results, out=tmp_path / "x.html")
    assert report(results[:1], out=page) == page


def test_a_damaged_row_is_an_error_with_the_files_name(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.json", row("a", 10, 0.9, latency_ms=[1]))
    with pytest.raises(DataError, match=r"bad\.json"):
        report([path])


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("latency_ms", {"p50": 1e308}, "latency_ms.p50 is 1e+308"),
        ("latency_ms", {"p50": 3.0, "p99": -1}, "latency_ms.p99 is -1"),
        ("latency_ms", {"p50": 0}, "latency_ms.p50 is 0"),
        ("image_auroc", 1.2, "image_auroc is 1.2; it must be from 0 to 1"),
        ("image_auroc_interval", [-0.5, 1], r"image_auroc_interval\[0\] is -0.5"),
        ("aupro", "high", 'aupro is "high"'),
    ],
)
def test_figures_that_cannot_be_are_refused_by_name(tmp_path: Path, field: str, value: Any, place: str) -> None:
    wrong = row("b", 5, 0.8, **{field: value})
    path = write(tmp_path / "bad.json", row("a", 10, 0.9), wrong)
    with pytest.raises(DataError, match=r"bad\.json cannot be read: rows\[1\]\." + place.replace("+", r"\+")):
        report([path])
    cell = {"label": "b", "figures": {"latency_ms": {"p50": 3.0}, "image_auroc": 0.9, field: value}}
    sweep = write(tmp_path / "sweep.json", cell, file="s.toml")
    with pytest.raises(DataError, match=r"rows\[0\]\.figures\." + place.replace("+", r"\+")):
        report([sweep])


def test_figures_at_the_ends_are_drawn(tmp_path: Path) -> None:
    """From a nanosecond to years, and what rounding makes of 1."""
    path = write(tmp_path / "ends.json", row("a", 1e-6, 1 + 1e-12), row("b", 1e11, 0.0))
    plot = draw(read_points([path]))
    assert len(plot.marks) == 2
    assert report([path], out=tmp_path / "ends.html").is_file()


def test_a_threshold_of_too_many_images_is_refused_at_once() -> None:
    """Its promise would be computed for minutes."""
    values = {"value": 0.2, "normals": 1 << 31, "false_reject_bound": 0.5, "requested_bound": 0.01}
    with pytest.raises(SchemaError, match="normals is 2147483648; it must be from 0 to 1000000"):
        schema.read(Threshold, values)
    assert schema.read(Threshold, {**values, "normals": 1_000_000}).false_reject_limit < 0.0102


def test_a_recorded_benchmark_is_rebuilt(tmp_path: Path) -> None:
    stored = json.loads((RECORDED / "results.json").read_text())
    stored["rows"][0]["bundle"] = HOSTILE
    (tmp_path / "results.json").write_text(json.dumps(stored))
    text = report([tmp_path]).read_text()
    check_alone(text)
    assert HOSTILE not in text
    assert text.index("Decisions at the bundle") < text.index("<h2>Accuracy") < text.index("<h2>Latency</h2>")
    assert re.search(r"100\.0 \(40–100\)", text)  # rejected good parts, with their interval
    assert "more than the threshold promises" in text


@pytest.mark.parametrize(
    ("machine", "described"),
    [
        ({"cpu": "Intel(R) Xeon(R) Gold", "usable_cores": 1, "cores": 2}, "Intel Xeon Gold, 1 core"),
        (
            {"cpu": "AMD EPYC", "cores": 16, "accelerator": "NVIDIA H200, 570.1\nother"},
            "AMD EPYC, 16 cores, NVIDIA H200",
        ),
        ({"accelerator": "Orin, 540.4"}, "unknown processor, Orin"),
        ({}, "unknown"),
    ],
)
def test_a_device_is_named_by_processor_and_accelerator(machine: dict[str, object], described: str) -> None:
    """With the accelerator alone, two machines with the same one were taken for one, and a CPU's time for the GPU's."""
    assert describe_device(machine) == described
