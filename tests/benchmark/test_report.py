"""The files of a report stay what they are: those of two recorded bundles are read, and written alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page_reader import check_alone

from edgead.benchmark import read_report, to_table
from edgead.benchmark.comparison import write_report
from edgead.benchmark.operating import ALLOWED, operating_point
from edgead.benchmark.tables import operating_notes
from edgead.errors import DataError
from edgead.reports.build import report as build

RECORDED = Path(__file__).with_name("recorded")


def test_recorded_files_are_written_alike(tmp_path: Path) -> None:
    """One bundle breaks its promise, one promises nothing and has no masks; both have a mean."""
    report = read_report(RECORDED)
    write_report(replace(report, folder=tmp_path), ())
    for name in ("results.json", "results.csv"):
        assert (tmp_path / name).read_bytes() == (RECORDED / name).read_bytes(), name
    lines = (RECORDED / "table.txt").read_text().splitlines()
    warning = [line for line in lines if line.startswith("Warning:")]  # which the console shows
    assert to_table(report.table).splitlines() == [line for line in lines if line not in warning]
    assert len(warning) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema is 2"),
        ({"rows": 5}, "rows is 5"),
        ({"rows": [{}]}, r"no rows\[0\]\.bundle"),
        ({"conditions": {}}, r"no conditions\.rounds"),
    ],
)
def test_what_is_not_a_report_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    stored = json.loads((RECORDED / "results.json").read_text()) | change
    (tmp_path / "results.json").write_text(json.dumps(stored))
    with pytest.raises(DataError, match=message):
        read_report(tmp_path)
    with pytest.raises(DataError, match="is not a benchmark report"):
        read_report(tmp_path / "absent")


def test_the_limit_of_new_good_parts_is_that_of_every_row() -> None:
    """Of a bundle with equal scores fewer good images are rejected: its limit was shown for the others, too."""
    row = read_report(RECORDED).rows[0]
    rows = []
    for good in (np.minimum(np.arange(100.0), 90.0), np.arange(100.0)):
        points = tuple(operating_point(good, good + 50, allowed) for allowed in ALLOWED)
        rows.append(replace(row, decisions=replace(row.decisions, operating_points=points)))
    [note] = operating_notes(rows)
    assert "may reject up to 5.4 % and 11.3 % of new ones" in note


def test_the_plot_of_several_categories_shows_one_at_a_time(tmp_path: Path) -> None:
    """The front went through all of them: the easiest category beat the bundles of the others."""
    stored = json.loads((RECORDED / "results.json").read_text())
    stored["rows"] = [stored["rows"][0] | {"category": name, "bundle": "tiny"} for name in ("a", "b", "c", "d", "d")]
    (tmp_path / "results.json").write_text(json.dumps(stored))
    text = build([tmp_path]).read_text()
    page = check_alone(text)
    assert [mark["data-number"] for mark in page.all("g", "mark") if "hidden" not in mark] == ["3", "4"] * 2
    assert [each["value"] for each in page.all("option")] == ["a", "b", "c", "d"]
    assert [each["data-category"] for each in page.all("template")] == ["a", "b", "c", "d", "d"]
    assert "<h1>tiny on a, b, c and 1 more</h1>" in text
    latency = text[text.index("<h2>Latency</h2>") :]
    assert [latency.count(f"<td>{name}</td>") for name in "abcd"] == [1, 1, 1, 2]


def test_no_time_of_a_busy_machine_is_on_the_page(tmp_path: Path) -> None:
    """p50 was "unstable", and the times of its stages and their ratio stood beside it."""
    stored = json.loads((RECORDED / "results.json").read_text())
    row = stored["rows"][0]
    row["stability"] = {"drift": 0.0, "others": 0.5, "steal": 0.0, "unstable": "other processes took 50%"}
    stored["rows"] = [row]
    (tmp_path / "results.json").write_text(json.dumps(stored))
    text = build([tmp_path]).read_text()
    line = text[text.index("unstable</td>") :].split("</tr>")[0]
    assert line.count("–</td>") == 8
    assert f"{row['inspect_over_engine']:.3f}" not in text
