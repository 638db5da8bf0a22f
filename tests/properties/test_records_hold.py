"""Whatever a record may hold, its file gives it back."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from settings import some

from edgead import schema
from edgead.bundle import manifest_digest
from edgead.bundle.manifest import Manifest
from edgead.plan.profile import Profile
from edgead.reports.pictures import Pictures
from edgead.runtime.record import RecordedDrop, RecordedResult, RecordingFacts
from edgead.schema import OneOf, PathText, Within
from edgead.sweep.store import Record

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Return everything that a field of this type may hold, as `edgead.schema` has it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _limited(*arguments)
    if origin in (typing.Union, types.UnionType):
        return st.none() | values_of(next(each for each in arguments if each is not type(None)))
    if origin in (dict,) or kind is dict:
        return st.dictionaries(TEXT, values_of(arguments[1] if arguments else Any), max_size=2)
    if origin in (tuple, list):
        if origin is tuple and arguments[-1] is not ...:
            return st.tuples(*map(values_of, arguments))
        return st.lists(values_of(arguments[0]), max_size=2).map(origin)
    if dataclasses.is_dataclass(kind):
        return _records(kind)
    plain = {int: st.integers(-(2**63), 2**63), str: TEXT, bool: st.booleans(), Any: JSON}
    return plain.get(kind, st.floats(allow_nan=False, allow_infinity=False))


def _limited(kind: Any, limit: Any) -> st.SearchStrategy[Any]:
    if isinstance(limit, OneOf):
        return st.sampled_from(limit.values)
    if isinstance(limit, PathText):
        return TEXT.filter(limit.allows)
    assert isinstance(limit, Within)
    low, high = (None if math.isinf(each) else each for each in (limit.low, limit.high))
    if kind is int:
        return st.integers(None if low is None else math.ceil(low), 2**63 if high is None else math.floor(high))
    return st.floats(low, high, allow_nan=False, allow_infinity=False, exclude_min=limit.above)


def _records(kind: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {field.name: values_of(hints[field.name]) for field in dataclasses.fields(kind) if field.init}
    return st.builds(lambda **values: kind(**values), **fields)


@pytest.mark.parametrize("kind", [Manifest, Profile, Record, Pictures, RecordingFacts, RecordedResult, RecordedDrop])
def test_a_record_is_read_as_it_was_written(kind: Any) -> None:
    @given(values_of(kind))
    @some
    def check(record: Any) -> None:
        written = schema.write(record)
        text = json.dumps(written, allow_nan=False)
        again = schema.read(kind, schema.parse_json(text))
        assert again == record
        assert schema.write(again) == written
        assert manifest_digest(written) == manifest_digest(json.loads(text))
        assert schema.read(kind, {**written, "of a newer version": {"a": 1}}) == record

    check()


@given(JSON, JSON)
@some
def test_two_contents_have_two_digests(first: Any, second: Any) -> None:
    digests = [manifest_digest({"a": value}) for value in (first, second)]
    assert (digests[0] == digests[1]) == (json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True))


@given(JSON)
@some
def test_anything_else_is_refused_with_its_place_and_no_other_error(value: Any) -> None:
    for kind in (Manifest, Profile, RecordedResult, list[str], dict[str, int], tuple[int, int]):
        with pytest.raises(schema.SchemaError) as caught:
            schema.read(kind, {"x": [value]})
        assert len(str(caught.value)) < 500
