"""NAME=VALUE settings as users write them: ``--engine``, the options of a URI, ``--set``.

A dataclass is the list of settings. Its field types say what a text may be: ``int``, ``float``, ``str``, ``bool``
(``on``, ``true`` or ``1``; ``off``, ``false`` or ``0``), ``Literal[…]``, ``X | None`` and ``tuple[X, ...]``
(separated by commas). The dataclass checks ranges itself.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any, Literal, Union

from edgead.errors import ConfigError, unknown

BATCH_LIMIT = 1024
"""Frames for one inference at most: memory is reserved for all of them."""
WORKERS_LIMIT = 64
"""Processes that prepare examples at most: each takes some 350 MB."""
SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
_KINDS = {int: "a whole number", float: "a number", bool: "on or off", str: "text"}


def refuse_text(name: str, values: object) -> None:
    """Refuse a text in place of a list of texts: each of its characters would be one. None stands for no list.

    Raises:
        ConfigError: it is one, or no list either.
    """
    if isinstance(values, str | PurePath):
        raise ConfigError(f"{name} must be a list, not a string. Write  {name}=[{str(values)!r}]")
    if values is not None and (not isinstance(values, Iterable) or hasattr(values, "dtype")):
        raise ConfigError(f"{name} must be a list of strings, not {type(values).__name__}.")


def check_text(name: str, value: object) -> None:
    """Refuse what is not a text, as on the command line.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be a string, written as on the command line, not {value!r}.")


def check_count(name: str, value: object, least: int = 1, note: str = "") -> None:
    """Refuse what is not a whole number of at least `least`; `note` follows that number in the error.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}{note}, not {value!r}.")


def check_batch(batch: object) -> None:
    """Refuse what is not a number of frames for one inference, 1 to `BATCH_LIMIT`.

    Raises:
        ConfigError: it is not.
    """
    check_count("batch", batch)
    if isinstance(batch, int) and batch > BATCH_LIMIT:
        raise ConfigError(f"batch must be {BATCH_LIMIT:,} at most, not {batch}.")


def split_settings(texts: Iterable[str], usage: str) -> dict[str, str]:
    """Split ``NAME=VALUE`` texts; the last one of a name counts.

    Args:
        texts: the settings.
        usage: how they are written, for the error.

    Raises:
        ConfigError: one has no ``=`` or no name.
    """
    found: dict[str, str] = {}
    for text in texts:
        check_text("A setting", text)
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            raise ConfigError(f"Settings are written {usage}, not '{text}'.")
        found[name.strip()] = value.strip()
    return found


def parse_settings(
    kind: type[Any],
    given: Mapping[str, str],
    owner: str,
    parsers: Mapping[str, Callable[[str], Any]] | None = None,
    what: str = "setting",
) -> dict[str, object]:
    """Parse the texts of settings by the types of a dataclass's fields.

    Args:
        kind: the dataclass.
        given: text by name.
        owner: of the settings, for errors: ``"the engine tensorrt"``.
        parsers: for settings with a notation of their own; each raises a ValueError that says what is allowed.
        what: a setting is called in errors.

    Returns:
        Values by name, of the settings that were given.

    Raises:
        ConfigError: an unknown name, with the nearest known one; or a value of the wrong type.
    """
    hints, own = typing.get_type_hints(kind), parsers or {}
    names = [field.name for field in dataclasses.fields(kind)]
    values: dict[str, object] = {}
    for name, text in given.items():
        if name not in names:
            raise ConfigError(unknown(what, name, names, owner))
        try:
            values[name] = own[name](text) if name in own else _parse(hints[name], text)
        except ValueError as error:
            raise ConfigError(f"{owner}: {name} must be {error}, not '{text}'.") from error
    return values


def _parse(kind: Any, text: str) -> Any:
    """Return a text as a value of a type.

    Raises:
        ValueError: what is allowed.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _parse(next(each for each in arguments if each is not type(None)), text)
    if origin is typing.Annotated:
        return _parse(arguments[0], text)
    if origin is Literal:
        if text not in arguments:
            raise ValueError(f"one of {', '.join(arguments)}")
        return text
    if origin is tuple:
        return tuple(_parse(arguments[0], part.strip()) for part in text.split(",") if part.strip())
    try:
        return SWITCH[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ValueError(_KINDS[kind]) from None
