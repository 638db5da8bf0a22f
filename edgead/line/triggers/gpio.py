"""A trigger on a GPIO line of this machine: each edge is a part."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from edgead.errors import ConfigError
from edgead.line.gpio_line import import_gpiod, request_line, split_gpio
from edgead.line.triggers.trigger import BaseTrigger, OpenPart

TICK = 0.2
"""Longest wait in seconds before it is seen that the run has ended."""
EVENTS = 1024
"""Edges that the kernel keeps for us."""


@dataclass(frozen=True)
class GpioOptions:
    """Options of ``gpio:``. `debounce` is in milliseconds, and done by the kernel."""

    edge: Literal["rising", "falling"] = "rising"
    bias: Literal["as_is", "disabled", "pull_up", "pull_down"] = "as_is"
    active_low: bool = False
    debounce: float = 0.0


def open_gpio(uri: str) -> GpioTrigger:
    """``gpio:/dev/gpiochip0/17?edge=rising&bias=pull_up&active_low=off&debounce=5``; the line by number or name.

    Raises:
        ConfigError: no chip or line, an unknown option, or a line that is absent or in use.
        MissingDependencyError: the package gpiod is not installed.
    """
    return GpioTrigger(*split_gpio(uri, GpioOptions))


class GpioTrigger(BaseTrigger):
    """Opens a part at each edge, at the moment that the kernel notes. Edges that the kernel had no room for count too.

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
        options = options or GpioOptions()
        gpiod, kinds = import_gpiod()
        settings = gpiod.LineSettings(
            direction=kinds.Direction.INPUT,
            edge_detection=kinds.Edge[options.edge.upper()],
            bias=kinds.Bias[options.bias.upper()],
            active_low=options.active_low,
            debounce_period=timedelta(milliseconds=options.debounce),
            event_clock=kinds.Clock.MONOTONIC,
        )
        self._request, _ = request_line(chip, line, settings, event_buffer_size=EVENTS)
        self._seen: int | None = None
        self._since = 0.0
        self._thread = threading.Thread(target=self._work, name="trigger-gpio", daemon=True)

    def begin(self, open_part: OpenPart) -> None:
        super().begin(open_part)
        self._since = time.monotonic()
        self._thread.start()

    def close(self) -> None:
        if self.stopped.is_set():
            return
        super().close()
        if self._thread.is_alive():
            self._thread.join(3.0)
        self._request.release()

    def _work(self) -> None:
        while not self.stopped.is_set():
            try:
                events = self._request.read_edge_events() if self._request.wait_edge_events(TICK) else []
            except OSError as error:  # the chip was removed
                self.ready = False
                self.say(
                    f"{self.name}: no more edges can be read: {error.strerror}. Restart the run when that is fixed"
                )
                return
            for event in events:
                self._fire(event)

    def _fire(self, event: Any) -> None:
        missed = 0 if self._seen is None else event.line_seqno - self._seen - 1
        self._seen = event.line_seqno
        if event.timestamp_ns / 1e9 < self._since:  # an edge from before the run
            return
        if missed > 0:
            self.say(f"{self.name}: {missed} edges came faster than they could be read")
        for _ in range(max(missed, 0) + 1):
            try:
                self.fire("", event.timestamp_ns / 1e9)
            except ConfigError:  # the run has ended
                return
