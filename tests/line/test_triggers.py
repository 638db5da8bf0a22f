"""Triggers and what they speak to: an HTTP client, a real mosquitto, a real Modbus server, gpiod's own interface."""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ports import free_port
from waiting import wait_until

from edgead.errors import ConfigError
from edgead.line.parts import Parts
from edgead.line.triggers import BaseTrigger, open_trigger, open_triggers
from edgead.line.triggers.http import HttpTrigger

BROKER = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


class Opened:
    """Takes the parts that a trigger opens."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, float]] = []
        self.doubts: list[str] = []
        self.said: list[str] = []

    def open_part(self, part_id: str = "", at: float | None = None, doubt: str = "") -> str:
        self.doubts.append(doubt)
        self.parts.append((part_id, time.monotonic() if at is None else at))
        return part_id or f"own-{len(self.parts)}"

    @property
    def ids(self) -> list[str]:
        return [part_id for part_id, _ in self.parts]


@pytest.fixture
def begin() -> Iterator[Callable[[Any], tuple[Any, Opened]]]:
    """Opens a trigger and begins it."""
    opened: list[Any] = []

    def start(uri: Any) -> tuple[Any, Opened]:
        trigger, taken = (open_trigger(uri) if isinstance(uri, str) else uri), Opened()
        trigger.say = taken.said.append
        opened.append(trigger)
        trigger.begin(taken.open_part)
        return trigger, taken

    yield start
    for trigger in opened:
        trigger.close()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("bell:1", "Unknown trigger 'bell:1'"),
        ("camera:front", "takes no name"),
        ("camera:?colour=red", "option"),
        ("camera:?tolerance=5&tolerance=50", "tolerance is given twice"),
        ("http://127.0.0.1/part", "an address to listen on"),
        ("http://127.0.0.1:8090/part?fild=id", r"fild.*field"),
        ("http://0.0.0.0:8090/part", r"needs a token.\n.*--trigger"),
        ("mqtt://host", "a topic"),
        ("mqtt://host/line/%23", "a topic without #"),
        ("mqtt://host/topic?ca=broker.pem", "Write mqtts://"),
        ("modbus://host/lamp/1", "Kinds: coil, discrete, holding, input"),
        ("modbus://host/coil/x", "a kind and a number"),
        ("modbus://host/coil/65536", "a number to 65535"),
        ("modbus://host:0/coil/1", "must name a host"),
        ("modbus://[host/coil/1", "malformed"),
        ("modbus://user:password@host/coil/1", "must name a host"),
        ("modbus://host/coil/1#2", "must name a host"),
        ("modbus://host/coil/1?id=65530", "at most register 65535"),
        ("modbus://host/coil/1?unit=300", "unit must be"),
        ("modbus://host/coil/1?id=100&id_registers=0", "id_registers"),
        ("gpio:17", "a chip and a line"),
        ("gpio:/dev/gpiochip99/17", "gpioinfo"),
        ("gpio:/dev/gpiochip99/17?edge=both", "one of rising, falling"),
        ("operator:secret@host", "looks like an address"),
    ],
)
def test_triggers_that_cannot_be_opened_are_refused(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_trigger(uri)


def test_a_taken_port_is_named_and_what_was_open_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        first = HttpTrigger("127.0.0.1", 0, "/part")
        with pytest.raises(ConfigError, match=f"cannot listen on port {port}"):
            open_triggers([first, f"http://127.0.0.1:{port}/part"], lambda: None, print)
        assert first.stopped.is_set()
    with pytest.raises(ConfigError, match=r"needs the methods begin and close; .*function"):
        open_triggers([print], lambda: None, print)  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="the only trigger"):
        open_triggers(["camera:", HttpTrigger("127.0.0.1", 0, "/part")], lambda: None, print)


def test_a_signal_that_is_given_twice_is_refused() -> None:
    """Each part had two results: one with its picture, and one UNKNOWN."""
    pytest.importorskip("pymodbus", reason="no pymodbus")
    uri = "modbus://127.0.0.1:9/coil/3"
    with pytest.raises(ConfigError, match="coil/3 is given twice"):
        open_triggers([uri, f"{uri}?poll_ms=9"], lambda: None, print)
    for trigger in open_triggers([uri, f"{uri}?unit=2"], lambda: None, print):  # two PLCs behind one gateway
        trigger.close()


def test_bounces_are_counted_and_open_nothing() -> None:
    bounces: list[int] = []
    trigger, taken = BaseTrigger("switch", debounce=10), Opened()
    with pytest.raises(ConfigError, match="has not begun"):
        trigger.fire()
    trigger.bounced = lambda: bounces.append(1)
    trigger.begin(taken.open_part)
    opened = [bool(trigger.fire("", at)) for at in (1.0, 1.004, 1.009, 1.011, 1.5)]
    assert opened == [True, False, False, True, True]
    assert len(bounces) == 2
    assert [at for _, at in taken.parts] == [1.0, 1.011, 1.5]


def test_two_signals_of_several_threads_may_come_in_another_order() -> None:
    """The one that fired first and came second was a bounce, also without debouncing: its part got no answer."""
    trigger, taken = BaseTrigger("two lanes"), Opened()
    trigger.begin(taken.open_part)
    assert [bool(trigger.fire(name, at)) for name, at in (("B", 2.0), ("A", 1.9999), ("C", 2.0))] == [True, True, True]
    trigger.debounce = 10.0
    assert [bool(trigger.fire(name, at)) for name, at in (("E", 3.0), ("D", 2.5), ("D again", 2.495))] == [
        True,
        True,
        False,
    ]


def post(url: str, body: bytes = b"{}", **headers: str) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_http_opens_a_part_for_each_post(begin: Callable[[Any], Any]) -> None:
    trigger, taken = begin(f"http://127.0.0.1:{free_port()}/part?field=code&debounce=0")
    url = f"http://127.0.0.1:{trigger.port}/part"
    assert post(url, b'{"code": "A-17", "line": 3}') == (202, {"part_id": "A-17"})
    assert post(url, b'{"code": 4711}') == (202, {"part_id": "4711"})
    assert post(url, b"") == (202, {"part_id": "own-3"})
    assert post(url, b'{"code": null}')[0] == 202
    assert taken.ids == ["A-17", "4711", "", ""]
    trigger.debounce = 10_000.0
    assert post(url)[0] == 429
    trigger._open_part = None
    assert post(url)[0] == 409


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/other", b"{}", {}, 404),
        ("/part", b"[1]", {}, 400),
        ("/part", b"{", {}, 400),
        ("/part", b"[" * 60_000, {}, 400),
        ("/part", b'{"part_id": true}', {}, 400),
        ("/part", json.dumps({"part_id": "x" * 300}).encode(), {}, 400),
        ("/part", b" " * 70_000, {}, 413),
        ("/part", b"{}", {"Content_Type": "text/plain"}, 415),
        ("/part", b"{}", {"Host": "evil.example"}, 403),
    ],
)
def test_http_refuses_what_is_no_trigger(
    begin: Callable[[Any], Any], path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    trigger, taken = begin(f"http://127.0.0.1:{free_port()}/part")
    assert post(f"http://127.0.0.1:{trigger.port}{path}", body, **headers)[0] == status
    assert not taken.parts


@pytest.mark.parametrize("body", [b"", b'{"part_id": "A-1"}'])
def test_http_opens_no_part_for_a_body_that_is_cut_short(begin: Callable[[Any], Any], body: bytes) -> None:
    trigger, taken = begin(f"http://127.0.0.1:{free_port()}/part")
    head = f"POST /part HTTP/1.1\r\nHost: 127.0.0.1:{trigger.port}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", trigger.port), timeout=5) as client:
        client.sendall(f"{head}Content-Length: 40\r\n\r\n".encode() + body)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(4096).split()[1] == b"400"
    assert not taken.parts


def test_http_on_a_network_wants_its_token(begin: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIGGER_TOKEN", "correct-horse")
    trigger, taken = begin(f"http://0.0.0.0:{free_port()}/part?token=${{TRIGGER_TOKEN}}")
    url = f"http://127.0.0.1:{trigger.port}/part"
    assert post(url)[0] == 401
    assert post(url, Authorization="Bearer wrong")[0] == 401
    assert post(url, Authorization="Bearer correct-horse", Host="line-3")[0] == 202
    assert len(taken.parts) == 1
    assert "correct-horse" not in trigger.name


class Broker:
    """A mosquitto on a free port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\nuser root\nallow_anonymous true")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen([str(BROKER), "-c", str(self._config)], stderr=subprocess.DEVNULL)
        wait_until(self._answers)

    def _answers(self) -> bool:
        with socket.socket() as link:
            return link.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if not BROKER:
        pytest.skip("no mosquitto (apt: mosquitto)")
    made = Broker(tmp_path)
    yield made
    made.stop()


def test_a_broker_that_was_never_there_is_said(begin: Callable[[Any], Any]) -> None:
    """Otherwise a wrong address is a line without parts."""
    pytest.importorskip("paho.mqtt.client", reason="no paho-mqtt")
    port = free_port()
    _, taken = begin(f"mqtt://127.0.0.1:{port}/part")
    wait_until(lambda: taken.said)
    assert taken.said == [
        f"mqtt://127.0.0.1:{port}/part: no connection (Connection refused); its triggers are lost until there is one"
    ]


def test_mqtt_opens_a_part_for_each_message(begin: Callable[[Any], Any], broker: Broker) -> None:
    publish = pytest.importorskip("paho.mqtt.publish", reason="no paho-mqtt")

    def send(*payloads: bytes, retain: bool = False) -> None:
        messages = [{"topic": "line/3/part", "payload": each, "qos": 2, "retain": retain} for each in payloads]
        publish.multiple(messages, "127.0.0.1", broker.port)

    broker.start()
    send(b'{"part_id": "old"}', retain=True)
    trigger, taken = begin(f"mqtt://127.0.0.1:{broker.port}/line/+/part")
    wait_until(lambda: trigger.ready)
    send(b'{"part_id": "A-17"}', b"", b"\xff not JSON", b'{"part_id": 4711}')
    wait_until(lambda: len(taken.parts) == 4)
    assert taken.ids == ["A-17", "", "", "4711"]  # the retained one is old, and the unreadable one is a part
    assert sum("a retained message is ignored" in text for text in taken.said) == 1
    assert any("no readable part_id" in text for text in taken.said)
    broker.stop()
    wait_until(lambda: any("unreachable" in text for text in taken.said))
    assert not trigger.ready
    broker.start()
    wait_until(lambda: trigger.ready)
    send(b'{"part_id": "back"}')
    wait_until(lambda: len(taken.parts) == 5)
    assert taken.ids[-1] == "back"
    assert [text.endswith("the broker is back") for text in taken.said].count(True) == 1


@pytest.fixture
def plc() -> Iterator[Any]:
    pytest.importorskip("pymodbus", reason="no pymodbus")
    from plc_bench import Plc

    made = Plc()
    made.start()
    yield made
    made.close()


def polled(trigger: Any) -> None:
    """Let the trigger look at the PLC at least once more."""
    time.sleep(0.1)


def test_modbus_opens_a_part_when_a_coil_rises(begin: Callable[[Any], Any], plc: Any) -> None:
    plc.set("co", 12, 1)  # is set when the run begins: not an edge
    plc.set("hr", 100, *(int.from_bytes(pair, "big") for pair in (b"A-", b"17", b"\0\0")))
    trigger, taken = begin(f"modbus://127.0.0.1:{plc.port}/coil/12?poll_ms=2&id=100&id_registers=3")
    polled(trigger)
    assert not taken.parts
    for _ in range(2):
        plc.set("co", 12, 0)
        polled(trigger)
        plc.set("co", 12, 1)
        polled(trigger)
    assert taken.ids == ["A-17", "A-17"]
    plc.stop()
    wait_until(lambda: any("triggers are lost" in text for text in taken.said))
    plc.set("co", 12, 0)
    plc.start()
    wait_until(lambda: any("answers again" in text for text in taken.said))
    plc.set("co", 12, 1)
    wait_until(lambda: len(taken.parts) == 3)
    assert len(taken.said) == 2


def test_a_pause_while_modbus_waited_for_the_answer_before_is_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was named a PLC that answers slowly: the answer from before the pause came first."""
    trigger: Any = open_trigger("modbus://127.0.0.1:9/coil/12?poll_ms=1")
    resumed: list[float] = []
    answers = iter([0, 0, 1])
    fired: list[float | None] = []

    def ask(request: str, address: int, count: int) -> list[int]:
        answer = next(answers, 1)
        if answer == 0:
            time.sleep(0.01)
            resumed.append(time.monotonic())  # the process was paused, and now the answer is read
            time.sleep(0.01)
        return [answer]

    def since(moment: float) -> float:
        return 2.6 if resumed and moment < resumed[-1] else 0.0

    def open_part(part_id: str = "", at: float | None = None, doubt: str = "") -> str:
        fired.append(at)
        return part_id

    monkeypatch.setattr(trigger, "_ask", ask)
    monkeypatch.setattr("edgead.line.triggers.modbus.standstill", SimpleNamespace(since=since))
    with closing(trigger):
        trigger.begin(open_part)
        wait_until(lambda: bool(fired))
    assert fired == [None]  # nobody knows when: the part is UNKNOWN, and the pause its cause


@pytest.mark.parametrize(("code", "encoding"), [("Größe-3", "utf-8"), ("Größe-3", "latin-1"), ("№ 7", "utf-8")])
def test_modbus_reads_an_id_in_the_text_in_which_the_plc_gets_it_back(
    begin: Callable[[Any], Any], plc: Any, code: str, encoding: str
) -> None:
    """An id in UTF-8 came back as other bytes, and a product with such a name was unknown."""
    data = code.encode(encoding).ljust(10, b"\0")
    plc.set("hr", 100, *(int.from_bytes(data[place : place + 2], "big") for place in range(0, 10, 2)))
    trigger, taken = begin(f"modbus://127.0.0.1:{plc.port}/coil/12?poll_ms=2&id=100&id_registers=5")
    polled(trigger)
    plc.set("co", 12, 1)
    wait_until(lambda: taken.ids)
    assert taken.ids == [code]


def test_modbus_opens_a_part_for_each_step_of_a_counter(begin: Callable[[Any], Any], plc: Any) -> None:
    plc.set("ir", 5, 65534)
    trigger, taken = begin(f"modbus://127.0.0.1:{plc.port}/input/5?poll_ms=2")
    polled(trigger)
    # One; three at once; none; another start; one; set to 0, which is no part; one; set to 0 and counted twice.
    for value, parts in ((65535, 1), (2, 4), (2, 4), (9000, 5), (9001, 6), (0, 6), (1, 7), (500, 8), (2, 10)):
        plc.set("ir", 5, value)
        polled(trigger)
        assert len(taken.parts) == parts
    assert any("3 parts came between two polls" in text for text in taken.said)
    jumps = ["the counter jumped from 2 to 9000", "the counter jumped from 1 to 500"]
    assert [doubt for doubt in taken.doubts if "jumped" in doubt] == jumps
    assert [text.partition(": ")[2] for text in taken.said if "jumped" in text] == [
        f"{jump}; how many parts came is unknown" for jump in jumps
    ]


def test_modbus_opens_the_part_of_a_counter_that_bounced_with_its_id(begin: Callable[[Any], Any], plc: Any) -> None:
    """The first step opened a part without an id, and the one with the id was its bounce. A changeover had no name."""
    plc.set("hr", 100, int.from_bytes(b"A1", "big"))
    trigger, taken = begin(f"modbus://127.0.0.1:{plc.port}/input/5?poll_ms=2&debounce=50&id=100&id_registers=1")
    bounced: list[int] = []
    trigger.bounced = lambda: bounced.append(1)
    polled(trigger)
    plc.set("ir", 5, 3)
    polled(trigger)
    assert taken.ids == ["A1"]
    assert not taken.said
    assert len(bounced) == 2


def test_modbus_changes_over_to_the_last_of_two_products(begin: Callable[[Any], Any], plc: Any) -> None:
    """Of the first of two changeovers between two polls only the counter tells; it has no name."""
    plc.set("hr", 100, int.from_bytes(b"nu", "big"), int.from_bytes(b"t\0", "big"))
    trigger, _ = begin(f"modbus://127.0.0.1:{plc.port}/input/5?poll_ms=2&id=100&id_registers=2")
    chosen: list[str] = []

    def choose(part_id: str = "", at: float | None = None, doubt: str = "") -> str:
        if part_id != "nut":
            raise ConfigError(f"Unknown product '{part_id}'.")
        chosen.append(part_id)
        return part_id

    trigger._open_part = choose
    polled(trigger)
    plc.set("ir", 5, 2)
    polled(trigger)
    wait_until(lambda: chosen == ["nut"])


def test_modbus_opens_a_part_whose_id_cannot_be_read(begin: Callable[[Any], Any], plc: Any) -> None:
    """The PLC has signalled it, and waits for its answer."""
    plc.set("co", 12, 0)
    trigger, taken = begin(f"modbus://127.0.0.1:{plc.port}/coil/12?poll_ms=2&id=40000")
    polled(trigger)
    for count in (1, 2):
        plc.set("co", 12, 1)
        wait_until(lambda count=count: len(taken.parts) == count)
        plc.set("co", 12, 0)
        polled(trigger)
    assert taken.ids == ["", ""]
    assert all("the id of a part cannot be read" in text and "with exception 2" in text for text in taken.said)
    assert len(taken.said) == 2


def test_modbus_says_what_the_plc_refuses(begin: Callable[[Any], Any], plc: Any) -> None:
    _, taken = begin(f"modbus://127.0.0.1:{plc.port}/holding/40000")
    wait_until(lambda: taken.said)
    assert "answers read_holding_registers of 1 from 40000 with exception 2" in taken.said[0]


class Request:
    """Stands in for `gpiod.LineRequest`, where the machine has no GPIO."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.released = False

    def wait_edge_events(self, timeout: float) -> bool:
        if not self.batches:
            time.sleep(0.005)
        return bool(self.batches)

    def read_edge_events(self) -> list[Any]:
        return self.batches.pop(0)

    def release(self) -> None:
        self.released = True


def test_gpio_opens_a_part_at_each_edge(begin: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    gpiod = pytest.importorskip("gpiod", reason="no gpiod")
    request, asked = Request(), dict[str, Any]()
    assert {"wait_edge_events", "read_edge_events", "release"} <= set(dir(gpiod.LineRequest))
    fields = inspect.signature(gpiod.EdgeEvent).parameters
    assert {"timestamp_ns", "line_seqno"} <= set(fields)

    def take(path: str, **options: Any) -> Request:
        asked.update(options, path=path)
        return request

    monkeypatch.setattr(gpiod, "request_lines", _with_signature(take, inspect.signature(gpiod.request_lines)))
    trigger, taken = begin("gpio:gpiochip0/17?edge=falling&bias=pull_up&debounce=5")
    [(line, settings)] = asked["config"].items()
    assert (asked["path"], line, settings.edge_detection.name) == ("/dev/gpiochip0", 17, "FALLING")
    assert settings.debounce_period.total_seconds() == 0.005
    now = time.monotonic_ns()
    edge = gpiod.EdgeEvent.Type.FALLING_EDGE

    def event(at: int, number: int) -> Any:
        return gpiod.EdgeEvent(
            event_type=edge.value, timestamp_ns=at, line_offset=17, global_seqno=number, line_seqno=number
        )

    request.batches += [[event(now - 10**10, 1)], [event(now, 2), event(now + 10**6, 3)], [event(now + 10**7, 6)]]
    wait_until(lambda: len(taken.parts) == 5)
    assert [round(at * 1e9) - now for _, at in taken.parts[:2]] == pytest.approx([0, 10**6], abs=1000)
    assert any("2 edges came faster" in text for text in taken.said)
    assert trigger.ready
    monkeypatch.setattr(request, "wait_edge_events", _removed)
    wait_until(lambda: not trigger.ready)
    assert "no more edges can be read: No such device. Restart the run" in taken.said[-1]
    trigger.close()
    assert request.released


def _removed(_timeout: float) -> bool:
    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def test_the_metrics_tell_a_trigger_whose_signals_do_not_arrive() -> None:
    pytest.importorskip("pymodbus", reason="no pymodbus")
    http, modbus = free_port(), free_port()
    absent = f"modbus://127.0.0.1:{modbus}/coil/0"
    with closing(Parts(triggers=[f"http://127.0.0.1:{http}/part", absent, open_trigger(absent)])) as parts:
        text = parts.to_prometheus()
    assert text.count('edgead_trigger_ready{trigger="modbus') == 1
    assert f'edgead_trigger_ready{{trigger="http://127.0.0.1:{http}/part"}} 1\n' in text
    assert re.search(rf'edgead_trigger_ready{{trigger="modbus://127.0.0.1:{modbus}.*"}} 0\n', text)


def _with_signature(call: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    """A stand-in that refuses what the real function would refuse."""

    def checked(*arguments: Any, **options: Any) -> Any:
        signature.bind(*arguments, **options)
        return call(*arguments, **options)

    return checked
