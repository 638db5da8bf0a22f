"""The OPC UA server, with real clients on loopback."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from line_bench import GOOD, Hand, running
from plc_parts import Writing, closing, make_result
from waiting import wait_until

from edgead.decision import Verdict
from edgead.errors import ConfigError
from edgead.runtime.sinks import open_sink
from edgead.runtime.sinks.sink import LeftOut

pytest.importorskip("asyncua", reason="no asyncua (pip install 'edgead[opcua]')")

import asyncua
from asyncua import ua
from asyncua.crypto import cert_gen, security_policies
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from edgead.line.outputs.opcua import model
from edgead.line.outputs.opcua.plc import OpcuaPlc
from edgead.line.outputs.opcua.server import OpcuaServer, open_opcua
from edgead.line.outputs.register_map import Snapshot
from edgead.line.outputs.simulate import open_plc, simulate
from edgead.line.parts import Parts
from edgead.runtime.inspector import Inspector


@pytest.fixture(scope="module")
def server() -> Iterator[OpcuaServer]:
    """A server whose client starts jobs: it takes seconds to build."""
    with closing(open_sink("opcua:127.0.0.1:0?start=client&stall_ms=500")) as opened:
        assert isinstance(opened, OpcuaServer)
        opened.begin(lambda: 0.0)
        opened.follow(lambda: "bottle")
        yield opened


@pytest.fixture(autouse=True)
def _from_the_beginning(request: pytest.FixtureRequest) -> None:
    if "server" in request.fixturenames:
        server = request.getfixturevalue("server")
        server.begin(lambda: 0.0)
        server.handshake.timing = type(server.handshake.timing)(ack=False, hold_ms=2000, stall_ms=500)
        wait_until(lambda: server.details()["state"] != "Error")
        if server.details()["state"] != "Preoperational":
            server.call("Reset")


class Client:
    """A client at a server's vision system."""

    def __init__(self, client: Any) -> None:
        self.client, self.events = client, list[Any]()

    async def prepare(self) -> None:
        self.index = await self.client.get_namespace_index(model.NAMESPACE)
        self.system = await self.client.nodes.objects.get_child("1:VisionSystem")
        self.machine = await self.at("VisionStateMachine")
        self.automatic = await self.at("VisionStateMachine", "AutomaticModeStateMachine")

    async def at(self, *path: str) -> Any:
        return await self.system.get_child([f"{self.index}:{name}" for name in path])

    async def call(self, place: Any, name: str, *inputs: Any) -> Any:
        return await place.call_method(f"{self.index}:{name}", *inputs)

    async def start(self, name: str, recipe: str | None = None, expected: int = 0) -> str:
        """Start a job and return its id."""
        ids = ua.MeasIdDataType(), ua.PartIdDataType(), ua.RecipeIdExternalDataType(Id=recipe), ua.ProductIdDataType()
        parameters = ua.Variant([], ua.VariantType.Variant, is_array=True)
        job, error = await self.call(self.automatic, name, *ids, parameters)
        assert error == expected
        return str(job.Id)

    async def become_ready(self) -> None:
        assert await self.call(self.machine, "SelectModeAutomatic") == 0
        recipes = await self.at("RecipeManagement")
        named = ua.RecipeIdExternalDataType(Id="bottle"), ua.RecipeIdInternalDataType()
        out, complete, error = await self.call(recipes, "PrepareRecipe", *named)
        assert (out.Id, complete, error) == ("bottle", True, 0)

    async def stop(self, name: str = "Stop") -> Any:
        place = self.automatic if name in ("Stop", "Abort") else self.machine
        return await self.call(place, name, ua.Variant(0, ua.VariantType.Int32), "a reason")

    async def state_is(self, name: str, main: bool = False) -> None:
        current = await (self.machine if main else self.automatic).get_child("0:CurrentState")
        until = time.monotonic() + 5.0
        while (await current.read_value()).Text != name:
            assert time.monotonic() < until, name
            await asyncio.sleep(0.01)
        number = next(states[name][0] for states in model.STATES.values() if name in states)
        assert await (await current.get_child("0:Id")).read_value() == ua.NodeId(number, self.index)

    async def listen(self, *kinds: str) -> None:
        subscription = await self.client.create_subscription(10, self)
        for kind in kinds:
            parent = self.client.get_node(ua.ObjectIds.BaseEventType)
            if kind == "StateChangedEventType":
                parent = self.client.get_node(ua.ObjectIds.TransitionEventType)
            await subscription.subscribe_events(self.system, await parent.get_child(f"{self.index}:{kind}"))

    def event_notification(self, event: Any) -> None:
        self.events.append(event)

    async def has(self, *messages: str) -> None:
        """Wait for events with these messages."""
        until = time.monotonic() + 30.0
        while not set(messages) <= {event.Message.Text for event in self.events}:
            assert time.monotonic() < until, [event.Message.Text for event in self.events]
            await asyncio.sleep(0.01)


def with_client(server: OpcuaServer, work: Callable[[Client], Awaitable[None]]) -> None:
    """Run a client's work."""

    async def run() -> None:
        async with asyncua.Client(f"opc.tcp://127.0.0.1:{server.port}/edgead/", timeout=5) as connected:
            client = Client(connected)
            await client.prepare()
            await client.client.load_data_type_definitions(client.client.get_node(ua.ObjectIds.Structure))
            await work(client)

    asyncio.run(run())


def test_the_types_and_parts_are_those_of_the_specification(server: OpcuaServer) -> None:
    async def look(client: Client) -> None:
        kind = await client.system.read_type_definition()
        assert kind == ua.NodeId(model.OBJECT_TYPES["VisionSystemType"], client.index)
        for place, part in (("VisionStateMachine", client.machine), ("AutomaticModeStateMachine", client.automatic)):
            assert (await part.read_browse_name()).Name == place
        for path in (["VisionStateMachine"], ["RecipeManagement"], ["ResultManagement"]):
            node = await client.at(*path)
            methods = {(await child.read_browse_name()).Name for child in await node.get_methods()}
            assert methods == set(model.METHODS[f"{path[0]}Type"])
        states = await (await client.machine.get_child("0:AvailableStates")).read_value()
        assert [node.Identifier for node in states] == [5028, 5029, 5030, 5031]
        got = await (await client.at("ResultManagement", "GetResultById")).get_child("0:OutputArguments")
        assert [(one.Name, one.DataType.Identifier) for one in await got.read_value()] == [
            ("ResultHandle", 3018),
            ("Result", 3006),
            ("Error", 6),
        ]

    with_client(server, look)


def test_a_continuous_job_tells_each_result_and_keeps_it(server: OpcuaServer) -> None:
    async def work(client: Client) -> None:
        await client.listen("ResultReadyEventType", "JobStartedEventType", "ReadyEventType", "RecipePreparedEventType")
        assert not server.wants(make_result())
        await client.become_ready()
        job = await client.start("StartContinuous")
        await client.state_is("ContinuousExecution")
        made = make_result(Verdict.FAIL, "Teil-ä", id="id-1", bundle_digest="abc", t_capture=time.monotonic())
        assert server.wants(made)
        await asyncio.to_thread(server.write, made)
        await client.has("JobStarted: job " + job, "Recipe bottle is prepared")
        await client.has(f"Result {server.details()['sequence']}: FAIL")
        told = next(event for event in client.events if event.Message.Text.startswith("Result"))
        assert (told.PartId.Id, told.JobId.Id) == ("Teil-ä", job)
        assert (told.InternalRecipeId.Id, told.InternalRecipeId.Version) == ("bottle", "3")
        assert [one.Value for one in told.ResultContent][:4] == ["FAIL", "", 1.5, 2.5]
        management, wait = await client.at("ResultManagement"), ua.Variant(0, ua.VariantType.Int32)
        _, found, error = await client.call(management, "GetResultById", ua.ResultIdDataType(Id="id-1"), wait)
        assert (found.PartId.Id, found.ResultState, found.InternalConfigurationId.Id, error) == ("Teil-ä", 1, "abc", 0)
        parts = await client.call(management, "GetResultComponentsById", ua.ResultIdDataType(Id="id-1"), wait)
        assert (parts[4], parts[6].Id, parts[-1]) == (1, "Teil-ä", 0)
        *_, error = await client.call(management, "GetResultById", ua.ResultIdDataType(Id="none"), wait)
        assert error == 2
        assert await client.stop() == 0
        await client.state_is("Ready")
        await client.has("Ready: job " + job)
        assert not server.wants(make_result())

    with_client(server, work)


def test_a_result_that_cannot_be_published_holds_no_other_up(
    server: OpcuaServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread that publishes ended, and clients saw the last verdict for ever."""

    async def work(client: Client) -> None:
        await client.listen("ResultReadyEventType")
        for part, took in (("first", 1e300), ("second", 1.0)):  # at once: they are published together
            server.write(make_result(Verdict.FAIL, part, latency_ms={"total": took}))
        await client.has(f"Result {server.details()['sequence']}: FAIL")
        assert [event.PartId.Id for event in client.events] == ["second"]

    with_client(server, work)
    assert caplog.text.count("cannot be published") == 1


def test_a_single_job_takes_one_result(server: OpcuaServer) -> None:
    async def work(client: Client) -> None:
        await client.become_ready()
        await client.start("StartSingleJob")
        await client.state_is("SingleExecution")
        assert not server.wants(make_result(t_capture=time.monotonic() - 60))  # taken before the job
        first = make_result(part="first")
        assert server.wants(first)
        assert not server.wants(make_result(part="second"))
        await asyncio.to_thread(server.write, first)
        await client.state_is("Ready")

    with_client(server, work)


def test_a_result_of_an_earlier_job_is_not_the_answer_of_a_single_one(server: OpcuaServer) -> None:
    """It waited for the acknowledgement of the one before: the next job ended with the verdict of another part."""
    server.handshake.timing = type(server.handshake.timing)(ack=True, hold_ms=5000)

    async def work(client: Client) -> None:
        await client.become_ready()
        await client.start("StartContinuous")
        first, waits = (make_result(part=part, t_capture=time.monotonic()) for part in ("first", "waits"))
        assert server.wants(first)
        assert server.wants(waits)
        writing = Writing(server.write, first)
        await asyncio.to_thread(wait_until, lambda: server.handshake.snapshot().part_id == "first")
        assert await client.stop() == 0
        await client.listen("ResultReadyEventType")
        job = await client.start("StartSingleJob")
        assert server.handshake.acknowledge(server.handshake.snapshot().sequence)
        assert await asyncio.to_thread(writing.end) == ""
        with pytest.raises(LeftOut, match="stopped"):
            await asyncio.to_thread(server.write, waits)
        own = make_result(part="own", t_capture=time.monotonic())
        assert server.wants(own)
        writing = Writing(server.write, own)
        await client.has(f"Result {server.details()['sequence']}: PASS")
        assert server.handshake.acknowledge(server.handshake.snapshot().sequence)
        assert await asyncio.to_thread(writing.end) == ""
        assert [(event.PartId.Id, event.JobId.Id) for event in client.events] == [("own", job)]

    with_client(server, work)


def test_a_job_that_starts_while_a_result_is_about_to_be_shown_does_not_get_it(server: OpcuaServer) -> None:
    async def work(client: Client) -> None:
        await client.become_ready()
        await client.start("StartContinuous")
        late = make_result(part="late", t_capture=time.monotonic())
        assert server.wants(late)
        assert await client.stop() == 0
        await client.listen("ResultReadyEventType")
        with server.handshake.changed:
            writing = Writing(server.write, late)
            time.sleep(0.05)  # it waits for this block to end
            server.start("StartSingleJob")
        assert "stopped" in await asyncio.to_thread(writing.end)
        own = make_result(part="own", t_capture=time.monotonic())
        assert server.wants(own)
        await asyncio.to_thread(server.write, own)
        await client.has(f"Result {server.details()['sequence']}: PASS")
        assert [event.PartId.Id for event in client.events] == ["own"]

    with_client(server, work)


def test_a_job_is_decided_by_the_recipe_that_it_names(server: OpcuaServer) -> None:
    """Another one decided, and the client was told that there was no error."""
    asked: list[str] = []

    def choose(name: str) -> None:
        if name == "cup":
            raise ConfigError("Its bundle is missing.")
        asked.append(name)

    async def work(client: Client) -> None:
        await client.become_ready()
        for name, expected in (("lid", 1), ("cup", 3), ("cap", 0)):
            await client.start("StartSingleJob", name, expected)
            await client.state_is("Ready" if expected else "SingleExecution")
        with pytest.raises(ua.UaStatusCodeError, match="BadInvalidState"):
            await client.start("StartContinuous", "bottle")

    server.take_recipes({"bottle": "3", "cap": "1", "cup": "1"}, choose)
    try:
        with_client(server, work)
    finally:
        server.take_recipes({}, lambda name: None)
    assert asked == ["bottle", "cap"]


def test_values_and_results_have_the_time_at_which_they_were_made(server: OpcuaServer) -> None:
    """Values had none, and a result that waited for the one before had the time at which it was shown."""

    async def work(client: Client) -> None:
        await client.become_ready()
        await client.listen("ResultReadyEventType")
        await client.start("StartContinuous")
        taken, began = time.monotonic(), datetime.now(timezone.utc)
        await asyncio.sleep(0.5)
        made = make_result(score=1.25, t_capture=taken, latency_ms={"total": 100.0})
        assert server.wants(made)
        await asyncio.to_thread(server.write, made)
        await client.has(f"Result {server.details()['sequence']}: PASS")
        (told,) = client.events
        times = told.CreationTime, told.ProcessingTimes.EndTime, told.ProcessingTimes.StartTime
        assert [round((each - began).total_seconds(), 1) for each in times] == [0.1, 0.1, 0.0]
        for name in ("sequence", "heartbeat", "verdict", "score"):
            value = await client.client.get_node(ua.NodeId(f"VisionSystem.PlcMap.{name}", 1)).read_data_value()
            assert value.SourceTimestamp is not None
            assert value.ServerTimestamp is not None
            assert began <= value.SourceTimestamp <= value.ServerTimestamp

    with_client(server, work)


def test_the_time_for_which_a_client_needs_a_result_holds_no_call_up(server: OpcuaServer) -> None:
    """It is a hint. The call waited so long for an unknown result, and all other calls of the client behind it."""

    async def work(client: Client) -> None:
        management, needed = await client.at("ResultManagement"), ua.Variant(60_000, ua.VariantType.Int32)
        for name in ("GetResultById", "GetResultComponentsById"):
            *_, error = await client.call(management, name, ua.ResultIdDataType(Id="gone"), needed)
            assert error == 2

    with_client(server, work)


def test_results_can_be_listed(server: OpcuaServer) -> None:
    server.write(make_result(part="[7]", id="list-7"))
    for number in range(4):
        server.write(
            make_result(Verdict.UNKNOWN if number == 2 else Verdict.PASS, f"lot-{number}", id=f"list-{number}")
        )

    async def listed(client: Client, state: int, part: str, most: int, start: int) -> list[Any]:
        ids = (ua.MeasIdDataType(), ua.PartIdDataType(Id=part), ua.RecipeIdExternalDataType())
        more = (ua.RecipeIdInternalDataType(), ua.ConfigurationIdDataType(), ua.ConfigurationIdDataType())
        page = [ua.Variant(value, ua.VariantType.UInt32) for value in (most, start)]
        arguments = (
            *ids,
            *more,
            ua.ProductIdDataType(),
            ua.JobIdDataType(),
            *page,
            ua.Variant(0, ua.VariantType.Int32),
        )
        filtered = ua.Variant(state, ua.VariantType.Int32), *arguments
        answer: list[Any] = await client.call(await client.at("ResultManagement"), "GetResultListFiltered", *filtered)
        return answer

    async def work(client: Client) -> None:
        until = time.monotonic() + 5
        while len((await listed(client, 0, "lot-*", 0, 0))[3]) < 4:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        for arguments, complete, ids in (
            ((0, "lot-*", 2, 0), False, ["list-3", "list-2"]),
            ((0, "lot-*", 2, 2), True, ["list-1", "list-0"]),
            ((4, "lot-?", 0, 0), True, ["list-2"]),
            ((0, "lot-9", 0, 0), True, []),
            ((0, "[7]", 0, 0), True, ["list-7"]),  # brackets of an id are no pattern
        ):
            done, count, _, found, error = await listed(client, *arguments)
            assert (done, count, [one.ResultId.Id for one in found or []], error) == (complete, len(ids), ids, 0)

    with_client(server, work)


def test_recipes_are_those_of_the_run(server: OpcuaServer) -> None:
    asked: list[str] = []

    def prepare(name: str) -> None:
        asked.append(name)
        if name == "cap":
            raise ConfigError("Its bundle is missing.")

    async def work(client: Client) -> None:
        await client.call(client.machine, "SelectModeAutomatic")
        recipes = await client.at("RecipeManagement")
        for name, version, expected in (
            ("none", None, 1),
            ("cap", None, 3),
            ("bottle", "2", 1),  # a result of this recipe has version 3
            ("bottle 3", None, 1),
            ("bottle", "3", 0),
        ):
            named = ua.RecipeIdExternalDataType(Id=name, Version=version), ua.RecipeIdInternalDataType()
            out, complete, error = await client.call(recipes, "PrepareRecipe", *named)
            assert (complete, error) == (expected == 0, expected)
            await client.state_is("Ready" if expected == 0 else "Initialized")
        assert (out.Id, out.Version) == ("bottle", "3")
        some = [ua.Variant(0, kind) for kind in (ua.VariantType.UInt32, ua.VariantType.UInt32, ua.VariantType.Int32)]
        for prepared, expected in ((2, ["bottle 3", "cap 1"]), (1, ["bottle 3"]), (0, ["cap 1"])):
            wanted = ua.Variant(prepared, ua.VariantType.Int32)
            filtered = ua.RecipeIdExternalDataType(), ua.ProductIdDataType(), wanted, *some
            *_, listed, error = await client.call(recipes, "GetRecipeListFiltered", *filtered)
            assert ([f"{one.Id} {one.Version}" for one in listed], error) == (expected, 0)

    server.take_recipes({"bottle": "3", "cap": "1"}, prepare)
    server.follow(lambda: "bottle 3")
    try:
        with_client(server, work)
    finally:
        server.take_recipes({}, lambda name: None)
        server.follow(lambda: "bottle")
    assert asked == ["cap", "bottle"]


def test_the_bundle_can_be_prepared_before_the_first_part(inspector: Inspector) -> None:
    """It was unknown until a first result came, and that of a part may need the job that the client cannot start."""
    camera, parts = Hand(), Parts()
    server = open_opcua("opcua:127.0.0.1:0?start=client")

    async def work(client: Client) -> None:
        await client.listen("ResultReadyEventType")
        assert await client.call(client.machine, "SelectModeAutomatic") == 0
        named = ua.RecipeIdExternalDataType(), ua.RecipeIdInternalDataType(Id="level")
        assert (await client.call(await client.at("RecipeManagement"), "PrepareRecipe", *named))[1:] == [True, 0]
        await client.start("StartSingleJob")
        parts.trigger("part-1")
        camera.show(GOOD)
        await client.state_is("Ready")
        await client.has(f"Result {server.details()['sequence']}: PASS")
        assert [one.PartId.Id for one in client.events] == ["part-1"]

    with running(inspector, parts, [camera], sinks=[server]):
        with_client(server, work)


def test_a_recipe_that_the_state_refuses_does_not_decide(server: OpcuaServer) -> None:
    asked: list[str] = []

    async def refused(client: Client) -> None:
        named = ua.RecipeIdExternalDataType(Id="cap"), ua.RecipeIdInternalDataType()
        with pytest.raises(ua.UaStatusCodeError, match="BadInvalidState"):
            await client.call(await client.at("RecipeManagement"), "PrepareRecipe", *named)

    async def work(client: Client) -> None:
        await refused(client)  # not operational
        await client.become_ready()
        for job in ("StartSingleJob", "StartContinuous"):
            await client.start(job)
            await refused(client)
            assert await client.stop() == 0
        assert await client.stop("Halt") == 0
        await refused(client)

    server.take_recipes({"bottle": "3", "cap": "1"}, asked.append)
    try:
        with_client(server, work)
    finally:
        server.take_recipes({}, lambda name: None)
    assert asked == ["bottle"]


def test_a_call_in_the_wrong_state_or_with_wrong_arguments_is_refused(server: OpcuaServer) -> None:
    async def work(client: Client) -> None:
        with pytest.raises(ua.UaStatusCodeError, match="BadInvalidState"):
            await client.stop()
        with pytest.raises(ua.UaStatusCodeError, match="BadInvalidArgument"):
            await client.call(await client.at("RecipeManagement"), "PrepareRecipe", 7)
        assert await client.stop("Halt") == 0
        await client.state_is("Halted", main=True)
        assert await client.stop("Reset") == 0
        await client.state_is("Preoperational", main=True)

    with_client(server, work)


def test_a_session_that_its_client_left_ends_after_two_minutes(server: OpcuaServer) -> None:
    async def work(client: Client) -> None:
        assert client.client.session_timeout == 120_000  # an hour was asked for

    with_client(server, work)


def test_a_stream_that_hangs_is_an_error_state(server: OpcuaServer) -> None:
    idle = [0.0]
    server.begin(lambda: idle[0])

    async def work(client: Client) -> None:
        await client.listen("StateChangedEventType")
        await client.become_ready()
        await client.start("StartContinuous")
        server.write(make_result())
        idle[0] = 1.0
        await client.state_is("Error", main=True)
        assert not server.wants(make_result())
        nodes = [client.client.get_node(ua.NodeId(f"VisionSystem.PlcMap.{name}", 1)) for name in ("valid", "verdict")]
        assert await client.client.read_values(nodes) == [0, 0]
        idle[0] = 0.0
        await client.state_is("Operational", main=True)
        await client.state_is("ContinuousExecution")
        await client.has("OperationalToErrorAuto", "ErrorToOperationalAuto")

    with_client(server, work)


def test_only_the_acknowledgement_can_be_written(server: OpcuaServer) -> None:
    async def work(client: Client) -> None:
        for node in await (await client.system.get_child("1:PlcMap")).get_children():
            name = (await node.read_browse_name()).Name
            if name == "acknowledge":
                continue
            with pytest.raises(ua.UaStatusCodeError):
                await node.write_value(await node.read_data_value())
        with pytest.raises(ua.UaStatusCodeError):
            await client.system.add_variable(ua.NodeId("new", 1), "1:new", 1)

    with_client(server, work)


def test_a_plc_that_reads_under_load_never_pairs_two_results(server: OpcuaServer) -> None:
    server.handshake.timing = type(server.handshake.timing)(ack=True, hold_ms=5000)
    wait_until(lambda: not server.handshake.snapshot().verdict)  # of an earlier test; it would get a new number
    server.handshake.continue_after(1000)
    first = server.handshake.snapshot().sequence + 1
    ended, wrong = threading.Event(), list[Any]()

    def poll() -> None:
        with closing(open_plc(server.name)) as plc:
            assert isinstance(plc, OpcuaPlc)
            while not ended.is_set():
                read = plc.read()
                if not read.verdict:
                    continue
                if read.verdict != (1 if read.sequence % 2 == 0 else 2) or read.part_id != f"part-{read.sequence}":
                    wrong.append(read)
                plc.acknowledge(read.sequence)

    reader = threading.Thread(target=poll)
    reader.start()
    for number in range(first, first + 60):
        verdict = Verdict.PASS if number % 2 == 0 else Verdict.FAIL
        assert Writing(server.write, make_result(verdict, f"part-{number}")).end() == ""
    ended.set()
    reader.join()
    assert not wrong


def make_certificate(folder: Path, name: str, server: bool = False) -> tuple[Path, Path]:
    """Write a self-signed certificate and its key."""
    uri = "urn:edgead" if server else f"urn:{name}"
    key = cert_gen.generate_private_key()
    uses = [ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH]
    names = [x509.UniformResourceIdentifier(uri), x509.DNSName("localhost")]
    certificate = cert_gen.generate_self_signed_app_certificate(key, name, {}, names, extended=uses)
    paths = folder / f"{name}.der", folder / f"{name}.pem"
    paths[0].write_bytes(certificate.public_bytes(Encoding.DER))
    paths[1].write_bytes(cert_gen.dump_private_key_as_pem(key))
    return paths


@pytest.mark.slow
def test_certificates_decide_who_may_connect(tmp_path: Path) -> None:
    own, friend, stranger = (make_certificate(tmp_path, name, name == "own") for name in ("own", "friend", "stranger"))
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "friend.der").write_bytes(friend[0].read_bytes())

    async def connect(port: int, certificate: tuple[Path, Path] | None) -> str:
        client = asyncua.Client(f"opc.tcp://127.0.0.1:{port}/edgead/", timeout=5)
        if certificate:
            client.application_uri = f"urn:{certificate[0].stem}"
            policy = security_policies.SecurityPolicyBasic256Sha256
            await client.set_security(policy, *map(str, certificate), server_certificate=str(own[0]))
        async with client:
            node = client.get_node(ua.NodeId("VisionSystem.PlcMap.version", 1))
            return f"version {await node.read_value()}"

    uri = f"opcua:127.0.0.1:0?cert={own[0]}&key={own[1]}&trust={tmp_path / 'trust'}"
    with closing(open_opcua(uri)) as server:
        assert asyncio.run(connect(server.port, friend)) == "version 1"
        with pytest.raises(ua.UaError, match="Untrusted"):
            asyncio.run(connect(server.port, stranger))
        with pytest.raises(ua.UaError):
            asyncio.run(connect(server.port, None))
        # start=auto: a job runs as soon as the stream does
        assert server.details()["state"] == "Preoperational"
        server.begin(lambda: 0.0)
        assert server.details()["state"] == "ContinuousExecution"
        before = make_result(t_capture=time.monotonic())
        assert server.wants(before)
        server.call("Stop")
        server.start("StartSingleJob")
        assert not server.wants(before)  # a picture from before the call
    with pytest.raises(ConfigError, match=f"The key {friend[1]} does not belong to the certificate {own[0]}"):
        open_opcua(f"opcua:127.0.0.1:0?cert={own[0]}&key={friend[1]}")
    with pytest.raises(ConfigError, match="cannot be read"):
        open_opcua(f"opcua:127.0.0.1:0?cert={own[1]}&key={own[0]}")


def test_the_simulated_plc_reads_and_acknowledges(server: OpcuaServer) -> None:
    server.handshake.timing = type(server.handshake.timing)(ack=True, hold_ms=5000)
    writing = Writing(server.write, make_result(Verdict.FAIL, "Teil-ä"))
    seen: list[Snapshot] = []
    with closing(open_plc(server.name)) as plc:
        simulate(plc, seen.append, results=1)
    assert writing.end() == ""
    assert [(one.part_id, one.verdict, one.valid) for one in seen] == [("Teil-ä", 2, 1)]
    said: list[str] = []
    ended = threading.Event()
    with closing(open_plc("opcua:127.0.0.1:1")) as plc:
        thread = threading.Thread(target=lambda: simulate(plc, seen.append, say=said.append, stopped=ended))
        thread.start()
        wait_until(lambda: bool(said))
        ended.set()
        thread.join()
    assert said == ["No OPC UA server answers at 127.0.0.1:1. Is edgead running, with --sink opcua:…?"]


def test_the_documentation_lists_what_is_left_out() -> None:
    page = (Path(__file__).parents[3] / "docs" / "plc.md").read_text(encoding="utf-8")
    listed = page.split("<!-- left out -->")[1].split("<!-- /left out -->")[0]
    assert re.findall(r"`(\w+)`", listed) == list(model.LEFT_OUT)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("start=later", "start must be one of auto, client"),
        ("keep=0", "keep must be at least 1"),
        ("cert=a.pem", "cert and key of an OPC UA server belong together"),
        ("trust=DIR", "trust needs a certificate"),
        ("cert=absent.pem&key=absent.key", r"cert of the OPC UA server does not exist: absent\.pem"),
    ],
)
def test_a_wrong_option_is_named(options: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        open_opcua(f"opcua:127.0.0.1:0?{options}")
