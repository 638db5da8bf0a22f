"""A GPIO line of this machine by its address, through libgpiod's package."""

from __future__ import annotations

from typing import Any, TypeVar

from edgead.errors import ConfigError, require
from edgead.redaction import redact
from edgead.runtime.sources.uri import split_options

T = TypeVar("T")


def split_gpio(uri: str, kind: type[T]) -> tuple[str, str, T]:
    """Return the chip's device file, the line's number or name, and the options of ``gpio:CHIP/LINE?name=value``.

    Args:
        uri: the chip as ``/dev/gpiochip0`` or ``gpiochip0``.
        kind: a dataclass of the options.

    Raises:
        ConfigError: no chip or line, or a wrong option.
    """
    name, options = split_options(uri, kind)
    chip, _, line = name.rpartition("/")
    if not chip or not line:
        raise ConfigError(f"{redact(uri)} must name a chip and a line, as in gpio:/dev/gpiochip0/17.")
    return chip if chip.startswith("/") else f"/dev/{chip}", line, options


def import_gpiod() -> tuple[Any, Any]:
    """Return the modules ``gpiod`` and ``gpiod.line``.

    Raises:
        MissingDependencyError: the package gpiod is not installed.
    """
    return require("gpiod", "gpio"), require("gpiod.line", "gpio")


def request_line(chip: str, line: str, settings: Any, **more: int) -> tuple[Any, int | str]:
    """Reserve a line for this process.

    Args:
        chip: device file.
        line: number, or name.
        settings: ``gpiod.LineSettings``.
        more: further arguments of ``gpiod.request_lines``.

    Returns:
        The ``gpiod.LineRequest``, and what it calls the line.

    Raises:
        ConfigError: the line is absent or in use.
    """
    gpiod, _ = import_gpiod()
    place: int | str = int(line) if line.isdecimal() else line
    try:
        return gpiod.request_lines(chip, consumer="edgead", config={place: settings}, **more), place
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"The line {line} of {chip} cannot be used: {why}.\nSee which lines there are:  gpioinfo"
        ) from error
