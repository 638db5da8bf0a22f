"""The webhook sink: retries, servers that misbehave, secrets, TLS."""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from made_result import adds_up, make_result
from ports import free_port
from self_signed import make_certificate
from waiting import wait_until

from edgead.errors import SinkError
from edgead.runtime.sink_worker import SinkWorker
from edgead.runtime.sinks import open_sink
from edgead.runtime.sinks.webhook import Webhook


class Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        code = server.codes.pop(0) if server.codes else 204
        server.keys.append(self.headers.get("Idempotency-Key"))
        server.got.append((code, body["frame_id"], self.headers.get("Authorization"), self.path))
        self.send_response(code)
        self.end_headers()

    def log_message(self, format: str, *values: object) -> None:
        """Quiet."""


@pytest.fixture
def hook() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.codes, server.got, server.keys = [], [], []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_webhook_tries_again_and_keeps_its_password(hook: Any) -> None:
    hook.codes = [503, 429]
    sink = Webhook(f"http://me:secret@127.0.0.1:{hook.server_port}/in?key=secret", first_delay=0.01)
    sink.write(make_result(7))
    assert [code for code, *_ in hook.got] == [503, 429, 204]
    assert hook.got[-1] == (204, 7, "Basic bWU6c2VjcmV0", "/in?key=secret")
    assert "secret" not in sink.name


def test_webhook_looks_for_its_server_before_a_run(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Webhook(f"http://127.0.0.1:{hook.server_port}/in")
    assert sink.look() == "the server answers (HTTP 501)"  # it knows no OPTIONS
    for code, said in ((401, "HTTP 401"), (503, "HTTP 503"), (308, "redirects")):
        monkeypatch.setattr(Hook, "do_OPTIONS", lambda self, code=code: self.send_error(code), raising=False)
        with pytest.raises(SinkError, match=said):
            sink.look()
    assert not hook.got
    with pytest.raises(SinkError, match="refused"):
        Webhook(f"http://127.0.0.1:{free_port()}/in").look()


def test_webhook_gives_up_by_name(hook: Any) -> None:
    hook.codes = [400]
    sink = Webhook(f"http://127.0.0.1:{hook.server_port}/in", first_delay=0.01)
    with pytest.raises(SinkError, match="refuses the result: HTTP 400"):
        sink.write(make_result())
    assert len(hook.got) == 1
    gone = Webhook("http://me:secret@127.0.0.1:9/", attempts=2, first_delay=0.01)
    with pytest.raises(SinkError, match=r"in 2 attempts: .*refused") as caught:
        gone.write(make_result())
    assert "secret" not in str(caught.value)


Talk = Callable[[socket.socket], None]


def _is_silent(link: socket.socket) -> None:
    time.sleep(20)


def _trickles(link: socket.socket) -> None:
    link.sendall(b"HTTP/1.1 200 OK\r\n")
    for _ in range(200):
        link.sendall(b"X-Wait: more\r\n")
        time.sleep(0.1)


def _trickles_its_body(link: socket.socket) -> None:
    link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(200):
        link.sendall(b".")
        time.sleep(0.1)


def _says(answer: bytes) -> Talk:
    return lambda link: link.sendall(answer)


@pytest.fixture
def talk_to() -> Iterator[Callable[[Talk], int]]:
    """A function that starts a server which reads a request and then does something, and returns its port."""
    servers = []

    def start(talk: Talk) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve(link: socket.socket) -> None:
            with link, suppress(OSError):
                request = link.recv(65536)
                while request[:1] == b"P" and request[-1:] != b"}" and (more := link.recv(65536)):
                    request += more  # or what is left unread would reset the connection
                talk(link)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return int(server.getsockname()[1])

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    ("talk", "error"),
    [
        (_is_silent, "no complete answer within 0.5 s|timed out"),
        (_trickles, "no complete answer within 0.5 s"),
        (_trickles_its_body, "no complete answer within 0.5 s"),
        (_says(b""), "closed the connection without an answer"),
        (_says(b"SSH-2.0-OpenSSH_9.6\r\n"), "not HTTP"),
        (_says(b"HTTP/1.1 200 OK\r\n"), "truncated"),
        (_says(b"HTTP/1.1 200 OK\r\nContent-Le"), "truncated"),
        (_says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok"), "truncated"),
        (_says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok"), "truncated"),
        (_says(b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n"), "HTTP 500"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_webhook_without_a_whole_answer_is_not_taken(
    talk_to: Callable[[Talk], int], talk: Talk, error: str, scheme: str
) -> None:
    before = threading.active_count()
    uri = f"{scheme}://me:geheim@127.0.0.1:{talk_to(talk)}/in"
    worker = SinkWorker(Webhook(uri, attempts=2, first_delay=0.01, timeout=0.5))
    start = time.monotonic()
    worker.offer(make_result())
    wait_until(lambda: worker.account()["failed"] == 1)
    worker.close()
    assert time.monotonic() - start < 5
    assert "in 2 attempts" in worker.account()["last_error"]
    assert "geheim" not in str(worker.account())
    if scheme == "http":
        assert re.search(error, worker.account()["last_error"])
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "http-request"])  # none is left behind
    assert threading.active_count() <= before + 3


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_webhook_follows_no_redirect(hook: Any, talk_to: Callable[[Talk], int], code: int) -> None:
    answer = (
        f"HTTP/1.1 {code} x\r\nLocation: http://localhost:{hook.server_port}/?token=geheim\r\nContent-Length: 0\r\n\r\n"
    )
    worker = SinkWorker(Webhook(f"http://me:geheim@127.0.0.1:{talk_to(_says(answer.encode()))}/in"))
    worker.offer(make_result())
    worker.close()
    assert not hook.got
    assert worker.account()["failed"] == 1
    assert f"redirects (HTTP {code}) to http://localhost:{hook.server_port}/?token=…" in worker.account()["last_error"]


def test_webhook_verifies_tls(hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    hook.socket = context.wrap_socket(hook.socket, server_side=True)
    hook.handle_error = lambda *arguments: None
    sink = Webhook(f"https://127.0.0.1:{hook.server_port}/in", attempts=2, first_delay=0.01)
    with pytest.raises(SinkError, match="certificate verify failed"):
        sink.write(make_result(1))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    sink.write(make_result(2))
    assert [frame_id for _, frame_id, *_ in hook.got] == [2]


def test_webhook_does_not_wait_for_a_name_that_is_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments: time.sleep(2) or [])
    start = time.monotonic()
    with pytest.raises(SinkError, match=r"no complete answer within 0\.2 s"):
        Webhook("http://nowhere.example/in", attempts=1, timeout=0.2).write(make_result())
    assert time.monotonic() - start < 1.5
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "http-request"])


def test_webhook_tells_receivers_what_to_deduplicate_by(hook: Any) -> None:
    hook.codes = [500]
    sink = Webhook(f"http://127.0.0.1:{hook.server_port}/in", first_delay=0.01)
    result = make_result()
    result.id = "0190-unique"
    sink.write(result)
    assert hook.keys == ["0190-unique", "0190-unique"]


def test_webhook_that_is_away_costs_one_attempt_for_each_result(hook: Any) -> None:
    hook.codes = [500] * 6
    sink = Webhook(f"http://127.0.0.1:{hook.server_port}/in", first_delay=0.01)
    for number in range(3):
        with pytest.raises(SinkError, match="500"):
            sink.write(make_result(number))
    assert [frame_id for _, frame_id, *_ in hook.got] == [0, 0, 0, 0, 1, 2]
    hook.codes = []
    sink.write(make_result(3))
    hook.codes = [500]
    sink.write(make_result(4))
    assert [frame_id for _, frame_id, *_ in hook.got][6:] == [3, 4, 4]


def test_webhook_stops_waiting_when_the_run_ends(hook: Any) -> None:
    hook.codes = [500] * 100
    worker = SinkWorker(Webhook(f"http://127.0.0.1:{hook.server_port}/in", first_delay=60), patience=0.3)
    for number in range(10):
        worker.offer(make_result(number))
    start = time.monotonic()
    worker.close()
    assert time.monotonic() - start < 3
    assert adds_up(worker.account())
    assert worker.account()["dropped_by_cause"] == {"closed": 9}


def test_secrets_come_from_the_environment_and_from_files(
    hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINE_PASSWORD", "a/b?c#d@e %")
    (tmp_path / "token").write_text("tok-äöü-1234567\n", encoding="utf-8")
    uri = f"HTTP://me:${{LINE_PASSWORD}}@127.0.0.1:{hook.server_port}/hook/${{file:{tmp_path / 'token'}}}"
    worker = SinkWorker(open_sink(uri))
    worker.offer(make_result())
    worker.close()
    [(_, _, authorization, path)] = hook.got
    assert base64.b64decode(authorization.removeprefix("Basic ")).decode() == "me:a/b?c#d@e %"
    assert unquote(path) == "/hook/tok-äöü-1234567"
    assert "tok-" not in str(worker.account())
