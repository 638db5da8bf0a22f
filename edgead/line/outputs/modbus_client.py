"""``modbus://HOST:PORT``: writes the map into the holding registers of a PLC."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgead.errors import ConfigError, SinkError, require
from edgead.line.outputs.address import at, split_address
from edgead.line.outputs.handshake import PlcSink, Timing
from edgead.line.outputs.library_logs import quiet
from edgead.line.outputs.modbus_server import PORT, check_base
from edgead.line.outputs.register_map import ACKNOWLEDGE, ADDRESSES, SIZE, Snapshot, to_registers

POLL = 0.01
"""Seconds between two looks at the acknowledgement while one is awaited."""
AGAIN_AFTER = 0.5
"""Seconds before the next attempt after an error."""
OCCUPIED_WITHIN = 0.3
"""Seconds, at least, in which the heartbeat of another program would change."""
_EXCEPTIONS = {
    1: "it does not know the function",
    2: "it has no such registers, or they cannot be written",
    3: "it does not accept this number of registers",
    4: "it has failed",
    6: "it is busy",
}
_log = logging.getLogger("edgead")
_claims: set[tuple[str, int, int, int]] = set()
_claiming = threading.Lock()


@dataclass(frozen=True)
class ClientOptions(Timing):
    """Options of ``modbus://``.

    Attributes:
        base: address of the map's first register in the PLC.
        unit: number of the PLC behind a gateway.
        timeout_ms: time for one answer.
    """

    base: int = 0
    unit: int = 1
    timeout_ms: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        check_base(self.base)
        if self.unit > 255:
            raise ConfigError(f"unit must be from 0 to 255, not {self.unit}.")
        if self.timeout_ms < 10:
            raise ConfigError(f"timeout_ms must be at least 10, not {self.timeout_ms}.")


def open_modbus_client(uri: str) -> ModbusClient:
    """``modbus://HOST:PORT?base=0&unit=1&…``."""
    return ModbusClient(*split_address(uri, PORT, ClientOptions))


class ModbusClient(PlcSink):
    """Writes the map whenever it changes, and at every heartbeat; reads the acknowledgement.

    A new result is written in two requests: everything with verdict 0, then the verdict. The PLC never has a new
    sequence beside an old verdict, in whatever order it copies the registers of a request.

    The PLC need not be there yet. Every error is retried, and is the reason why results fail.

    Args:
        host, port: of the PLC.
        options: see `ClientOptions`.

    Raises:
        ConfigError: another output of this process writes these registers.
        MissingDependencyError: pymodbus is not installed.
    """

    def __init__(self, host: str, port: int, options: ClientOptions | None = None) -> None:
        client: Any = require("pymodbus.client", "modbus")
        quiet("pymodbus")
        options = options or ClientOptions()
        super().__init__(f"modbus://{at(host, port)}", options, pushed=True)
        self._base, self._unit, self._beat = options.base, options.unit, options.heartbeat_ms / 1e3
        self._timeout = options.timeout_ms / 1e3
        self._claim = (host, port, options.unit, options.base)
        self._refuse_a_second_writer()
        self._client = client.ModbusTcpClient(host, port=port, timeout=self._timeout, retries=0)
        self._written: Snapshot | None = None
        self._emptied = False
        self._seen: int | None = None  # the acknowledgement that was read last
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
        self._thread.start()

    def _refuse_a_second_writer(self) -> None:
        with _claiming:
            for other in _claims:
                if other[:3] == self._claim[:3] and abs(other[3] - self._base) < SIZE:
                    raise ConfigError(
                        f"{self.name}: another --sink writes the registers {other[3]} to {other[3] + SIZE - 1} of this "
                        f"PLC.\nSet another start address for one of the two, {SIZE} registers away:  "
                        f"?base={other[3] + 100}"
                    )
            _claims.add(self._claim)

    def _work(self) -> None:
        while not self._end.is_set():
            try:
                self._exchange()
            except SinkError as error:
                self._note(str(error))
                self._client.close()
                self._written = None
                self._end.wait(AGAIN_AFTER)
            else:
                self._note("")
                self._wait()
        if self._written is not None:
            with contextlib.suppress(SinkError):
                self._exchange()  # it is not valid any more

    def _wait(self) -> None:
        """Wait for something to write: a result, the end of a verdict, or the heartbeat."""
        until = time.monotonic() + self._beat
        handshake = self.handshake
        with handshake.changed:
            while not self._end.is_set() and time.monotonic() < until and not self._is_news(handshake.snapshot()):
                handshake.changed.wait(POLL)
                if handshake.awaits():
                    return

    def _is_news(self, snapshot: Snapshot) -> bool:
        return self._written is None or _decision(snapshot) != _decision(self._written)

    def _exchange(self) -> None:
        """Write what has changed and read the acknowledgement.

        The heartbeat is written after a look, because it would cover what another program has written. A result is not
        kept waiting for that.
        """
        if self._written is None:
            self._meet()
        elif not self._is_news(self.handshake.snapshot()) and not self._check():
            return
        snapshot = self.handshake.snapshot()
        if snapshot != self._written:
            self._put(snapshot)
            self._check()

    def _check(self) -> bool:
        """Take over the acknowledgement; False where the PLC has lost what was written, which is then written again.

        Raises:
            SinkError: it has lost it twice, or another program writes there.
        """
        words = self._read()
        if not words[ADDRESSES["session"]]:
            if self._emptied:
                raise SinkError(
                    f"the holding registers {self._base} to {self._base + SIZE - 1} are empty after they were written; "
                    "let the PLC's program keep them, or set another ?base="
                )
            self._written, self._emptied = None, True  # it has restarted
            return False
        self._emptied = False
        if words[ADDRESSES["session"]] != self.handshake.session:
            raise self._other_writer()
        acknowledged = words[ACKNOWLEDGE.address]
        if acknowledged != self._seen:  # what was left from before acknowledges nothing
            self._seen = acknowledged
            self.handshake.acknowledge(acknowledged)
        return True

    def _put(self, snapshot: Snapshot) -> None:
        """Write the map. The verdict of a new result comes in a request of its own, after everything else."""
        words = to_registers(snapshot)
        if snapshot.verdict and self._is_news(snapshot):
            self._write(0, to_registers(replace(snapshot, verdict=0, cause=0)))
            if not self.handshake.snapshot().verdict:  # it is over: this process did not run for a while
                self._written = replace(snapshot, verdict=0, cause=0)
                return
            place = ADDRESSES["verdict"]
            self._write(place, words[place : place + 2])
            self.handshake.sent(snapshot.sequence)
        else:
            self._write(0, words)
        self._written = snapshot

    def _meet(self) -> None:
        """Read what is in the PLC before the first write, and leave it alone if another program writes there."""
        words = self._read()
        session, heartbeat = words[ADDRESSES["session"]], words[ADDRESSES["heartbeat"]]
        if session not in (0, self.handshake.session):
            self._end.wait(max(OCCUPIED_WITHIN, 2 * self._beat))
            words = self._read()
            if words[ADDRESSES["session"]] == session and words[ADDRESSES["heartbeat"]] != heartbeat:
                raise self._other_writer()
        if self._seen is None:
            self._seen = words[ACKNOWLEDGE.address]
            self.handshake.continue_after(self._seen)

    def _other_writer(self) -> SinkError:
        return SinkError(
            f"another program writes the registers {self._base} to {self._base + SIZE - 1}; "
            "end it, or set another ?base= here"
        )

    def _read(self) -> list[int]:
        done = self._ask("read_holding_registers", self._base, count=SIZE)
        words = list(done.registers)
        if len(words) != SIZE:
            raise SinkError(f"the answer has {len(words)} registers instead of {SIZE}")
        return words

    def _write(self, offset: int, words: Sequence[int]) -> None:
        self._ask("write_registers", self._base + offset, list(words))

    def _ask(self, request: str, address: int, *arguments: Any, **options: Any) -> Any:
        """Send one request and return the answer.

        Raises:
            SinkError: no answer, or an exception.
        """
        if not self._client.connect():
            raise SinkError(f"no connection to {self.name.partition('//')[2]}; check address and cable")
        try:
            done = getattr(self._client, request)(address, *arguments, device_id=self._unit, **options)
        except Exception as error:  # pymodbus raises its own kinds and those of the system
            raise SinkError("it is connected and does not answer; check ?unit=") from error
        if done.isError():
            code = getattr(done, "exception_code", 0)
            last = self._base + SIZE - 1
            raise SinkError(
                f"it answers {request} with exception {code}: {_EXCEPTIONS.get(code, 'unknown')}; "
                f"it needs the holding registers {self._base} to {last}"
            )
        return done

    def _note(self, trouble: str) -> None:
        """Log when the PLC begins to be unreachable, and when it answers again."""
        if bool(trouble) != bool(self.handshake.trouble):
            _log.warning("%s: %s", self.name, trouble or "the PLC answers again")
        self.handshake.trouble = trouble

    def look(self) -> str:
        """Wait for the first exchange with the PLC and return what came of it.

        Raises:
            SinkError: the PLC cannot be reached, or has no such registers.
        """
        until = time.monotonic() + 3 * self._timeout + max(OCCUPIED_WITHIN, 2 * self._beat)
        while self._written is None and not self.handshake.trouble and time.monotonic() < until:
            time.sleep(POLL)
        if self._written is None:
            raise SinkError(self.handshake.trouble or "it does not answer")
        return f"the PLC has the registers {self._base} to {self._base + SIZE - 1}"

    def details(self) -> dict[str, Any]:
        """See `Handshake.account`; ``trouble`` says why the PLC cannot be reached."""
        return {**super().details(), "trouble": self.handshake.trouble or None}

    def close(self) -> None:
        self.handshake.close()  # the thread writes it
        self._end.set()
        self._thread.join(3.0)
        with _claiming:
            _claims.discard(self._claim)
        self._client.close()


def _decision(snapshot: Snapshot) -> tuple[int, ...]:
    return snapshot.sequence, snapshot.verdict, snapshot.valid, snapshot.status
