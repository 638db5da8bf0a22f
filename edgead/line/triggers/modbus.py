"""A trigger over Modbus TCP: a bit that rises in the PLC, or a register that counts, is a part."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from edgead.errors import ConfigError, require
from edgead.line.triggers.trigger import LATE_AFTER, BaseTrigger, OpenPart
from edgead.redaction import redact
from edgead.runtime.clock import standstill
from edgead.runtime.sources.uri import parse_options

PORT = 502
AGAIN_AFTER = 0.5
"""Seconds before the next attempt after an error."""
MOST_AT_ONCE = 100
"""Parts that a counter may have counted between two polls; a larger step is a new start of the counter."""
LAST = 65535
"""The highest number of a bit or register."""
LONGEST_ID = 120
"""Registers of an id: what one request can read."""
_BITS = {"coil": "read_coils", "discrete": "read_discrete_inputs"}
_REGISTERS = {"holding": "read_holding_registers", "input": "read_input_registers"}
_READ = {**_BITS, **_REGISTERS}


@dataclass(frozen=True)
class ModbusOptions:
    """Options of ``modbus:``, see `ModbusTrigger`. `poll_ms`, `timeout_ms` and `debounce` are in milliseconds."""

    unit: int = 1
    poll_ms: float = 5.0
    timeout_ms: float = 500.0
    debounce: float = 0.0
    id: int = -1
    id_registers: int = 8

    def __post_init__(self) -> None:
        if self.unit > 255:
            raise ConfigError(f"unit must be from 0 to 255, not {self.unit}.")
        if self.poll_ms < 1 or self.timeout_ms < 10:
            raise ConfigError("poll_ms must be at least 1, and timeout_ms at least 10.")
        if not 1 <= self.id_registers <= LONGEST_ID or self.id + self.id_registers > LAST + 1:
            raise ConfigError(
                f"id_registers must be from 1 to {LONGEST_ID}, and all of them, from id on, at most register {LAST}."
            )


def open_modbus(uri: str) -> ModbusTrigger:
    """``modbus://HOST:502/coil/12?unit=1&poll_ms=5&id=100&id_registers=8``; also ``discrete``, ``holding``, ``input``.

    Raises:
        ConfigError: no address of this kind, or an unknown option.
        MissingDependencyError: pymodbus is not installed.
    """
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, PORT if parts.port is None else parts.port
    except ValueError:
        raise ConfigError(f"{redact(uri)}: the host or the port is malformed; a port is from 1 to 65535.") from None
    kind, _, number = unquote(parts.path).strip("/").partition("/")
    odd = parts.username is not None or parts.fragment or not port
    if not host or odd or kind not in _READ or not _is_address(number):
        raise ConfigError(
            f"{redact(uri)} must name a host, a kind and a number to {LAST}, as in modbus://HOST/coil/12.\n"
            f"Kinds: {', '.join(_READ)}."
        )
    return ModbusTrigger(host, port, kind, int(number), parse_options(uri, parts.query, ModbusOptions))


def _is_address(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= LAST


class ModbusTrigger(BaseTrigger):
    """Polls a PLC. A bit that was 0 and is 1 opens a part; a register opens one for each step that it has counted.

    A part that only a counter knows of, because two came between two polls, is opened too and gets its answer. A
    counter that has made more than `MOST_AT_ONCE` steps, and stands above that, opens one part, in doubt. What the
    first poll finds, also after an outage, is where counting begins. A part whose id cannot be read is opened without
    one. A part that may have come more than `LATE_AFTER`, or two pauses between polls, before it is opened is in doubt:
    the PLC answers too slowly, or this thread does not run.

    Args:
        host, port: of the PLC, which may still be unreachable.
        kind: ``coil``, ``discrete``, ``holding`` or ``input``.
        number: of the bit or register, from 0.
        options: `unit` behind a gateway; pause between polls; time for an answer; `debounce`; `id`: first of
            `id_registers` holding registers with the part's id as text, two bytes each, that are read at each
            trigger.

    Raises:
        MissingDependencyError: pymodbus is not installed.
    """

    def __init__(self, host: str, port: int, kind: str, number: int, options: ModbusOptions) -> None:
        shown = f"[{host}]" if ":" in host else host
        unit = f"?unit={options.unit}" if options.unit != ModbusOptions.unit else ""
        super().__init__(f"modbus://{shown}:{port}/{kind}/{number}{unit}", options.debounce)
        client: Any = require("pymodbus.client", "modbus")
        _leave_errors_to_us()
        self._kind, self._number, self._options = kind, number, options
        self._client = client.ModbusTcpClient(host, port=port, timeout=options.timeout_ms / 1e3, retries=0)
        self._trouble, self.ready = "", False
        self._thread = threading.Thread(target=self._work, name="trigger-modbus", daemon=True)

    @property
    def has_id(self) -> bool:
        """It reads an id at each trigger."""
        return self._options.id >= 0

    def begin(self, open_part: OpenPart) -> None:
        super().begin(open_part)
        self._thread.start()

    def close(self) -> None:
        super().close()
        if self._thread.is_alive():
            self._thread.join(3.0)

    def _work(self) -> None:
        last: int | None = None
        asked = time.monotonic()
        while not self.stopped.is_set():
            try:
                since, asked = asked, time.monotonic()  # it has risen since the question before
                value = self._ask(_READ[self._kind], self._number, 1)[0]
                at = time.monotonic()
                steps, jump = (0, "") if last is None else self._steps(last, value)
                last = value
            except ConnectionError as error:
                self._note(str(error))
                last = None
                self._client.close()
                self.stopped.wait(AGAIN_AFTER)
                continue
            self._note("")
            paused = standstill.since(since)
            part_id = self._read_id() if steps else ""
            if jump:
                self.say(f"{self.name}: {jump}; how many parts came is unknown")
            self._fire(steps, part_id, None if paused else at, jump or self._doubt(time.monotonic() - since))
            self.stopped.wait(self._options.poll_ms / 1e3)
        self._client.close()

    def _steps(self, last: int, value: int) -> tuple[int, str]:
        """Return how many parts to open, and why nobody knows whether that is right; empty if it is."""
        if self._kind in _BITS:
            return int(value > last), ""
        steps = (value - last) % (LAST + 1)
        if steps <= MOST_AT_ONCE:
            return steps, ""
        if value <= MOST_AT_ONCE:  # the PLC has reset the counter, which is no part; what it counted since is
            return value, ""
        return 1, f"the counter jumped from {last} to {value}"

    def _doubt(self, took: float) -> str:
        """Return why nobody knows when a part came that is opened so many seconds after it may have come."""
        if took <= max(LATE_AFTER, 2 * self._options.poll_ms / 1e3):
            return ""
        return f"the trigger is known up to {took * 1e3:.0f} ms late: the PLC answers slowly, or this machine is busy"

    def _fire(self, steps: int, part_id: str, at: float | None, doubt: str) -> None:
        ids = [part_id] + [""] * (steps - 1) if steps else []
        if steps > 1 and not self.debounce:  # else the others are bounces of the first one
            self.say(f"{self.name}: {steps} parts came between two polls; only the last one can get a frame")
            ids.reverse()
        for one in ids:
            try:
                self.fire(one, at, doubt)
            except ConfigError:  # the run has ended; or this is a changeover, and only its last name is known
                continue

    def _read_id(self) -> str:
        if self._options.id < 0:
            return ""
        try:
            words = self._ask("read_holding_registers", self._options.id, self._options.id_registers)
        except ConnectionError as error:  # the part is there all the same, and the PLC waits for its answer
            self.say(f"{self.name}: the id of a part cannot be read, so edgead makes one: {error}")
            return ""
        return _as_text(b"".join(word.to_bytes(2, "big") for word in words).partition(b"\0")[0]).strip()

    def _ask(self, request: str, address: int, count: int) -> list[int]:
        """Send one request and return bits or registers.

        Raises:
            ConnectionError: no answer, or an exception.
        """
        if not self._client.connect():
            raise ConnectionError("no connection; check address and cable")
        try:
            done = getattr(self._client, request)(address, count=count, device_id=self._options.unit)
        except Exception as error:  # pymodbus raises its own kinds and those of the system
            raise ConnectionError("it is connected and does not answer; check unit=") from error
        if done.isError():
            code = getattr(done, "exception_code", 0)
            raise ConnectionError(f"it answers {request} of {count} from {address} with exception {code}")
        found = list(done.bits if request in _BITS.values() else done.registers)
        if len(found) < count:
            raise ConnectionError(f"its answer has {len(found)} values instead of {count}")
        return [int(value) for value in found[:count]]

    def _note(self, trouble: str) -> None:
        """Tell when the PLC begins to be unreachable, and when it answers again."""
        if bool(trouble) != bool(self._trouble):
            lost = f"{trouble}; its triggers are lost until it answers"
            self.say(f"{self.name}: {lost if trouble else 'the PLC answers again'}")
        self._trouble, self.ready = trouble, not trouble


def _as_text(data: bytes) -> str:
    """Read an id in UTF-8, in which the PLC gets it back with the verdict; a PLC that knows no UTF-8 has Latin-1."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _leave_errors_to_us() -> None:
    """Keep pymodbus from logging every failed poll; a level that the user has set stays."""
    log = logging.getLogger("pymodbus")
    if log.level == logging.NOTSET:
        log.setLevel(logging.CRITICAL + 1)
