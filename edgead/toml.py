"""Reads TOML files, and finds the line of a field for errors."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgead.errors import ConfigError, require
from edgead.schema import refuse_deep

LARGEST = 4 << 20
"""Bytes of a file."""
_HEADER = re.compile(r"\s*\[\[?\s*(?P<name>[^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_FIELD = re.compile(r"""\s*(?P<name>[\w-]+(?:\s*\.\s*[\w-]+)*|"[^"]*"|'[^']*')\s*=""")


def read_toml(path: Path, what: str, extra: str) -> tuple[dict[str, Any], str]:
    """Return the content of a TOML file, and its text.

    Args:
        path: of the file.
        what: it is called in errors: ``"sweep file"``.
        extra: of edgead that installs a parser where Python has none.

    Raises:
        ConfigError: it is missing, larger than `LARGEST`, nested too deeply, or not TOML.
        MissingDependencyError: Python 3.10 without tomli.
    """
    toml: Any = require("tomllib" if sys.version_info >= (3, 11) else "tomli", extra)
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ConfigError(f"The {what} {path} is larger than {LARGEST >> 20} MB.")
        text = data.decode("utf-8-sig")  # some editors of Windows put a mark in front
        found = toml.loads(text)
        refuse_deep(found)
        return found, text
    except FileNotFoundError as error:
        raise ConfigError(f"The {what} {path} does not exist.") from error
    except OSError as error:
        raise ConfigError(f"The {what} {path} cannot be read: {error.strerror}.") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is not valid TOML: it is nested too deeply.") from error
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError and SchemaError
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error


def line_of(text: str, place: Sequence[str]) -> int:
    """Return the line of a field, from 1; of the nearest table above it where it is written in another way; 0 for none.

    Args:
        text: of the file.
        place: names from the top.
    """
    wanted, best, depth, table = tuple(place), 0, 0, tuple[str, ...]()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = found = _names(header["name"])
        elif field := _FIELD.match(line):
            found = (*table, *_names(field["name"]))
        else:
            continue
        if found == wanted[: len(found)] and len(found) > depth:
            best, depth = number, len(found)
    return best


def _names(dotted: str) -> tuple[str, ...]:
    quoted = re.findall(r"""\s*(?:"([^"]*)"|'([^']*)'|([^."']+))\s*\.?""", dotted)
    return tuple((double or single or bare).strip() for double, single, bare in quoted)
