"""Manifests of format 1: all that were ever written are read, and the same content is written the same.

`format_1/manifests` holds real ones, one of each kind; they are never written again by newer code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgead import schema
from edgead.bundle import manifest_digest
from edgead.bundle.manifest import Manifest
from edgead.files import write_json
from edgead.schema import SchemaError

FOLDER = Path(__file__).parents[1] / "format_1" / "manifests"
KINDS = sorted(path.stem for path in FOLDER.glob("*.json"))
WRONG = [None, "x", "", -1, 10**30, 1e308, True, [], {}, [1, 2], {"a": 1}, "\ud800", [[[]]], float("nan"), float("inf")]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in parsed JSON; of a list, of its first entry."""
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value[:1])
    return [path, *(each for key, part in inner for each in places(part, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with one value replaced."""
    copied = json.loads(json.dumps(value))
    inner = copied
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return copied


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_written_again_byte_for_byte(kind: str, tmp_path: Path) -> None:
    file = FOLDER / f"{kind}.json"
    manifest = schema.read(Manifest, schema.load_json(file))
    write_json(tmp_path / "again.json", manifest.to_dict())
    assert (tmp_path / "again.json").read_text() == file.read_text()
    assert manifest.digest == manifest_digest(manifest.to_dict())


def test_every_kind_of_bundle_is_here() -> None:
    manifests = [schema.read(Manifest, schema.load_json(FOLDER / f"{kind}.json")) for kind in KINDS]
    assert {each.precision for each in manifests} == {"fp32", "fp16", "int8", "int8-fp16"}
    assert any(each.origin and each.origin.anomalib for each in manifests)
    assert any(each.origin and each.origin.resize for each in manifests)
    assert any(each.input.batch == 1 for each in manifests)
    assert any(each.pixels.depth_range for each in manifests)
    assert any(each.gate and each.gate.kept_in_float32 for each in manifests)
    assert any(each.gate and not each.gate.describe() for each in manifests)  # auto took float32


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_value_is_refused_with_its_place_or_makes_no_difference(kind: str) -> None:
    values = schema.load_json(FOLDER / f"{kind}.json")
    odd = []
    for path in places(values)[1:]:
        for wrong in WRONG:
            try:
                manifest = schema.read(Manifest, changed(values, path, wrong))
                manifest.input.check()
                json.dumps(manifest.to_dict(), allow_nan=False).encode()
            except SchemaError as error:
                if len(str(error)) > 200 or str(path[0]) not in str(error):
                    odd.append((path, wrong, str(error)))
    assert not odd


@pytest.mark.parametrize(
    ("path", "wrong", "said"),
    [
        (("input", "height"), "x", 'input.height is "x"; it must be a whole number'),
        (("input", "height"), 0, "input.height is 0; it must be from 1 to 16384"),
        (("input", "bit_depth"), True, "input.bit_depth is true; it must be a whole number"),
        (("threshold", "scores"), [0.5, "y"], 'threshold.scores[1] is "y"; it must be a finite number'),
        (("precision",), "int4", 'precision is "int4"; it must be one of fp32, fp16, int8, int8-fp16'),
        (("files",), [], "files is []; it must be a table"),
        (("name",), "\ud800", r'name is "\ud800"; it must be valid Unicode text'),
        (
            ("mask_threshold",),
            10**400,
            "mask_threshold is 1000000000000000000000000000000000000000…; it must be a finite number",
        ),
        (("config",), {"a": [1, float("nan")]}, "config.a[1] is NaN; it must be a finite number"),
        (("config",), {"é" * 5000: float("nan")}, "config." + "\\xe9" * 48 + "\\… is NaN; it must be a finite number"),
    ],
)
def test_what_was_found_and_what_is_allowed_is_said(path: tuple[str, ...], wrong: Any, said: str) -> None:
    values = schema.load_json(FOLDER / "fp32.json")
    with pytest.raises(SchemaError) as caught:
        schema.read(Manifest, changed(values, path, wrong))
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in json.loads((FOLDER / "fp32.json").read_text())
        if name not in ("origin", "calibration", "gate", "files", "digest")
    ],
)
def test_a_field_that_is_missing_is_named(name: str) -> None:
    values = schema.load_json(FOLDER / "fp32.json")
    del values[name]
    with pytest.raises(SchemaError, match=f"it has no {name}"):
        schema.read(Manifest, values)


def test_fields_of_a_newer_version_are_ignored() -> None:
    values = schema.load_json(FOLDER / "int8.json")
    form = next(iter(values["gate"]["forms"].values()))
    sections = [values[name] for name in ("input", "threshold", "parity", "data", "training", "calibration", "gate")]
    for table in [values, *sections, values["gate"]["budget"], form]:
        table["of_a_newer_version"] = {"a": 1}
    assert schema.read(Manifest, values) == schema.read(Manifest, schema.load_json(FOLDER / "int8.json"))


def test_a_file_that_is_too_large_or_no_json_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    for text in ("", "{", "[" * 100_000, "\ud800"):
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(SchemaError, match="not JSON"):
            schema.load_json(file)
    with file.open("wb") as stream:
        stream.truncate(schema.LARGEST_JSON + 1)
    with pytest.raises(SchemaError, match="larger than 64 MB"):
        schema.load_json(file)
