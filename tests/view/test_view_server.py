"""The page's server with a real line behind it, through a real HTTP client."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fading import Fading, make_watched_bundle
from level_bundle import make_level_bundle
from view_line import TOKEN, Hand, running
from waiting import wait_until

from edgead.datasets import open_category
from edgead.errors import ConfigError
from edgead.line.drift import Drift, DriftSettings
from edgead.runtime import token
from edgead.view import server
from edgead.view.access import Access, Refused, read_token
from edgead.view.view import View

CHANGE = {"Content-Type": "application/json", "X-Edgead": "change", "Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two bundles; the scores of the second are higher by 1000."""
    folder = tmp_path_factory.mktemp("bundles")
    make_level_bundle(folder / "first.edgead")
    make_level_bundle(folder / "second.edgead", offset=1000.0)
    make_level_bundle(folder / "wrong.edgead", golden_error=5.0)
    return folder


class Page:
    """A running line with its page."""

    def __init__(self, view: View, camera: Hand, folder: Path) -> None:
        self.view, self.camera, self.folder = view, camera, folder
        self.said: list[str] = []

    def ask(self, path: str, method: str = "GET", body: object = None, **headers: str) -> tuple[int, bytes]:
        link = http.client.HTTPConnection("127.0.0.1", self.view.port, timeout=20)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            link.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = link.getresponse()
            self.headers = dict(answer.getheaders())
            return answer.status, answer.read()
        finally:
            link.close()

    def change(self, action: str, without: str = "", **values: object) -> tuple[int, str]:
        headers = {name: value for name, value in CHANGE.items() if name != without}
        status, text = self.ask(f"/api/changes/{action}", "POST", values, **headers)
        return status, text.decode().strip()

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        link = http.client.HTTPConnection("127.0.0.1", self.view.port, timeout=20)
        link.request("GET", "/api/events")
        answer = link.getresponse()
        assert answer.getheader("Content-Type", "").startswith("text/event-stream")
        try:
            while line := answer.readline():
                event, data = line.decode().strip(), answer.readline().decode().strip()
                answer.readline()
                yield event.removeprefix("event: "), json.loads(data.removeprefix("data: "))
        finally:
            link.close()

    def state(self, fits: Callable[[dict[str, Any]], object] = lambda state: state["cameras"]) -> dict[str, Any]:
        """Wait for a state."""
        until = time.monotonic() + 20
        for event, data in self.events():
            if event == "state" and fits(data):
                return data
            assert time.monotonic() < until, data
        raise AssertionError("the stream ended")

    def show(self, what: str) -> dict[str, Any]:
        """Let the camera show something and wait until the page says so."""
        self.camera.show(what)
        word = {"good": "PASS", "bad": "FAIL", "damaged": "UNKNOWN", "none": "WAITING"}[what]
        return self.state(lambda state: state["cameras"][0]["banner"]["word"] == word)


@pytest.fixture(scope="module")
def page(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("view")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIEW_TOKEN", TOKEN)
        camera = Hand()
        said: list[str] = []
        view = View("0", token="${VIEW_TOKEN}", bundles=[bundles], say=said.append)
        rejects = folder / "rejects"
        with running(bundles / "first.edgead", view, camera, [f"rejects:{rejects}?per_minute=1000"]) as ends:
            one = Page(view, camera, rejects / "marks")
            one.said = said
            one.state()
            yield one
        [summary] = ends
        assert summary["captured"] == summary["inferred"] + summary["dropped"] + summary["in_flight"]
        assert summary["in_flight"] == 0


@pytest.fixture(autouse=True)
def _no_memory_of_wrong_tokens(request: pytest.FixtureRequest) -> None:
    if "page" in request.fixturenames:
        request.getfixturevalue("page").view._access._check._wrong.clear()


def test_states_and_pictures_follow_the_line(page: Page) -> None:
    state = page.show("good")
    [camera] = state["cameras"]
    assert camera["name"] == "front"
    assert camera["age"] < 1
    assert camera["score"] == 100.0
    assert state["model"]["name"] == "first"
    assert state["ledger"]["captured"] == state["ledger"]["inferred"] + state["ledger"]["in_flight"]
    state = page.show("bad")
    assert state["sinks"][0]["sink"].startswith("rejects:")
    [camera] = page.state(lambda state: state["cameras"][0]["rejects"])["cameras"]
    assert camera["rejects"][0]["score"] == 220.0
    picture = next(data for event, data in page.events() if event == "picture" and data["verdict"] == "FAIL")
    assert picture["camera"] == "front"
    assert picture["picture"]["outline"].startswith("M")
    state = page.show("damaged")
    assert state["cameras"][0]["banner"]["text"] == "The picture is damaged"
    assert state["ledger"]["unknown_by_cause"]["unreadable"] > 0


def test_a_reject_is_shown_and_marked(page: Page) -> None:
    page.show("bad")
    page.camera.show("none")
    reject = page.state(lambda state: state["cameras"][0]["rejects"])["cameras"][0]["rejects"][0]
    shown = (one for event, data in page.events() if event == "strip" for one in data["rejects"])
    assert base64.b64decode(next(one for one in shown if one["id"] == reject["id"])["picture"])[:2] == b"\xff\xd8"
    _, large = page.ask(f"/api/rejects/{reject['id']}")
    assert json.loads(large)["outline"]
    assert page.change("mark", id=reject["id"], mark="false reject", who="Ada\nL") == (200, "{}")
    [picture] = (page.folder / "images" / "good").iterdir()
    line = json.loads((page.folder / "marks.jsonl").read_text().splitlines()[-1])
    assert line["picture"] == f"images/good/{picture.name}"
    assert line["by"] == "Ada\\nL"
    mark = {"id": reject["id"], "mark": "false reject"}
    assert page.state(lambda state: any(mark.items() <= one.items() for one in state["cameras"][0]["rejects"]))
    assert page.change("mark", id="../../x", mark="unsure")[0] == 409
    assert page.change("mark", id=reject["id"], mark="../x")[0] == 409


def test_the_threshold_is_asked_about_then_set(page: Page) -> None:
    page.show("good")
    time.sleep(0.3)
    state = page.show("bad")
    status, text = page.ask("/api/what-if?threshold=230")
    effect = json.loads(text)
    assert status == 200
    assert effect["would_pass"] == effect["failed"] > 0
    assert effect["would_fail"] == 0
    assert json.loads(page.ask("/api/what-if?threshold=50")[1])["would_fail"] > 0
    assert page.ask("/api/what-if?threshold=nan")[0] == 400
    assert len(json.loads(page.ask("/api/scores")[1])["passed"]) > 10
    digest = state["model"]["digest"]
    assert page.change("threshold", threshold=230, digest="another")[0] == 409
    assert page.change("threshold", threshold="230", digest=digest)[0] == 409
    assert state["model"]["recipe"] == ""
    assert page.change("threshold", threshold=230, digest=digest, recipe="cap 1")[0] == 409
    assert page.change("threshold", threshold=230, digest=digest, who="Ada") == (200, "{}")
    state = page.show("good")
    assert state["model"]["threshold"] == 230
    page.camera.show("bad")
    assert page.state(lambda state: state["cameras"][0]["score"] == 220)["cameras"][0]["banner"]["word"] == "PASS"
    assert page.change("threshold", threshold=130, digest=digest)[0] == 200
    lines = [json.loads(line) for line in (page.folder / "audit.jsonl").read_text().splitlines()]
    assert {"who": "Ada", "action": "threshold", "from": 130.0, "to": 230, "address": "127.0.0.1"}.items() <= next(
        line for line in lines if line["action"] == "threshold"
    ).items()


def test_a_paused_line_says_so_and_passes_nothing(page: Page) -> None:
    passed = page.show("good")["ledger"]["passed"]
    assert page.change("pause")[0] == 200
    state = page.state(lambda state: state["ledger"]["unknown_by_cause"].get("paused", 0) > 3)
    assert state["cameras"][0]["banner"]["word"] == "PAUSED"
    passed = state["ledger"]["passed"]
    time.sleep(0.3)
    assert page.state()["ledger"]["passed"] == passed
    assert page.change("resume")[0] == 200
    page.show("good")


def test_changeover(page: Page) -> None:
    page.show("good")
    state = page.state()
    assert state["bundles"] == ["first", "second", "wrong"]
    for name in ("wrong", "third", "../bundles/second", ""):
        status, why = page.change("changeover", bundle=name)
        assert status == 409, why
        assert "\\n" not in why
        assert page.state()["model"]["name"] == "first"
    assert page.change("changeover", bundle="second") == (200, "{}")
    state = page.state(lambda state: state["cameras"][0]["score"] == 1100)
    assert state["model"]["name"] == "second"
    assert state["cameras"][0]["banner"]["word"] == "PASS"
    assert page.change("changeover", bundle="first")[0] == 200
    assert any("changeover by unknown at 127.0.0.1: from first, to second" in line for line in page.said)
    lines = [json.loads(line) for line in (page.folder / "audit.jsonl").read_text().splitlines()]
    assert any("failed" in line for line in lines if line["action"] == "changeover")


def test_what_the_audit_log_cannot_hold_is_not_done(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgead.audit.os.write", refuse)
    status, why = page.change("pause")
    assert (status, why) == (
        500,
        "Nothing was changed, because the audit log cannot be written: No space left on device.",
    )
    assert not page.state()["paused"]


@pytest.mark.parametrize("without", ["Content-Type", "X-Edgead", "Authorization"])
def test_a_change_needs_token_and_headers(page: Page, without: str) -> None:
    status, _ = page.change("pause", without)
    assert status == {"Content-Type": 415, "X-Edgead": 403, "Authorization": 401}[without]
    assert not page.state()["paused"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1"])
def test_a_change_from_another_site_is_refused(page: Page, origin: str) -> None:
    status, _ = page.ask("/api/changes/pause", "POST", {}, **CHANGE, Origin=origin)
    assert status == 403
    own = f"http://127.0.0.1:{page.view.port}"
    assert page.ask("/api/changes/resume", "POST", {}, **CHANGE, Origin=own)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "", "[", "localhost.evil.example"])
def test_another_name_for_this_machine_is_refused(page: Page, host: str) -> None:
    for path in ("/", "/api/events", "/static/page.js"):
        assert page.ask(path, Host=host)[0] in (400, 421)
    assert page.ask("/", Host="localhost")[0] == 200
    assert page.ask("/", Host="192.168.0.7:80")[0] == 200


def test_only_our_own_name_with_a_domain_asks_the_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(socket, "gethostname", lambda: "Line-7")
    monkeypatch.setattr(socket, "getfqdn", lambda: asked.append("") or "line-7.plant.example")
    access = Access("127.0.0.1", "")
    for name in ("line-7", "line-7.local:80", "192.0.2.1"):
        access.check_host({"host": name})
    for name in ("evil.example", "line-8.plant.example"):
        with pytest.raises(Refused):
            access.check_host({"host": name})
    assert asked == []
    access.check_host({"host": "line-7.plant.example:8080"})
    with pytest.raises(Refused):
        access.check_host({"host": "line-7.evil.example"})
    assert asked == [""]


def test_wrong_tokens_are_counted(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {**CHANGE, "Authorization": "Bearer wrong"}
    statuses = [page.ask("/api/changes/pause", "POST", {}, **bad)[0] for _ in range(token.MOST_WRONG + 1)]
    assert statuses == [401] * token.MOST_WRONG + [429]
    assert page.change("resume")[0] == 429  # also with the right one
    monkeypatch.setattr(token, "WITHIN", 0.0)
    assert page.change("resume")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../view.py",
        "/static/%2e%2e/view.py",
        "/static/..%2fview.py",
        "/static//etc/passwd",
        "/../../etc/passwd",
        "/static/",
        "/api/rejects/..%2f..%2fx",
        "/api/rejects/x",
        "/api/changes/pause",
    ],
)
def test_no_path_leads_elsewhere(page: Page, path: str) -> None:
    status, text = page.ask(path)
    assert status in (404, 405)
    assert len(text) < 100


def test_sizes_are_limited(page: Page) -> None:
    large = json.dumps({"who": "x" * 5000}).encode()
    assert page.ask("/api/changes/pause", "POST", large, **CHANGE)[0] == 413
    assert page.ask("/api/changes/pause", "POST", b"[" * 4000, **CHANGE)[0] == 400
    assert page.ask("/api/changes/pause", "POST", b"\xff\xfe", **CHANGE)[0] == 400
    assert page.ask("/", X_Long="x" * 20_000)[0] == 431
    assert page.ask("/?" + "x" * 20_000)[0] == 431
    assert not page.state()["paused"]


def test_nothing_from_elsewhere_runs_in_the_page(page: Page) -> None:
    status, text = page.ask("/")
    assert status == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert b"http://" not in text
    assert b'<script type="module" src=' in text
    assert b"style=" not in text
    assert page.headers["x-content-type-options"] == "nosniff"


def test_a_stuck_viewer_costs_nothing(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STUCK_AFTER", 0.3)
    before = page.show("bad")["ledger"]["inferred"]
    hub = page.view._hub
    wait_until(lambda: hub.viewers == 0)  # those of other tests have gone, and do not count as the next ones
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            link = stack.enter_context(socket.create_connection(("127.0.0.1", page.view.port)))
            link.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: hub.viewers == 3)
        hub.publish("large", "large", b"0" * 20_000_000)  # more than the system's buffers hold
        wait_until(lambda: hub.viewers == 0)
        hub.publish("large", "large", b"0")
        page.state(lambda state: state["ledger"]["inferred"] > before + 10)


def test_the_page_tells_that_the_run_has_ended(bundles: Path, tmp_path: Path) -> None:
    camera, view = Hand(), View("0", folder=tmp_path)
    events: list[str] = []
    with running(bundles / "first.edgead", view, camera):
        page = Page(view, camera, tmp_path)
        page.show("good")
        assert not page.state()["may_change"]
        assert page.change("pause") == (
            403,
            "This page is read-only. Start edgead run with --view-token to allow changes.",
        )
        reader = threading.Thread(target=lambda: events.extend(event for event, _ in page.events()))
        reader.start()
        page.state()
    reader.join(5)
    assert events[-1] == "ended"


def test_the_line_continues_without_its_page(bundles: Path, tmp_path: Path) -> None:
    said: list[str] = []
    camera, view = Hand(), View("0", folder=tmp_path, say=said.append)
    with running(bundles / "first.edgead", view, camera) as ends:
        page = Page(view, camera, tmp_path)
        page.show("good")
        assert view._server is not None
        view._server._server.force_exit = view._server._server.should_exit = True
        view._server._thread.join(10)
        time.sleep(0.3)
    assert any("the run continues without it" in line for line in said)
    assert ends[0]["passed"] > 5
    assert ends[0]["captured"] == ends[0]["inferred"] + ends[0]["dropped"]


def test_names_are_only_text(bundles: Path, tmp_path: Path) -> None:
    name = '<img src=x onerror=alert(1)>"\u202e\n'
    camera, view = Hand(name), View("0", folder=tmp_path)
    with running(bundles / "first.edgead", view, camera):
        state = Page(view, camera, tmp_path).show("good")
        assert state["cameras"][0]["name"] == name


def test_other_machines_need_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundles: Path) -> None:
    with pytest.raises(ConfigError, match="--view-token"):
        View("0.0.0.0:0")
    monkeypatch.setenv("VIEW_TOKEN", TOKEN)
    camera, view = Hand(), View("0.0.0.0:0", token="${VIEW_TOKEN}", folder=tmp_path)
    with running(bundles / "first.edgead", view, camera):
        page = Page(view, camera, tmp_path)
        camera.show("good")
        wait_until(lambda: view._seen.latest)
        assert page.ask("/")[0] == 200  # the page itself holds nothing
        for path in ("/api/events", "/api/scores", "/api/rejects/x", "/api/what-if?threshold=1"):
            assert page.ask(path)[0] == 401
            assert page.ask(path, Authorization=f"Bearer {TOKEN}x")[0] == 401
            view._access._check._wrong.clear()
        assert page.ask("/api/scores", Authorization=f"Bearer {TOKEN}")[0] == 200


@pytest.mark.parametrize(
    ("text", "match"),
    [("correct-horse-battery", "visible in ps"), ("${ABSENT_TOKEN}", "not set"), ("${SHORT_TOKEN}", "at least 12")],
)
def test_a_token_comes_from_environment_or_file(text: str, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT_TOKEN", "short")
    with pytest.raises(ConfigError, match=match):
        read_token(text)


def test_a_token_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_token(f"${{file:{tmp_path / 'token'}}}") == TOKEN


def test_addresses_that_try_tokens_do_not_fill_the_memory() -> None:
    guard = Access("127.0.0.1", TOKEN)
    for number in range(token.MOST_ADDRESSES + 50):
        with pytest.raises(Refused):
            guard._check_token({"authorization": "Bearer x"}, f"10.0.{number >> 8}.{number & 255}")
    assert len(guard._check._wrong) == token.MOST_ADDRESSES


@pytest.mark.parametrize("address", ["x", "70000", "::1:80"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="--view must be a port"):
        View(address)


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="cannot be served on port"):
        View(str(taken.getsockname()[1]))


def test_a_missing_folder_of_bundles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        View("0", bundles=[tmp_path / "absent"])


def test_marks_are_a_data_set(page: Page) -> None:
    page.show("bad")
    page.state(lambda state: len(state["cameras"][0]["rejects"]) > 1)
    page.camera.show("none")  # so that these rejects stay on the page
    state = page.state(lambda state: _is_at_rest(state["ledger"], page.camera))
    for reject, mark in zip(state["cameras"][0]["rejects"], ("real defect", "false reject")):
        assert page.change("mark", id=reject["id"], mark=mark)[0] == 200
    category = open_category(page.folder / "images")
    assert category.layout == "good and bad"
    assert category.normals
    assert {sample.kind for sample in category.labelled() if sample.anomalous} == {"bad"}


def _is_at_rest(ledger: dict[str, Any], camera: Hand) -> bool:
    return ledger["captured"] == camera.delivered and not ledger["in_flight"]


def test_a_changeover_does_not_hold_up_the_end(bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIEW_TOKEN", TOKEN)
    asked, release = threading.Event(), threading.Event()

    def open_slowly(self: object, stream: object, path: Path, put: object) -> str:
        asked.set()
        release.wait(30)
        return "late"

    monkeypatch.setattr("edgead.runtime.control.Control._bring_in", open_slowly)
    camera, view = Hand(), View("0", token="${VIEW_TOKEN}", bundles=[bundles], folder=tmp_path)
    with running(bundles / "first.edgead", view, camera):
        page = Page(view, camera, tmp_path)
        page.show("good")
        threading.Thread(target=lambda: _ignore(lambda: page.change("changeover", bundle="second"))).start()
        assert asked.wait(10)
        why = "A changeover is already running. Wait until it has ended."
        assert page.change("changeover", bundle="second") == (409, why)
        began = time.monotonic()
    assert time.monotonic() - began < 6
    release.set()


def _ignore(call: Callable[[], object]) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        call()


def test_ipv6_addresses_of_one_network_count_as_one() -> None:
    guard = Access("127.0.0.1", TOKEN)
    statuses = []
    for number in range(token.MOST_WRONG + 1):
        with pytest.raises(Refused) as refused:
            guard._check_token({"authorization": "Bearer x"}, f"2001:db8::{number:x}")
        statuses.append(refused.value.status)
    assert statuses == [401] * token.MOST_WRONG + [429]


def test_drift_is_shown_and_changes_no_verdict(tmp_path: Path) -> None:
    bundle = make_watched_bundle(tmp_path / "line.edgead")
    view, camera = View("0"), Fading(count=100_000, after=60, live=True)
    drift = Drift(DriftSettings(window=50, every=0.0))
    with running(bundle.path, view, camera, watch=drift):  # type: ignore[arg-type]
        page = Page(view, camera, tmp_path)  # type: ignore[arg-type]
        assert page.state(lambda state: bool(state["cameras"]))["cameras"][0]["drift"] == []
        [shown] = page.state(lambda state: bool(state["cameras"] and state["cameras"][0]["drift"]))["cameras"]
        assert "is lower: median" in shown["drift"][0]
        assert shown["banner"]["word"] == "PASS"
