"""``gpio:CHIP/LINE``: a pulse on a GPIO line of this machine for each part that passes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from edgead.decision import Verdict
from edgead.errors import ConfigError, unknown
from edgead.line.gpio_line import import_gpiod, request_line, split_gpio
from edgead.line.outputs.handshake import delay_of
from edgead.runtime.result import Result
from edgead.runtime.sinks.sink import BaseSink, LeftOut

GAP = 0.005
"""Shortest pause in seconds between two pulses."""


@dataclass(frozen=True)
class GpioOptions:
    """Options of ``gpio:``.

    Attributes:
        pulse_ms: length of a pulse.
        on: verdicts that make a pulse. With PASS alone, a dead computer and a cut cable reject.
        late_ms: a result that comes later than this makes no pulse, see `delay_of`: the part is elsewhere by then.
        active_low: a pulse pulls the line down.

    Raises:
        ConfigError: a value that makes no sense.
    """

    pulse_ms: float = 100.0
    on: tuple[str, ...] = ("PASS",)
    late_ms: float = 200.0
    active_low: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.pulse_ms <= 60_000:
            raise ConfigError(f"pulse_ms must be from 1 to 60000, not {self.pulse_ms:g}.")
        for word in self.on:
            if word not in Verdict.__members__:
                raise ConfigError(unknown("verdict", word, Verdict.__members__, "on"))
        if not self.on:
            raise ConfigError("on must be one or more verdicts, as in on=PASS.")


def open_gpio_output(uri: str) -> GpioOutput:
    """``gpio:/dev/gpiochip0/17?pulse_ms=100&on=PASS&active_low=off``; the line by number or name.

    Raises:
        ConfigError: no chip or line, a wrong option, or a line that is absent or in use.
        MissingDependencyError: the package gpiod is not installed.
    """
    return GpioOutput(*split_gpio(uri, GpioOptions))


class GpioOutput(BaseSink):
    """Makes one pulse for each result with a wanted verdict. Pulses do not overlap; a result waits for the one before.

    Args:
        chip: device file.
        line: number, or name.
        options: see `GpioOptions`.

    Raises:
        ConfigError: the line cannot be used.
        MissingDependencyError: the package gpiod is not installed.
    """

    def __init__(self, chip: str, line: str, options: GpioOptions | None = None) -> None:
        super().__init__(f"gpio:{chip}/{line}")
        self._options = options or GpioOptions()
        gpiod, self._kinds = import_gpiod()
        settings = gpiod.LineSettings(
            direction=self._kinds.Direction.OUTPUT,
            output_value=self._kinds.Value.INACTIVE,
            active_low=self._options.active_low,
        )
        self._request, self._line = request_line(chip, line, settings)

    def wants(self, result: Result) -> bool:
        """Return whether a result makes a pulse. Reports about a camera are no results of a part."""
        about_part = result.frame_id is not None or bool(result.part_id)
        return about_part and result.verdict.value in self._options.on

    def write(self, result: Result) -> None:
        """Make a pulse; return when it is over.

        Raises:
            LeftOut: it is too late for this part.
        """
        if delay_of(result, time.monotonic()) > self._options.late_ms / 1e3:
            raise LeftOut("late")
        try:
            self._request.set_value(self._line, self._kinds.Value.ACTIVE)
            self.stopped.wait(self._options.pulse_ms / 1e3)
        finally:
            self._request.set_value(self._line, self._kinds.Value.INACTIVE)
        self.stopped.wait(GAP)

    def close(self) -> None:
        self._request.set_value(self._line, self._kinds.Value.INACTIVE)
        self._request.release()
