"""MQTT against a real mosquitto: started, stopped and restarted by the tests."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from full_disk import limited_files
from ports import free_port
from self_signed import make_certificate
from waiting import wait_until

from edgead.decision import Verdict
from edgead.errors import ConfigError, SinkError
from edgead.runtime.result import Result
from edgead.runtime.sink_worker import SinkWorker, raise_for
from edgead.runtime.sinks import open_sink

mqtt = pytest.importorskip("paho.mqtt.client", reason="no paho-mqtt (pip install 'edgead[mqtt]')")
PROGRAM = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
PASSWORDS = shutil.which("mosquitto_passwd")
if not PROGRAM:
    pytest.skip("no mosquitto (apt: mosquitto)", allow_module_level=True)


def make_result(number: int) -> Result:
    return Result(1.0, Verdict.FAIL, "made for a test", 0.5, source_id="cam", frame_id=number)


class Broker:
    """A mosquitto on a free port that can be stopped and started again, and then still knows its listeners."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.port = free_port()
        self.config = folder / "mosquitto.conf"
        sessions = ["persistence true", f"persistence_location {folder}/"]
        text = [f"listener {self.port} 127.0.0.1", "user root", *sessions, *lines]
        self.config.write_text(
            "\n".join(text if any("allow" in line for line in lines) else [*text, "allow_anonymous true"])
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([str(PROGRAM), "-c", str(self.config)], stderr=subprocess.DEVNULL)
        wait_until(self._answers)

    def _answers(self) -> bool:
        with socket.socket() as link:
            return link.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process:
            self.process.terminate()  # at which it writes its sessions down
            self.process.wait()
            self.process = None


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    brokers = []

    def make(*lines: str) -> Broker:
        brokers.append(Broker(tmp_path, *lines))
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.stop()


class Listener:
    """Collects what is published, also what was while the listener itself was not connected again yet."""

    def __init__(self, port: int, prepare: Callable[[Any], object] = lambda client: None) -> None:
        self.got: list[tuple[str, str]] = []
        self.subscribed = threading.Event()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="listener", clean_session=False)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_message = lambda client, data, message: self.got.append(
            (message.topic, message.payload.decode())
        )
        self.client.on_connect = lambda client, *rest: client.subscribe("line/#", qos=1)
        self.client.on_subscribe = lambda *rest: self.subscribed.set()
        prepare(self.client)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self.subscribed.wait(20)

    def numbers(self) -> list[int]:
        return [json.loads(payload)["frame_id"] for topic, payload in list(self.got) if topic == "line/results"]

    def statuses(self) -> list[str]:
        return [payload for topic, payload in list(self.got) if topic == "line/results/status"]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def stored(path: Path) -> int:
    database = sqlite3.connect(path)
    count = int(database.execute("SELECT COUNT(*) FROM waiting").fetchone()[0])
    database.close()
    return count


def test_results_arrive_in_order_and_the_end_is_told(make_broker: Callable[..., Broker], tmp_path: Path) -> None:
    broker = make_broker()
    broker.start()
    listener = Listener(broker.port)
    store = tmp_path / "store.sqlite"
    worker = SinkWorker(open_sink(f"mqtt://127.0.0.1:{broker.port}/line/results?store={store}"))
    assert worker.sink.look() == "the broker answers"  # type: ignore[attr-defined]
    for number in range(100):
        worker.offer(make_result(number))
    wait_until(lambda: len(listener.numbers()) == 100)
    worker.close()
    wait_until(lambda: listener.statuses()[-1:] == ["offline"])
    listener.close()
    assert listener.numbers() == list(range(100))
    assert listener.statuses() == ["online", "offline"]
    assert stored(store) == 0


def test_what_the_broker_missed_arrives_when_it_is_back(
    make_broker: Callable[..., Broker], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = make_broker()
    store = tmp_path / "store.sqlite"
    uri = f"mqtt://127.0.0.1:{broker.port}/line/results?store={store}"
    away = SinkWorker(open_sink(uri))  # the broker is not there yet, and this process ends before it is
    for number in range(30):
        away.offer(make_result(number))
    away.close()
    assert away.account()["taken"] == 30
    assert stored(store) == 30

    broker.start()
    listener = Listener(broker.port)
    worker = SinkWorker(open_sink(uri))
    wait_until(lambda: len(set(listener.numbers())) == 30)
    broker.stop()
    for number in range(30, 60):
        worker.offer(make_result(number))
    wait_until(lambda: worker.account()["taken"] == 30)
    broker.start()
    wait_until(lambda: set(listener.numbers()) == set(range(60)))
    wait_until(lambda: worker.sink.stored == 0)  # type: ignore[attr-defined]
    worker.close()
    listener.close()
    firsts = list(dict.fromkeys(listener.numbers()))
    assert firsts == list(range(60))
    assert caplog.text.count("the broker is back") == 1


def test_password_and_last_will(
    make_broker: Callable[..., Broker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not PASSWORDS:
        pytest.skip("no mosquitto_passwd")
    file = tmp_path / "passwords"
    subprocess.run([PASSWORDS, "-b", "-c", str(file), "cell", "right secret"], check=True, capture_output=True)
    broker = make_broker("allow_anonymous false", f"password_file {file}")
    broker.start()
    listener = Listener(broker.port, lambda client: client.username_pw_set("cell", "right secret"))
    monkeypatch.setenv("BROKER_PASSWORD", "right secret")
    sink = open_sink(f"mqtt://cell:${{BROKER_PASSWORD}}@127.0.0.1:{broker.port}/line/results")
    assert "secret" not in sink.name  # type: ignore[attr-defined]
    wait_until(lambda: listener.statuses() == ["online"])
    client: Any = sink._client  # type: ignore[attr-defined]
    client.loop_stop()
    client.socket().close()  # a crash: no farewell
    wait_until(lambda: listener.statuses() == ["online", "offline"])
    listener.close()
    sink.close()


def test_refused_password_is_said_and_results_are_kept(
    make_broker: Callable[..., Broker], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = make_broker("allow_anonymous false")
    broker.start()
    store = tmp_path / "store.sqlite"
    worker = SinkWorker(open_sink(f"mqtt://cell:wrong-secret@127.0.0.1:{broker.port}/line/results?store={store}"))
    worker.offer(make_result(1))
    wait_until(lambda: "refuses the connection" in caplog.text)
    time.sleep(1.2)  # the second attempt is after a second; it is refused as well, and no news
    worker.close()
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "the broker refuses the connection: Not authorized; results are kept on disk",
        "1 results are not delivered yet; the next run sends them",
    ]
    assert "secret" not in caplog.text
    assert stored(store) == 1


def test_files_for_tls_are_refused_where_there_is_no_tls() -> None:
    """Password and results were sent in plain text to a broker that nobody had verified."""
    for option in ("ca", "cert", "key"):
        with pytest.raises(ConfigError, match=f"{option} is for TLS.*Write mqtts://"):
            open_sink(f"mqtt://127.0.0.1:1/line?{option}=broker.pem")


def test_tls(make_broker: Callable[..., Broker], tmp_path: Path) -> None:
    key, certificate = make_certificate(tmp_path)
    broker = make_broker(f"certfile {certificate}", f"keyfile {key}")
    broker.start()
    listener = Listener(broker.port, lambda client: client.tls_set(str(certificate)))
    worker = SinkWorker(open_sink(f"mqtts://127.0.0.1:{broker.port}/line/results?ca={certificate}"))
    worker.offer(make_result(5))
    wait_until(lambda: listener.numbers() == [5])
    worker.close()
    listener.close()


def test_what_is_on_its_way_is_not_given_up(make_broker: Callable[..., Broker], tmp_path: Path) -> None:
    from edgead.runtime import broker as brokers
    from edgead.runtime.sinks.mqtt import MqttSink

    broker = make_broker()
    broker.start()
    listener = Listener(broker.port)
    sink = MqttSink(
        brokers.Broker("127.0.0.1", broker.port), "line/results", store=tmp_path / "store.sqlite", most_stored=3
    )
    worker = SinkWorker(sink)
    for number in range(2000):
        worker.offer(make_result(number), wait=True)
    wait_until(lambda: not worker.account()["waiting"] and not sink.stored)
    worker.close()
    taken = worker.account()["taken"]
    wait_until(lambda: len(set(listener.numbers())) >= taken)
    listener.close()
    assert len(set(listener.numbers())) == taken
    assert taken + worker.account()["dropped"] == 2000


def test_store_has_one_owner(tmp_path: Path) -> None:
    uri = f"mqtt://127.0.0.1:9/line/results?store={tmp_path / 'store.sqlite'}"
    first = open_sink(uri)
    with pytest.raises(ConfigError, match="in use by another running MQTT sink"):
        open_sink(uri)
    other = "import sys; from edgead.runtime.sinks import open_sink; open_sink(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", other, uri], capture_output=True, text=True)
    assert "in use by another running MQTT sink" in done.stderr
    first.close()
    open_sink(uri).close()


def test_full_disk_of_the_store_is_retried(make_broker: Callable[..., Broker], tmp_path: Path) -> None:
    broker = make_broker()
    broker.start()
    listener = Listener(broker.port)
    uri = f"mqtt://127.0.0.1:{broker.port}/line/results?store={tmp_path / 'store.sqlite'}"
    worker = SinkWorker(open_sink(uri))
    with limited_files(60_000):
        for number in range(300):
            worker.offer(make_result(number))
        time.sleep(0.5)
        assert worker.account()["waiting"] > 0
    wait_until(lambda: not worker.account()["waiting"])
    wait_until(lambda: len(set(listener.numbers())) == 300)
    worker.close()
    listener.close()
    assert worker.account()["taken"] == 300
    assert list(dict.fromkeys(listener.numbers())) == list(range(300))


def keep(sink: Any, *numbers: int) -> None:
    for number in numbers:
        sink.write(make_result(number))
    sink.flush()


@pytest.mark.parametrize("how", ["deleted", "renamed", "replaced"])
@pytest.mark.parametrize("connected", [True, False])
def test_a_store_that_is_gone_is_made_again_with_what_was_in_it(
    make_broker: Callable[..., Broker], tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str, connected: bool
) -> None:
    """Results counted as taken and vanished, with the process, in a file without a name."""
    broker = make_broker()
    if connected:
        broker.start()
    folder = tmp_path / "stores"
    store, other = folder / "store.sqlite", folder / "other.sqlite"
    uri = f"mqtt://127.0.0.1:{broker.port}/line/results?store="
    sink, spare = open_sink(f"{uri}{store}"), open_sink(f"mqtt://127.0.0.1:9/line/results?store={other}")
    keep(spare, 100, 101)  # another store that has results, in the place of the first one
    spare.close()
    keep(sink, 0, 1)
    if connected:
        wait_until(lambda: not sink.stored)
        broker.stop()
    if how == "deleted":
        for file in folder.glob("store*"):
            file.unlink()
    elif how == "renamed":
        store.rename(folder / "backup.sqlite")
    else:
        other.replace(store)
    wait_until(lambda: "goes on in a new file" in caplog.text)
    keep(sink, 2)
    sink.close()
    assert sink.lost.total() == 0
    rest = [*([100, 101] if how == "replaced" else []), *([] if connected else [0, 1]), 2]
    assert stored(store) == len(rest)
    broker.start()
    listener = Listener(broker.port)
    following = open_sink(f"{uri}{store}")
    wait_until(lambda: listener.numbers()[-len(rest) :] == rest)
    following.close()
    listener.close()


def test_a_store_whose_folder_is_gone_is_said_and_its_results_are_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "share"
    worker = SinkWorker(open_sink(f"mqtt://127.0.0.1:9/line/results?store={folder / 'store.sqlite'}"))
    worker.offer(make_result(0))
    wait_until(lambda: worker.account()["taken"] == 1)
    shutil.rmtree(folder)
    wait_until(lambda: "share is not there any more" in caplog.text)
    worker.offer(make_result(1))
    worker.close()
    assert "2 results are not delivered and lost" in caplog.text
    assert worker.account()["dropped_by_cause"] == {"store_gone": 2}
    assert not folder.exists()
    with pytest.raises(SinkError, match=r"did not take 2 of 2 results \(2 store_gone\)"):
        raise_for([worker])


def test_a_broker_that_was_never_there_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And so is, at the end, what it did not get."""
    uri = f"mqtt://127.0.0.1:{free_port()}/line/results"
    worker = SinkWorker(open_sink(f"{uri}?store={tmp_path / 'store.sqlite'}"))
    for number in range(2):
        worker.offer(make_result(number))
    wait_until(lambda: caplog.messages)
    with pytest.raises(SinkError, match="no connection"):
        worker.sink.look()  # type: ignore[attr-defined]
    time.sleep(1.2)  # the second attempt is after a second
    worker.close()
    assert caplog.messages == [
        f"{uri}: no connection (Connection refused); results are kept on disk",
        f"{uri}: 2 results are not delivered yet; the next run sends them",
    ]


def test_store_is_limited_oldest_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from edgead.runtime import broker as brokers
    from edgead.runtime.sinks.mqtt import MqttSink

    store = tmp_path / "store.sqlite"
    before = SinkWorker(MqttSink(brokers.Broker("127.0.0.1", 9), "line/results", store=store))
    for number in range(100, 104):
        before.offer(make_result(number))
    before.close()
    worker = SinkWorker(MqttSink(brokers.Broker("127.0.0.1", 9), "line/results", store=store, most_stored=10))
    for number in range(25):
        worker.offer(make_result(number))
    worker.close()
    account = worker.account()
    assert (account["offered"], account["taken"], account["dropped_by_cause"]) == (25, 10, {"store_full": 15})
    assert (account["given_up"], account["stored"]) == (19, 10)  # with four of the run before, which was told taken
    with pytest.raises(SinkError, match=r"did not take 15 of 25 results \(15 store_full\)"):
        raise_for([worker])
    database = sqlite3.connect(store)
    assert "the store is full" in caplog.text
    kept = [json.loads(row[0])["frame_id"] for row in database.execute("SELECT payload FROM waiting ORDER BY id")]
    database.close()
    assert kept == list(range(15, 25))
