"""``opcua:HOST:PORT``: the OPC UA server of a vision system."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgead.errors import ConfigError, describe, require
from edgead.line.outputs.address import at, split_address
from edgead.line.outputs.event_loop import EventLoop
from edgead.line.outputs.handshake import PlcSink, Timing
from edgead.line.outputs.library_logs import quiet
from edgead.line.outputs.modbus_server import held_port, why_no_listening
from edgead.line.outputs.opcua.address_space import SESSION, AddressSpace
from edgead.line.outputs.opcua.methods import Methods
from edgead.line.outputs.opcua.state_machine import VisionStateMachine
from edgead.line.outputs.register_map import Snapshot
from edgead.runtime.connections import ConnectionLimits
from edgead.runtime.metrics_server import is_local
from edgead.runtime.result import Result
from edgead.runtime.sinks.sink import LeftOut

_log = logging.getLogger("edgead")
PORT = 4840
PERIOD = 0.02
"""Seconds between two looks at what has changed."""
LIMITS = ConnectionLimits(silence=SESSION + 60.0, unanswered=1 << 20, rate=1 << 20)
"""A session ends before its connection."""


@dataclass(frozen=True)
class OpcuaOptions(Timing):
    """Options of ``opcua:``.

    Attributes:
        ack: see `Timing`; off here, because OPC 40100-1 knows no acknowledgement.
        start: ``auto`` executes continuously from the start of the run; ``client`` waits for StartContinuous or
            StartSingleJob.
        keep: how many results GetResultById knows.
        cert, key: files of the server's certificate and key, PEM or DER. With them, only signed and encrypted
            connections are accepted.
        trust: folder with the certificates of clients that may connect; without it any certificate may.
        open: without certificates, other machines may connect too. Whoever reaches the address can then change recipes.
    """

    ack: bool = False
    start: Literal["auto", "client"] = "auto"
    keep: int = 1000
    cert: str = ""
    key: str = ""
    trust: str = ""
    open: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep < 1:
            raise ConfigError(f"keep must be at least 1, not {self.keep}.")
        if bool(self.cert) != bool(self.key):
            raise ConfigError("cert and key of an OPC UA server belong together: give both, or none.")
        if self.trust and not self.cert:
            raise ConfigError("trust needs a certificate of the server: give cert and key as well.")
        for name in ("cert", "key", "trust"):
            path = getattr(self, name)
            if path and not Path(path).exists():
                raise ConfigError(f"{name} of the OPC UA server does not exist: {path}.")


def open_opcua(uri: str) -> OpcuaServer:
    """``opcua:HOST:PORT?start=auto&cert=FILE&key=FILE&trust=DIR&…``."""
    return OpcuaServer(*split_address(uri, PORT, OpcuaOptions))


class OpcuaServer(PlcSink):
    """Serves a VisionSystem after OPC 40100-1, and the register map as variables beside it.

    Results are the client's only while a job runs (SingleExecution, ContinuousExecution); others do not count.

    Args:
        host, port: to listen on; port 0 takes a free one.
        options: see `OpcuaOptions`.

    Attributes:
        port: that it listens on.

    Raises:
        ConfigError: it cannot listen there, or the certificates do not fit.
        MissingDependencyError: asyncua is not installed.
    """

    def __init__(self, host: str, port: int, options: OpcuaOptions | None = None) -> None:
        require("asyncua", "opcua")
        quiet("asyncua")
        options = options or OpcuaOptions()
        if not (options.cert or options.open or is_local(host)):
            raise ConfigError(
                f"opcua:{at(host, port)} can be reached by other machines, which could change recipes and stop jobs.\n"
                "Give it certificates, ?cert=FILE&key=FILE&trust=DIR, or set ?open=on in a network of this line alone."
            )
        super().__init__(f"opcua:{at(host, port)}", options)
        self._versions: dict[str, str] = {}
        self._choose: Callable[[str], object] | None = None
        self._deciding: Callable[[], str] = lambda: ""
        self._options, self._begun = options, False
        self._lock = threading.Lock()
        self._machine = VisionStateMachine()
        self._transitions: deque[str] = deque()
        self._shown: deque[tuple[Result, Snapshot, str]] = deque()
        self._job, self._jobs, self._job_began, self._single_taken = "", 0, 0.0, False
        self.handshake.on_show = self._on_show
        self._loop = EventLoop("opcua-server", LIMITS)
        self._wake = asyncio.Event()
        with held_port(host, port) as self.port:
            try:
                self._loop.run(self._open(host), 60.0)
            except ConfigError:
                self._loop.close()
                raise
            except Exception as error:
                self._loop.close()
                why = why_no_listening(host, self.port) if isinstance(error, OSError) else describe(error)
                raise ConfigError(f"opcua:{at(host, self.port)} cannot be opened: {why}.") from error
        self.name = self.handshake.name = f"opcua:{at(host, self.port)}"

    async def _open(self, host: str) -> None:
        self._space = AddressSpace(f"opc.tcp://{at(host, self.port)}/edgead/", self._options.keep)
        if self._options.cert:
            await self._space.secure(self._options.cert, self._options.key, self._options.trust)
        await self._space.build()
        await self._space.link(Methods(self, self._space).call, self.handshake.acknowledge)
        await self._space.server.start()
        self._cycle = asyncio.ensure_future(self._publish_for_ever())

    def take_recipes(self, versions: Mapping[str, str], choose: Callable[[str], object]) -> None:
        """Let clients prepare recipes. Without it, only the one that decides can be prepared.

        Args:
            versions: of the recipes, by their products' names.
            choose: lets another one decide, by its name; it raises an `EdgeadError` if it cannot.
        """
        self._versions, self._choose = dict(versions), choose

    def follow(self, deciding: Callable[[], str]) -> None:
        """Learn what decides, the only recipe where there are no products. See `BaseSink`."""
        self._deciding = deciding

    @property
    def recipes(self) -> dict[str, str]:
        """Versions of the recipes that can be prepared, by their names. A bundle without products has none."""
        return self._versions or {name: "" for name in (self._deciding(),) if name}

    @property
    def prepared(self) -> str:
        """Name of the recipe that is prepared; empty for none."""
        with self._lock:
            ready = self._machine.main == "Operational" and self._machine.automatic != "Initialized"
        deciding = self._deciding() if ready else ""
        return deciding.rpartition(" ")[0] if self._versions else deciding

    def prepare(self, name: str) -> None:
        """Let a recipe decide, and be ready for a job. Another recipe may be prepared while it is ready.

        Raises:
            EdgeadError: it cannot, and the old one still decides.
            WrongState: a job runs, or it is not operational; the old one still decides.
        """
        with self._lock:
            ready = self._machine.main == "Operational" and self._machine.automatic == "Ready"
            if not ready:
                self._machine.check("PrepareRecipe")
            if self._choose:
                self._choose(name)
            if not ready:
                self._transitions.append(self._machine.call("PrepareRecipe"))
            self._loop.loop.call_soon_threadsafe(self._wake.set)

    def begin(self, idle: Callable[[], float]) -> None:
        """See `Handshake.begin`. With ``start=auto`` it executes from now on."""
        super().begin(idle)
        self._begin()

    def _begin(self) -> None:
        with self._lock:
            if self._begun:
                return
            self._begun = True
            if self._options.start == "auto":
                self._take("PreoperationalToOperationalAuto")
                self._take("InitializedToReadyAuto")
                self._new_job(0.0)
                self._take("ReadyToContinuousExecutionAuto")

    def wants(self, result: Result) -> bool:
        """Return whether a job runs that this result belongs to. A single job takes the next result only."""
        if not super().wants(result):
            return False
        with self._lock:
            if not self._machine.executes or self._is_before(result):
                return False
            if self._machine.automatic == "SingleExecution":
                if self._single_taken:
                    return False
                self._single_taken = True
            return True

    def write(self, result: Result) -> None:
        """Show a result; see `Handshake.show`.

        Raises:
            LeftOut: while it waited, a job began that it does not belong to.
        """
        self._begin()  # where there is no stream
        super().write(result)

    def _is_before(self, result: Result) -> bool:
        """Return whether the picture of a result was taken before the job."""
        return 0 < result.t_capture < self._job_began

    def _on_show(self, result: Result, shown: Snapshot) -> None:
        with self._lock:
            if self._is_before(result):
                raise LeftOut("stopped")
            self._shown.append((result, shown, self._job))
            if self._machine.main == "Operational" and self._machine.automatic == "SingleExecution":
                self._take("SingleExecutionToReadyAuto")
        self._loop.loop.call_soon_threadsafe(self._wake.set)

    def call(self, method: str) -> None:
        """Take the transition of a method.

        Raises:
            WrongState: this state does not allow it.
        """
        with self._lock:
            self._transitions.append(self._machine.call(method))
            self._loop.loop.call_soon_threadsafe(self._wake.set)

    def start(self, method: str, recipe: str = "") -> str:
        """Start a job and return its id.

        Args:
            method: StartSingleJob or StartContinuous.
            recipe: that decides from now on; empty for the one that decides.

        Raises:
            EdgeadError: the recipe cannot decide, and no job starts.
            WrongState: this state does not allow it.
        """
        with self._lock:
            self._machine.check(method)
            if recipe and self._choose:
                self._choose(recipe)
            self._transitions.append(self._machine.call(method))
            self._new_job(time.monotonic())
            self._loop.loop.call_soon_threadsafe(self._wake.set)
            return self._job

    def _take(self, transition: str) -> None:
        self._transitions.append(self._machine.take(transition))

    def _new_job(self, began: float) -> None:
        self._jobs += 1
        self._job, self._single_taken = f"{self.handshake.session}-{self._jobs}", False
        self._job_began = began

    async def _publish_for_ever(self) -> None:
        failing = False
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), PERIOD)
            self._wake.clear()
            try:
                await self._publish()
                failing = False
            except Exception as error:  # else clients would see the last verdict for ever
                if not failing:
                    _log.warning("%s: a result or state cannot be published: %s", self.name, describe(error))
                failing = True

    async def _publish(self) -> None:
        """Bring the address space up to date: results and their events, then variables and states."""
        snapshot = self.handshake.snapshot()
        with self._lock:
            stalled = self._begun and not snapshot.valid
            if stalled and self._machine.main == "Operational":
                self._take("OperationalToErrorAuto")
            elif not stalled and self._machine.main == "Error":
                self._take("ErrorToOperationalAuto")
        await self._space.write(snapshot)
        while self._shown:  # one at a time: a result that cannot be published takes no other along
            await self._space.add(*self._shown.popleft())
        with self._lock:
            transitions = [self._transitions.popleft() for _ in range(len(self._transitions))]
            state, job = (self._machine.main, self._machine.automatic), self._job
        await self._space.move(transitions, state, job)

    def details(self) -> dict[str, Any]:
        """See `Handshake.account`; ``state`` is that of the state machine."""
        with self._lock:
            state = self._machine.automatic if self._machine.main == "Operational" else self._machine.main
        return {**super().details(), "state": state}

    def close(self) -> None:
        self.handshake.close()

        async def stop() -> None:
            self._cycle.cancel()
            await self._space.write(self.handshake.snapshot())
            await self._space.server.stop()

        self._loop.close(stop)
