"""The files of a report stay what they are: those of two recorded bundles are read, and written alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgead.benchmark import read_report, to_table
from edgead.benchmark.comparison import write_report
from edgead.errors import DataError

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
