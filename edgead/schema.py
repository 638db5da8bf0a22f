"""Read JSON into frozen dataclasses and write it back, for every file of edgead. Why no library: docs/adr/0028.

A dataclass is the schema. Its field types state the allowed values: ``int``, ``float`` (finite), ``str``, ``bool``,
``X | None``, ``tuple[X, ...]``, ``tuple[X, Y]``, ``list[X]``, ``dict[str, X]``, another dataclass, ``Any`` (any JSON),
``Annotated[X, Within(low, high)]`` and ``Annotated[str, OneOf(values)]``. A field with a default may be missing.
Unknown fields are ignored: a newer version of the same format may have written them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import types
import typing
from pathlib import Path
from typing import Any, TypeVar, Union

from edgead.errors import ConfigError
from edgead.files import is_path, stays_below

T = TypeVar("T")
LARGEST_NUMBER = 1 << 64
"""Whole numbers must be smaller."""
LARGEST_JSON = 64 << 20
"""Bytes of a JSON file."""
DEEPEST = 100
"""Deepest nesting of tables and lists."""
SHOWN_CHARACTERS, SHOWN_PLACE = 40, 200
"""Characters of a wrong value in an error, and of its place: names in a file may be of any length."""


class SchemaError(ValueError):
    """A value violates the schema: its place, the value, and what is allowed.

    Attributes:
        place: names of the field and of those that hold it, with dots between; empty if it is not known.
    """

    def __init__(self, text: str, place: str = "") -> None:
        super().__init__(text)
        self.place = place


@dataclasses.dataclass(frozen=True)
class Within:
    """The allowed range of a number. Both limits are included; with `above`, the lower one is not."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def allows(self, value: float) -> bool:
        """Tell whether a number is allowed."""
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        low, high = (f"{limit}" if isinstance(limit, int) else f"{limit:g}" for limit in (self.low, self.high))
        if self.above:
            return f"above {low}" + (f" and at most {high}" if self.high < LARGEST_NUMBER else "")
        return f"at least {low}" if self.high == math.inf else f"from {low} to {high}"


@dataclasses.dataclass(frozen=True)
class OneOf:
    """The allowed texts."""

    values: tuple[str, ...]

    def allows(self, value: str) -> bool:
        """Tell whether a text is allowed."""
        return value in self.values

    def __str__(self) -> str:
        return f"one of {', '.join(value or 'nothing' for value in self.values)}"


@dataclasses.dataclass(frozen=True)
class PathText:
    """The texts that can be a path here.

    Attributes:
        one_name: of a file or folder, without those above it.
    """

    one_name: bool = False

    def allows(self, value: str) -> bool:
        """Tell whether a text is allowed."""
        return stays_below(value) and value == Path(value).name != "" if self.one_name else is_path(value)

    def __str__(self) -> str:
        return "the name of a folder" if self.one_name else "a path: without null characters, and not too long"


FilePath = typing.Annotated[str, PathText()]
FolderName = typing.Annotated[str, PathText(one_name=True)]
Share = typing.Annotated[float, Within(0, 1)]
Computed = typing.Annotated[float, Within(0, 1 + 1e-9)]
"""A share that was computed, which rounding may lift a little above 1."""
Milliseconds = typing.Annotated[float, Within(0, 1e12)]
Count = typing.Annotated[int, Within(0)]
LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127
"""Largest finite number in float32."""
Float32 = typing.Annotated[float, Within(-LARGEST_FLOAT32, LARGEST_FLOAT32)]
NonNegative = typing.Annotated[float, Within(0, LARGEST_FLOAT32)]


def stored_as(key: str, default: Any = dataclasses.MISSING) -> Any:
    """Return a field with the name `key` in JSON."""
    return dataclasses.field(default=default, metadata={"key": key})


def left_out(key: str = "") -> Any:
    """Return a field that is None by default and not written if None. `key` is its name in JSON, if different."""
    return dataclasses.field(default=None, metadata={"absent": None, "key": key})


def transient() -> Any:
    """Return a field that is None by default, is neither read nor written, and does not count in comparisons."""
    return dataclasses.field(default=None, compare=False, metadata={"transient": True})


def section() -> Any:
    """Return a field for a dataclass that is None by default; None is written as ``{}``."""
    return dataclasses.field(default=None, metadata={"absent": {}})


def _stored_fields(kind: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if not field.metadata.get("transient")]


def _key(field: dataclasses.Field[Any]) -> str:
    return field.metadata.get("key") or field.name


def load_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        OSError: it cannot be read.
        SchemaError: it is larger than `LARGEST_JSON`, or `parse_json` refuses it.
    """
    return parse_json(read_json_file(path))


def read_json_file(path: Path) -> bytes:
    """Return the bytes of a JSON file.

    Raises:
        OSError: it cannot be read.
        SchemaError: it is larger than `LARGEST_JSON`, or no file but a pipe or a device, which may never end.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise SchemaError("it is a pipe or a device, not a file")
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        text = stream.read(min(size, LARGEST_JSON) + 1)  # Python takes the memory for all that is asked for
    if len(text) > LARGEST_JSON:
        raise SchemaError(f"it is larger than {LARGEST_JSON >> 20} MB")
    return text


def parse_json(text: bytes | str) -> Any:
    """Parse JSON. Its numbers fit a float, and it is nested no deeper than `DEEPEST`.

    Raises:
        SchemaError: it is not JSON, or beyond these limits.
    """
    try:
        value = json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError) as error:  # ValueError: also not UTF-8
        raise SchemaError(f"it is not JSON: {error}") from error
    refuse_deep(value)
    return value


def _whole(digits: str) -> int:
    if math.isinf(float(digits)):
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def refuse_deep(value: Any) -> None:
    """Refuse parsed JSON or TOML that is nested deeper than `DEEPEST`: what reads it further calls itself.

    Raises:
        SchemaError: it is.
    """
    level = [value]
    for _ in range(DEEPEST):
        tables = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list)))
        level = [inner for table in tables for inner in table]
        if not level:
            return
    raise SchemaError(f"it is nested more than {DEEPEST} deep")


def read(kind: type[T], value: Any) -> T:
    """Convert parsed JSON to a dataclass.

    Raises:
        SchemaError: with the first wrong field.
    """
    return typing.cast(T, _read(kind, value, ""))


def check(options: Any, place: str = "") -> None:
    """Check the fields of a dataclass with a range or a choice (`Within`, `OneOf`).

    Args:
        options: the dataclass.
        place: prefix of the field's name in errors.

    Raises:
        ConfigError: with the first wrong field.
    """
    for name, hint in _hints(typing.cast(type, type(options))).items():
        if "Annotated" in str(hint):
            try:
                _read(hint, getattr(options, name), place + name)
            except SchemaError as error:
                raise ConfigError(f"{error}.") from error


def write(value: Any) -> Any:
    """Convert a dataclass to JSON values; `read` converts them back."""
    if dataclasses.is_dataclass(value):
        found = {}
        for field in _stored_fields(type(value)):
            each, absent = getattr(value, field.name), field.metadata.get("absent", ...)
            if each is None and absent is None:
                continue
            found[_key(field)] = absent if each is None and absent is not ... else write(each)
        return found
    if isinstance(value, dict):
        return {name: write(each) for name, each in value.items()}
    return [write(each) for each in value] if isinstance(value, (list, tuple)) else value


def find_unknown(kind: Any, value: Any, place: tuple[str, ...] = ()) -> tuple[tuple[str, ...], list[str]] | None:
    """Return the first field that a dataclass does not have, as its names from the top, and those it has.

    Args:
        kind: the dataclass.
        value: parsed JSON or TOML.
        place: of the value.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return find_unknown(next(each for each in arguments if each is not type(None)), value, place)
    if not isinstance(value, dict):
        return None
    if origin is dict:
        inner = [(name, arguments[1], each) for name, each in value.items()]
    elif dataclasses.is_dataclass(kind):
        names = {_key(field): field.name for field in _stored_fields(kind)}
        if wrong := next((name for name in value if name not in names), None):
            return (*place, wrong), list(names)
        hints = _hints(typing.cast(type, kind))
        inner = [(name, hints[names[name]], each) for name, each in value.items()]
    else:
        return None
    found = (find_unknown(each_kind, each, (*place, name)) for name, each_kind, each in inner)
    return next((one for one in found if one), None)


def _read(kind: Any, value: Any, place: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        found = _read(arguments[0], value, place)
        return found if arguments[1].allows(found) else _refuse(place, value, str(arguments[1]))
    if origin in (Union, types.UnionType):
        inner = next(each for each in arguments if each is not type(None))
        empty = value is None or (value == {} and dataclasses.is_dataclass(inner))
        return None if empty else _read(inner, value, place)
    if origin is dict or kind is dict:
        return _read_table(arguments[1] if arguments else Any, value, place)
    if origin in (tuple, list):
        return _read_list(origin, arguments, value, place)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(typing.cast(type, kind), value, place)
    return _read_any(value, place) if kind is Any else _READ[kind](value, place)


def _read_dataclass(kind: type, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        _refuse(place, value, "a table of fields")
    hints, found = _hints(kind), {}
    for field in _stored_fields(kind):
        key = _key(field)
        inner = f"{place}.{key}" if place else key
        if key in value:
            found[field.name] = _read(hints[field.name], value[key], inner)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SchemaError(f"it has no {_shorten(ascii(inner)[1:-1], SHOWN_PLACE)}", place)
    return kind(**found)


@functools.cache
def _hints(kind: type) -> dict[str, object]:
    return typing.get_type_hints(kind, include_extras=True)


def _read_table(kind: Any, value: Any, place: str) -> dict[str, object]:
    if not isinstance(value, dict):
        _refuse(place, value, "a table")
    return {_read_text(name, place): _read(kind, each, f"{place}.{name}") for name, each in value.items()}


def _read_list(origin: type, arguments: tuple[Any, ...], value: Any, place: str) -> Any:
    if not isinstance(value, (list, tuple)):
        _refuse(place, value, "a list")
    if origin is tuple and arguments[-1] is not ...:
        if len(value) != len(arguments):
            _refuse(place, value, f"a list of {len(arguments)}")
        kinds = arguments
    else:
        kinds = (arguments[0],) * len(value)
    return origin(_read(kind, each, f"{place}[{number}]") for number, (kind, each) in enumerate(zip(kinds, value)))


def _read_int(value: Any, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= LARGEST_NUMBER:
        _refuse(place, value, "a whole number")
    return int(value)


def _read_float(value: Any, place: str) -> float:
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        _refuse(place, value, "a finite number")
    return value if abs(number) < LARGEST_NUMBER else number  # 1 stays 1, so that it is written as it was


def _read_bool(value: Any, place: str) -> bool:
    return value if isinstance(value, bool) else _refuse(place, value, "true or false")


def _read_text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        _refuse(place, value, "text")
    try:
        value.encode(errors="surrogateescape")  # how Python stores file names that are not UTF-8
    except UnicodeEncodeError:
        _refuse(place, value, "valid Unicode text")
    return value


def _read_any(value: Any, place: str) -> Any:
    if isinstance(value, dict):
        return _read_table(Any, value, place)
    if isinstance(value, (list, tuple)):
        return _read_list(list, (Any,), value, place)
    if value is not None and type(value) not in _READ:  # a date in TOML
        _refuse(place, value, "text, a number, true or false, a list or a table")
    return value if value is None else _READ[type(value)](value, place)


_READ = {int: _read_int, float: _read_float, bool: _read_bool, str: _read_text}


def _refuse(place: str, value: Any, allowed: str) -> typing.NoReturn:
    try:
        shown = json.dumps(value, default=str)  # TOML has dates
    except ValueError:  # a whole number of thousands of digits
        shown = type(value).__name__
    where = _shorten(ascii(place)[1:-1], SHOWN_PLACE) or "it"
    raise SchemaError(f"{where} is {_shorten(shown, SHOWN_CHARACTERS)}; it must be {allowed}", place)


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "…"
