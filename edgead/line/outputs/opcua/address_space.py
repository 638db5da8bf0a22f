"""The nodes of the OPC UA server: the vision system, and the register map as variables of the same names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgead import __version__
from edgead.errors import ConfigError, require
from edgead.line.outputs.opcua import model
from edgead.line.outputs.opcua.results import Results
from edgead.line.outputs.opcua.state_machine import ends_of, machine_of
from edgead.line.outputs.opcua.types import Types
from edgead.line.outputs.register_map import ACKNOWLEDGE, REGISTERS, Snapshot
from edgead.runtime.result import Result

NAMESPACE = "urn:edgead"
SYSTEM, MAP = "VisionSystem", "PlcMap"
"""Browse names in our namespace: of the vision system below Objects, and of the map below the vision system."""
_VARIANTS = {"UINT16": "UInt16", "UINT32": "UInt32", "FLOAT32": "Float", "STRING": "String"}
_PLACES = {
    "VisionStateMachineType": ("VisionStateMachine",),
    "VisionAutomaticModeStateMachineType": ("VisionStateMachine", "AutomaticModeStateMachine"),
    "RecipeManagementType": ("RecipeManagement",),
    "ResultManagementType": ("ResultManagement",),
}
"""Of each type the path from the vision system to its instance."""
_LAST = "verdict", "cause"
"""Written after everything else."""
SESSION = 120.0
"""Seconds without a request after which a session ends, or fewer if its client asks for fewer. A session with a
subscription outlives its connection, so that its client can come back to it, and costs as much as a living one: a
client that loses its connection every few seconds must not leave hundreds behind."""


class AddressSpace:
    """The nodes of one server. Its coroutines run in one event loop.

    Args:
        endpoint: ``opc.tcp://HOST:PORT/…``.
        keep: how many results are kept.

    Attributes:
        server: the ``asyncua.Server``.
        ua: the module ``asyncua.ua``.
        types: the types of the companion specification.
        results: what clients can ask for again.
    """

    def __init__(self, endpoint: str, keep: int) -> None:
        asyncua: Any = require("asyncua", "opcua")
        self.ua, self._keep, self._endpoint = asyncua.ua, keep, endpoint
        self.server = asyncua.Server()
        self.server.set_security_policy([self.ua.SecurityPolicyType.NoSecurity])
        self._variables: dict[str, Any] = {}
        self._written = Snapshot()
        self._events: dict[str, Any] = {}
        self._machines: dict[str, Any] = {}
        self._state = "", ""

    async def build(self) -> None:
        """Create all nodes."""
        ua, server = self.ua, self.server
        await server.init()
        server.iserver.max_session_timeout_ms = SESSION * 1000
        server.set_endpoint(self._endpoint)
        server.set_server_name("edgead")
        await server.set_application_uri(NAMESPACE)
        server.allow_remote_admin(False)
        index = await server.register_namespace(model.NAMESPACE)
        self.types = Types(server, index)
        await self.types.build()
        self.results = Results(self.types.classes, ua, self._keep)
        self.system = await server.nodes.objects.add_object(
            ua.NodeId(SYSTEM, 1), ua.QualifiedName(SYSTEM, 1), objecttype=self.types.objects["VisionSystemType"].nodeid
        )
        await self._build_map()
        await self._build_events()
        await server.set_build_info(NAMESPACE, "edgead", "edgead", __version__, "", datetime.now(timezone.utc))
        for kind in model.STATES:
            machine = await self._instance(kind)
            for name, table in (("AvailableStates", model.STATES), ("AvailableTransitions", model.TRANSITIONS)):
                nodes = [ua.NodeId(number, index) for number, *_ in table[kind].values()]
                await (await machine.get_child(f"0:{name}")).write_value(ua.Variant(nodes, ua.VariantType.NodeId))
            self._machines[kind] = machine
        await self.move([], ("Preoperational", "Initialized"), "")

    async def _build_map(self) -> None:
        ua = self.ua
        place = await self.system.add_object(ua.NodeId(f"{SYSTEM}.{MAP}", 1), ua.QualifiedName(MAP, 1))
        for register in (*REGISTERS, ACKNOWLEDGE):
            variant = ua.VariantType[_VARIANTS[register.kind]]
            empty: Any = "" if register.kind == "STRING" else 0
            self._variables[register.name] = await place.add_variable(
                ua.NodeId(f"{SYSTEM}.{MAP}.{register.name}", 1), ua.QualifiedName(register.name, 1), empty, variant
            )
        await self._set("version", self._written.version)
        await self._variables[ACKNOWLEDGE.name].set_writable()

    async def _build_events(self) -> None:
        for name in (*model.EVENT_TYPES, model.STATE_CHANGED[1]):
            made = await self.server.get_event_generator(self.types.objects[name], self.system)
            for field, (_, kind) in model.EVENT_TYPES.get(name, (0, {}))[1].items():
                made.event.data_types[field] = self.types.variant_of(kind)
            self._events[name] = made

    async def _instance(self, kind: str) -> Any:
        return await self.system.get_child([f"{self.types.index}:{one}" for one in _PLACES[kind]])

    async def secure(self, cert: str, key: str, trust: str) -> None:
        """Accept only signed and encrypted connections.

        Raises:
            ConfigError: the certificate and the key cannot be read, or do not belong together.
        """
        validator: Any = require("asyncua.crypto.validator", "opcua")
        stores: Any = require("asyncua.crypto.truststore", "opcua")
        server, kinds = self.server, self.ua.SecurityPolicyType
        try:
            await server.load_certificate(Path(cert), _format_of(cert))
            await server.load_private_key(Path(key), format=_format_of(key))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"The certificate {cert} or the key {key} cannot be read: {error}.") from error
        if server.iserver.certificate.public_key() != server.iserver.private_key.public_key():
            raise ConfigError(f"The key {key} does not belong to the certificate {cert}.")
        options = validator.CertificateValidatorOptions
        wanted, store = options.TIME_RANGE | options.URI | options.PEER_CLIENT, None
        if trust:
            store = stores.TrustStore([Path(trust)], [])
            await store.load()
            wanted |= options.TRUSTED
        server.set_certificate_validator(validator.CertificateValidator(wanted, store))
        server.set_security_policy([kinds.Basic256Sha256_SignAndEncrypt, kinds.Aes128Sha256RsaOaep_SignAndEncrypt])

    async def link(self, call: Callable[[str, list[Any]], Awaitable[Any]], acknowledge: Callable[[int], bool]) -> None:
        """Connect the methods, which `call` runs by name, and the variable that the client writes."""
        ua = self.ua
        index = self.types.index
        for kind in _PLACES:
            place = await self._instance(kind)
            for name in model.METHODS[kind]:
                node = await place.get_child(f"{index}:{name}")

                async def run(parent: Any, *arguments: Any, name: str = name) -> Any:
                    return await call(name, list(arguments))

                self.server.link_method(node, run)
        node = self._variables[ACKNOWLEDGE.name]

        def written(data: Any, attribute: Any, value: Any) -> None:
            data.attributes[attribute].value = value
            given = value.Value.Value
            acknowledge(given if isinstance(given, int) else 0)

        self.server.set_attribute_value_setter(node.nodeid, written, ua.AttributeIds.Value)

    async def write(self, snapshot: Snapshot) -> None:
        """Write what has changed. A new verdict comes after everything else, an old one goes before."""
        names = [field.name for field in fields(Snapshot) if field.name not in _LAST]
        if snapshot.sequence != self._written.sequence and self._written.verdict:
            await self._set("verdict", 0)
            self._written = replace(self._written, verdict=0)
        for name in (*names, *reversed(_LAST)):
            if getattr(snapshot, name) != getattr(self._written, name):
                await self._set(name, getattr(snapshot, name))
        self._written = snapshot

    async def _set(self, name: str, value: Any) -> None:
        kind = next(register.kind for register in REGISTERS if register.name == name)
        variant, now = self.ua.Variant(value, self.ua.VariantType[_VARIANTS[kind]]), datetime.now(timezone.utc)
        made = self.ua.DataValue(variant, SourceTimestamp=now, ServerTimestamp=now)
        await self.server.write_attribute_value(self._variables[name].nodeid, made)

    async def add(self, result: Result, shown: Snapshot, job: str) -> None:
        """Keep a result and tell clients that it is ready."""
        made = self.results.add(result, shown, job)
        event = self._events["ResultReadyEventType"]
        for name in model.EVENT_TYPES["ResultReadyEventType"][1]:
            setattr(event.event, name, getattr(made, name))
        await event.trigger(message=f"Result {shown.sequence}: {made.ResultContent[0].Value}")

    async def tell_prepared(self, recipe: Any) -> None:
        """Tell clients that a recipe is prepared."""
        event = self._events["RecipePreparedEventType"]
        event.event.InternalId = recipe
        await event.trigger(message=f"Recipe {recipe.Id} is prepared")

    async def move(self, transitions: Sequence[str], state: tuple[str, str], job: str) -> None:
        """Tell clients what the state machines did, and where they are."""
        for name in transitions:
            await self._tell_transition(name)
            if name.startswith("ReadyTo") and name.partition("To")[2].startswith(("Single", "Continuous")):
                await self._tell_job("JobStartedEventType", job)
            elif name.partition("To")[2].startswith("Ready") and "Execution" in name:
                await self._tell_job("ReadyEventType", job)
        if state == self._state:
            return
        for kind, name in zip(model.STATES, state):
            await self._write_state(kind, name)
        self._state = state

    async def _tell_job(self, kind: str, job: str) -> None:
        event = self._events[kind]
        event.event.JobId = self.types.classes["JobIdDataType"](Id=job)
        await event.trigger(message=f"{kind.removesuffix('EventType')}: job {job}")

    async def _tell_transition(self, name: str) -> None:
        ua, event = self.ua, self._events[model.STATE_CHANGED[1]]
        origin, target = ends_of(name)
        kind = machine_of(name)
        number = model.TRANSITIONS[kind][name][0]
        for field, word in (("FromState", origin), ("ToState", target), ("Transition", name)):
            setattr(event.event, field, ua.LocalizedText(word))
        await event.trigger(message=name)
        await self._write_last(kind, name, number)

    async def _write_last(self, kind: str, name: str, number: int) -> None:
        last = await self._machines[kind].get_child("0:LastTransition")
        await self._write_named(last, name, number)

    async def _write_state(self, kind: str, name: str) -> None:
        current = await self._machines[kind].get_child("0:CurrentState")
        await self._write_named(current, name, model.STATES[kind][name][0])

    async def _write_named(self, node: Any, name: str, number: int) -> None:
        ua = self.ua
        await node.write_value(ua.Variant(ua.LocalizedText(name), ua.VariantType.LocalizedText))
        place = await node.get_child("0:Id")
        await place.write_value(ua.Variant(ua.NodeId(number, self.types.index), ua.VariantType.NodeId))


def _format_of(path: str) -> str:
    return "pem" if Path(path).read_bytes()[:11] == b"-----BEGIN " else "der"
