"""Scoring tables of images with a bundle."""

from __future__ import annotations

import json
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from level_bundle import frame_of, make_level_bundle

import edgead
from edgead.archive import COLUMNS, SPARK_SCHEMA, Scorer
from edgead.bundle import Bundle
from edgead.errors import ConfigError
from edgead.images import encode_png

pandas = pytest.importorskip("pandas", reason="pandas is not installed")


@pytest.fixture(scope="module")
def images(parts: Path) -> list[str]:
    return sorted(str(path) for path in (parts / "test").rglob("*.png"))


def test_a_row_in_is_a_row_out(bundle: Bundle, images: list[str], tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(Path(images[0]).read_bytes()[:200])
    (tmp_path / "point.png").write_bytes(encode_png(np.zeros((1, 1, 3), np.uint8)))
    paths = [images[0], *(str(tmp_path / f"{name}.png") for name in ("cut", "absent")), images[1]]
    paths.append(str(tmp_path / "point.png"))
    table = pandas.DataFrame({"path": paths, "other": 1}, index=[5, 3, 9, 1, 7])
    rows = Scorer(bundle.path, engine="onnxruntime")(table)
    assert list(rows.columns) == list(COLUMNS)
    assert list(rows.index) == [5, 3, 9, 1, 7]
    assert list(rows["path"]) == paths
    assert list(rows["verdict"][[3, 9]]) == ["UNKNOWN", "UNKNOWN"]
    assert "absent.png" in rows["reason"][9]
    assert rows["cause"].tolist() == [None, "unreadable", "unreadable", None, None]
    assert [each is None for each in rows["untrained"]] == [True, True, True, True, False]
    assert rows["untrained"][7].startswith("1×1 is less than half")
    assert math.isnan(rows["score"][3])
    assert set(rows["verdict"][[5, 1, 7]]) <= {"PASS", "FAIL"}


@pytest.mark.parametrize("batch", [1, 4])
def test_it_decides_as_an_inspector_does(bundle: Bundle, images: list[str], batch: int) -> None:
    from edgead.images import read_frame

    rows = Scorer(bundle.path, engine="onnxruntime", batch=batch)(pandas.DataFrame({"path": images}))
    with edgead.load(bundle.path, engine="onnxruntime", batch=batch) as inspector:
        results = [inspector.inspect(read_frame(path)) for path in images]
    assert rows["score"].tolist() == pytest.approx([result.score for result in results], rel=1e-5)
    assert rows["verdict"].tolist() == [result.verdict.value for result in results]


def test_contents_are_decided_on_as_files_are(bundle: Bundle, images: list[str]) -> None:
    contents = [Path(path).read_bytes() for path in images]
    scorer = Scorer(bundle.path, engine="onnxruntime")
    files = scorer(pandas.DataFrame({"path": images}))
    table = pandas.DataFrame({"bytes": [*contents, b"no image"]})
    rows = scorer(table)
    assert rows["score"].tolist()[:-1] == files["score"].tolist()
    assert rows["verdict"].tolist()[-1] == "UNKNOWN"
    named = scorer(pandas.DataFrame({"path": ["s3://a/b.png"], "bytes": contents[:1]}))
    assert named["path"].tolist() == ["s3://a/b.png"]
    assert named["score"][0] == files["score"][0]


def test_boxes_are_json(bundle: Bundle, images: list[str]) -> None:
    table = pandas.DataFrame({"path": images[:1]})
    [boxes] = Scorer(bundle.path, engine="onnxruntime", threshold=-1e9, boxes=True)(table)["boxes"]
    assert set(json.loads(boxes)[0]) >= {"x", "y", "width", "height"}
    assert Scorer(bundle.path, engine="onnxruntime")(table)["boxes"].tolist() == [None]


def test_tables_pass_one_by_one(bundle: Bundle, images: list[str]) -> None:
    """As Spark calls it: an iterator in, an iterator out, after the function was sent to another process."""
    function = pickle.loads(pickle.dumps(Scorer(bundle.path, engine="onnxruntime").map_in_pandas))
    tables = [
        pandas.DataFrame({"path": images[:2]}),
        pandas.DataFrame({"path": []}),
        pandas.DataFrame({"path": images[2:]}),
    ]
    rows = list(function(iter(tables)))
    assert [len(each) for each in rows] == [2, 0, len(images) - 2]
    assert [list(each.columns) for each in rows] == [list(COLUMNS)] * 3
    assert pandas.concat(rows)["path"].tolist() == images


def test_a_scorer_in_use_can_be_sent(bundle: Bundle, images: list[str]) -> None:
    scorer = Scorer(bundle.path, engine="onnxruntime")
    table = pandas.DataFrame({"path": images[:1]})
    rows = scorer(table)
    assert pickle.loads(pickle.dumps(scorer))(table).equals(rows)
    scorer.close()
    assert scorer(table).equals(rows)


def test_the_schema_names_the_columns() -> None:
    assert [part.split()[0] for part in SPARK_SCHEMA.split(", ")] == list(COLUMNS)


def test_a_table_without_images_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="batch must be a whole number"):
        Scorer("any.edgead", batch="4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"no column 'path' or 'bytes'\. Available: image"):
        Scorer(bundle.path)(pandas.DataFrame({"image": ["a"]}))


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    made = make_level_bundle(tmp_path_factory.mktemp("scorer") / "level.edgead")
    return Scorer(made.path, engine="onnxruntime", batch=2)


GOOD = encode_png(frame_of(100))


@pytest.mark.parametrize("content", [None, math.nan, pandas.NA, "text", 5, 2.5, b"", []])
def test_a_row_without_bytes_is_unknown_and_costs_no_other_row(scorer: Scorer, content: object) -> None:
    table = pandas.DataFrame({"bytes": pandas.Series([GOOD, content, np.frombuffer(GOOD, np.uint8)], dtype=object)})
    rows = scorer(table)
    assert rows["verdict"].tolist() == ["PASS", "UNKNOWN", "PASS"]
    assert rows["cause"][1] == "unreadable"


@pytest.mark.parametrize("path", [None, math.nan, "", 5, "a\0b.png", "pipe.png"])
def test_a_row_without_a_readable_path_is_unknown_and_costs_no_other_row(
    scorer: Scorer, path: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")  # a writer would be waited for
    Path("a.png").write_bytes(GOOD)
    rows = scorer(pandas.DataFrame({"path": pandas.Series(["a.png", path], dtype=object)}))
    assert rows["verdict"].tolist() == ["PASS", "UNKNOWN"]
    assert rows["cause"][1] == "unreadable"


def test_a_row_without_bytes_is_read_by_its_path(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(GOOD)
    table = pandas.DataFrame({"path": [str(tmp_path / "a.png"), "b"], "bytes": [math.nan, GOOD]})
    assert scorer(table)["verdict"].tolist() == ["PASS", "PASS"]
