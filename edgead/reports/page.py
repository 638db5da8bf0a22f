"""Pages from templates. Everything that is put into one is escaped."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from edgead import schema, text
from edgead.errors import DataError, require
from edgead.files import write_text
from edgead.redaction import redact
from edgead.schema import SchemaError

T = TypeVar("T")
RESULTS, PAGE = "results.json", "report.html"
DASH = "–"
"""Shown for a missing figure."""


@functools.cache
def _environment() -> Any:
    """Return the templates, with escaping for every value."""
    jinja2 = require("jinja2", "benchmark")
    folder = resources.files("edgead.reports").joinpath("templates")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: text.valid(value) if type(value) is str else value,
    )
    environment.filters |= {"percent": percent, "milliseconds": milliseconds, "when": when, "pretty": pretty}
    return environment


def render(template: str, **values: Any) -> str:
    """Fill in a template.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    return str(_environment().get_template(template).render(**values))


def write_page(path: Path, page: str) -> Path:
    """Write a page without secrets; return its path."""
    write_text(path, redact(page))
    return path


def read_results(path: Path) -> dict[str, Any]:
    """Read a JSON file with an object in it.

    Raises:
        DataError: it is something else.
    """
    try:
        found = schema.load_json(path)
    except (OSError, SchemaError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no results: it must be a JSON object.")
    return found


def read_page_results(kind: type[T], path: Path, repair: str) -> T:
    """Read the results that a page is made of.

    Args:
        kind: dataclass of the results.
        path: of results.json.
        repair: what the user can do if it is damaged.

    Raises:
        DataError: it is.
    """
    try:
        return schema.read(kind, schema.load_json(path))
    except (OSError, SchemaError) as error:
        raise DataError(f"{path} is damaged: {error}.\n{repair}") from error


def percent(value: float | None, digits: int = 1) -> str:
    """Format a share in percent, without the sign, see `edgead.text.percent`; a dash for None."""
    return DASH if value is None else text.percent(value, digits)


def milliseconds(value: float | None) -> str:
    """Format milliseconds with three digits; a dash for None."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def when(value: str | None) -> str:
    """Format a time in ISO 8601 for people: ``27 Nov 2026, 17:18 UTC``."""
    try:
        found = datetime.fromisoformat(value or "")
        zone = "" if found.tzinfo is None else " UTC"
        return f"{found.astimezone(timezone.utc) if zone else found:%d %b %Y, %H:%M}{zone}"
    except (ValueError, OverflowError):  # no time, or none in UTC: of the year 1 or 9999
        return value or DASH


def pretty(value: Any) -> str:
    """Format JSON values for reading."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def describe_device(machine: Mapping[str, Any] | None) -> str:
    """Return processor and cores of a machine's record, and its accelerator: the engine is on one of them."""
    if not machine:
        return "unknown"
    cores = machine.get("usable_cores") or machine.get("cores")
    cpu = str(machine.get("cpu") or "unknown processor").replace("(R)", "").replace("(TM)", "")
    found = f"{cpu}, {cores} core{'' if cores == 1 else 's'}" if cores else cpu
    if accelerator := machine.get("accelerator"):
        found += f", {str(accelerator).splitlines()[0].partition(',')[0]}"
    return found
