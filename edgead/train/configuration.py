"""A method's configuration: from a preset and ``--set``, or from a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal, cast

from edgead import schema
from edgead.errors import ConfigError, unknown
from edgead.settings import parse_settings, refuse_text, split_settings
from edgead.train.method import Method
from edgead.train.method_config import MethodConfig, Setting


def configure(method: type[Method], preset: str, settings: Iterable[str] = ()) -> MethodConfig:
    """Make a method's configuration from a preset and ``name=value`` settings.

    Raises:
        ConfigError: unknown preset or name (with the nearest known one), or a value of the wrong type or range.
    """
    if preset not in method.presets:
        raise ConfigError(unknown("preset", preset, method.presets, method.name))
    return method.Config(**method.presets[preset]).replaced(**read_settings(method, settings))


def reconfigure(
    method: type[Method], config: MethodConfig, settings: Iterable[str], when: Literal["export", "resume"]
) -> MethodConfig:
    """Return a stored configuration with ``name=value`` settings that may still be changed.

    Raises:
        ConfigError: as for `configure`, or a setting that was fixed when the run was started.
    """
    changed = read_settings(method, settings)
    open_ones = method.export_settings if when == "export" else method.resume_settings
    for name in changed:
        if name not in open_ones:
            left = f"Settings of {method.name} that may change at {when}: {', '.join(open_ones) or 'none'}"
            raise ConfigError(f"{name} was fixed when the run was started. {left}.")
    return config.replaced(**changed)


def published_schedule(method: Method) -> MethodConfig:
    """Return a method's configuration with the published numbers of steps, whatever its preset has."""
    published = method.published()
    if not published.step_settings:
        return method.config
    names = ("epochs", *published.step_settings)
    return method.config.replaced(**{name: getattr(published, name) for name in names})


def read_config(method: type[Method], values: Any) -> MethodConfig:
    """Read a configuration that was stored as JSON.

    Raises:
        SchemaError: a value of the wrong type or range.
        ConfigError: an unknown setting, or values that do not fit together.
    """
    known = [field.name for field in dataclasses.fields(method.Config)]
    if others := [name for name in values if name not in known]:
        raise ConfigError(unknown("setting", others[0], known, method.name))
    return schema.read(method.Config, values)


def read_settings(method: type[Method], settings: Iterable[str]) -> dict[str, Setting]:
    """Parse ``name=value`` settings by the types of a method's configuration.

    Raises:
        ConfigError: no such setting, or a value of the wrong type.
    """
    refuse_text("settings", settings)
    texts = split_settings(settings, "NAME=VALUE")
    return cast("dict[str, Setting]", parse_settings(method.Config, texts, method.name, {"size": _parse_size}))


def _parse_size(text: str) -> tuple[int, int]:
    try:
        sides = [int(part) for part in text.lower().split("x")]
        height, width = sides * 2 if len(sides) == 1 else sides
    except ValueError:
        raise ValueError("HEIGHTxWIDTH in pixels, for instance 256x192, or one number for both") from None
    return height, width


def as_setting(name: str, value: Any) -> str:
    """Return a value of the configuration as ``--set`` takes it, to four digits."""
    if name == "size":
        return "x".join(map(str, value))
    text = ",".join(f"{item:.4g}" for item in value) if isinstance(value, tuple) else str(value)
    return text or '""'
