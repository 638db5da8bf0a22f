"""`edgead pull` against a real HTTPS server: what it puts in place, what it resumes, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from command_line import inside
from https_folder import ENDLESS, HttpsFolder, make_certificate, send
from level_bundle import make_level_bundle
from listener import Listener

from edgead.bundle import manifest_digest, read_bundle
from edgead.errors import BundleError, ConfigError, DeviceError, EdgeadError, PullError
from edgead.pull import Pulled, download, pull
from edgead.review.version import write_version
from edgead.runtime.sources.tls import Tls, connect, explain_connection
from edgead.signatures.keys import new_key, read_private_key
from edgead.signatures.signing import sign

Answer = Callable[[BaseHTTPRequestHandler, str, bytes], bool]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys, certificates and signed bundles: first, second, which was made later, and others."""
    folder = tmp_path_factory.mktemp("shared")
    new_key(folder / "ours")
    for name, address in (("server", "127.0.0.1"), ("other", "127.0.0.1"), ("elsewhere", "192.0.2.1")):
        make_certificate(folder, name, address)
    make_level_bundle(folder / "first.edgead")
    make_level_bundle(folder / "second.edgead", offset=1000.0)
    make_level_bundle(folder / "wrong.edgead", golden_error=50.0)
    made = {"second": "2026-01-01T00:00:00+00:00", "wrong": "2027-01-01T00:00:00+00:00"}
    for name in ("first", "second", "wrong"):
        change(folder / f"{name}.edgead", folder / "ours", **({"created": made[name]} if name in made else {}))
    return folder


def change(bundle: Path, key: Path, **values: Any) -> None:
    """Change fields of a manifest, seal it and sign it, whatever is in it."""
    manifest = {**json.loads((bundle / "manifest.json").read_text()), **values}
    manifest["digest"] = manifest_digest(manifest)
    content = json.dumps(manifest).encode()
    (bundle / "manifest.json").write_bytes(content)
    (bundle / "manifest.sig").write_bytes(read_private_key(key).sign(content))


@pytest.fixture
def server(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpsFolder]:
    """Serves a copy of the second bundle."""
    monkeypatch.setattr(download, "PAUSE", 0.01)
    folder = Path(shutil.copytree(shared / "second.edgead", tmp_path / "served"))
    opened = HttpsFolder(folder, (shared / "server.pem", shared / "server.key"))
    yield opened
    opened.close()


@pytest.fixture
def link(shared: Path, tmp_path: Path) -> Path:
    """A link to the first bundle."""
    folder = tmp_path / "line" / "current.edgead.versions"
    shutil.copytree(shared / "first.edgead", folder / "first.edgead")
    path = tmp_path / "line" / "current.edgead"
    path.symlink_to("current.edgead.versions/first.edgead")
    return path


@pytest.fixture
def go(server: HttpsFolder, shared: Path, link: Path) -> Callable[..., Pulled]:
    def call(url: str = "", **options: Any) -> Pulled:
        given = {"to": link, "trust": [shared / "ours.pub"], "ca": shared / "server.pem", "engine": "onnxruntime"}
        return pull(url or server.url, **{**given, **options})

    return call


def refused(go: Callable[..., Pulled], link: Path, error: type[EdgeadError], said: str, **options: Any) -> None:
    """A pull is refused, and the link is what it was."""
    before = os.readlink(link)
    with pytest.raises(error, match=said):
        go(**options)
    assert os.readlink(link) == before
    read_bundle(link)


def test_a_bundle_is_fetched_verified_and_put_in_place(
    go: Callable[..., Pulled], link: Path, shared: Path, server: HttpsFolder
) -> None:
    console = Listener()
    done = go(console=console, token="the-servers-token")
    assert (done.bundle, done.switched, done.resumed, done.engine) == ("second", True, 0, "onnxruntime-cpu")
    assert read_bundle(link, [shared / "ours.pub"]).manifest.digest == done.digest
    assert done.received == sum(path.stat().st_size for path in link.resolve().iterdir())
    assert set(server.tokens) == {"Bearer the-servers-token"}
    assert not os.path.isabs(os.readlink(link))
    versions = link.with_name("current.edgead.versions")
    assert {path.name for path in versions.iterdir()} == {
        "first.edgead", f"{done.digest[:16]}.edgead", "pulls.jsonl", ".pulls.jsonl.lock", ".lock",
    }  # fmt: skip
    assert json.loads((versions / "pulls.jsonl").read_text())["digest"] == done.digest
    assert any("golden frames on onnxruntime-cpu" in text for text in console.said)
    assert console.said[-1].startswith("No line was told")
    again = go()
    assert (again.switched, len(server.asked)) == (False, 4 + 2)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_stored_bundle_that_was_damaged_is_fetched_again(
    in_place: bool, name: str, go: Callable[..., Pulled], link: Path, shared: Path
) -> None:
    done, console = go(), Listener()
    if not in_place:
        link.unlink()
        link.symlink_to("current.edgead.versions/first.edgead")
    (Path(done.path) / name).write_bytes(b"damaged")
    again = go(console=console)
    assert again.switched
    assert read_bundle(link, [shared / "ours.pub"]).manifest.digest == done.digest
    assert any("is fetched again: " in text for text in console.said)
    assert not list(link.with_name("current.edgead.versions").glob("*.part"))


def test_where_nothing_is_yet(go: Callable[..., Pulled], tmp_path: Path) -> None:
    done = go(to=tmp_path / "new" / "x.edgead")
    assert (done.before, done.switched) == ("", True)
    assert read_bundle(tmp_path / "new" / "x.edgead").manifest.name == "second"


def test_a_log_that_cannot_be_written_is_no_failed_pull(go: Callable[..., Pulled], link: Path) -> None:
    """The link had changed, and the pull said that it had not worked."""
    log = link.with_name("current.edgead.versions") / "pulls.jsonl"
    log.symlink_to("/dev/full")
    console = Listener()
    done = go(console=console)
    assert (done.switched, Path(done.path)) == (True, link.resolve())
    assert console.said[-1] == f"Warning: {log} lacks this pull: No space left on device."


def test_from_the_command_line(server: HttpsFolder, shared: Path, link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_TOKEN", "a-long-token-for-the-server")
    command = ["pull", server.url, "--to", link, "--ca", shared / "server.pem", "--engine", "onnxruntime", "--json"]
    assert "Name the key of their maker" in inside(*command).stderr
    command += ["--trust", shared / "ours.pub"]
    assert "visible in ps" in inside(*command, "--token", "a-long-token-for-the-server").stderr
    done = inside(*command, "--token", "${SERVER_TOKEN}")
    assert json.loads(done.stdout)["switched"] is True
    assert "a-long-token" not in done.stdout + done.stderr
    assert server.tokens[-1] == "Bearer a-long-token-for-the-server"


def cut_after(count: int, times: int) -> Answer:
    """Break off the graph's transfer after so many bytes, so many times."""
    left = [times]

    def answer(handler: BaseHTTPRequestHandler, name: str, content: bytes) -> bool:
        if name != "model.onnx" or left[0] <= 0:
            return False
        left[0] -= 1
        begin = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        headers = {"Content_Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
        send(handler, 206 if begin else 200, content[begin : begin + count], len(content) - begin, **headers)
        handler.connection.close()
        return True

    return answer


def test_a_transfer_that_breaks_off_is_resumed(go: Callable[..., Pulled], server: HttpsFolder) -> None:
    """Ten times, which is more often than one that brings nothing is tried."""
    server.answer = cut_after(700, 10)
    done = go()
    assert (done.switched, done.resumed) == (True, 10)
    assert server.asked.count("model.onnx") == 1
    assert "model.onnx bytes=7000-" in server.asked


def test_the_next_pull_resumes_what_this_one_has_left(
    go: Callable[..., Pulled], server: HttpsFolder, link: Path
) -> None:
    server.answer = cut_after(0, 100)
    (model,) = (path for path in server.folder.iterdir() if path.name == "model.onnx")
    first = cut_after(900, 1)

    def answer(handler: BaseHTTPRequestHandler, name: str, content: bytes) -> bool:
        return first(handler, name, content) or cut_after(0, 1)(handler, name, content)

    server.answer = answer
    refused(go, link, PullError, "model.onnx could not be fetched(?s:.*)Pull again: what has arrived is kept")
    server.answer = lambda *_: False
    server.asked.clear()
    done = go()
    assert "model.onnx bytes=900-" in server.asked
    assert done.received < model.stat().st_size + 900000
    assert done.switched


def test_a_server_that_does_not_resume_is_asked_for_all(go: Callable[..., Pulled], server: HttpsFolder) -> None:
    first = cut_after(500, 1)

    def answer(handler: BaseHTTPRequestHandler, name: str, content: bytes) -> bool:
        if first(handler, name, content):
            return True
        send(handler, 200, content)
        return True

    server.answer = answer
    assert go().switched


def test_what_was_left_is_no_beginning_of_the_file(go: Callable[..., Pulled], server: HttpsFolder, link: Path) -> None:
    """A damaged rest on the disk, one that is too long, and a link in its place."""
    digest = json.loads((server.folder / "manifest.json").read_text())["digest"]
    part = link.with_name("current.edgead.versions") / f".{digest[:16]}.part"
    part.mkdir()
    (part / "model.onnx").write_bytes(b"x" * 1000)
    (part / "golden.npz").write_bytes((server.folder / "golden.npz").read_bytes() + b"more")
    (part / "stray").mkdir()
    (part / "stray" / "file").write_bytes(b"")
    victim = link.parent / "victim"
    victim.write_text("kept")
    (part / "manifest.json").symlink_to(victim)
    done = go()
    assert done.switched
    assert victim.read_text() == "kept"


def lie(name: str, *answer: Any, **headers: str) -> Answer:
    def wrong(handler: BaseHTTPRequestHandler, asked: str, content: bytes) -> bool:
        if asked != name:
            return False
        body = answer[1] if len(answer) > 1 else content
        send(handler, answer[0], body, *answer[2:], **headers)
        return True

    return wrong


def endless(name: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, asked: str, content: bytes) -> bool:
        if asked != name:
            return False
        send(handler, 200, b"", -1)
        try:
            while True:
                handler.wfile.write(ENDLESS)
        except OSError:
            return True

    return answer


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (lie("model.onnx", 200, b"short"), PullError, r"model\.onnx is damaged: its SHA-256 differs"),
        (lie("golden.npz", 200, b"x" * 99999), PullError, r"golden\.npz is damaged"),
        (lie("model.onnx", 200, b"short", 10**6), PullError, r"model\.onnx could not be fetched"),
        (lie("model.onnx", 200, b"", 10**14), PullError, r"at most \d+ are left. Allow more with:  --max-size"),
        (lie("model.onnx", 200, b"long enough", 4), PullError, r"model\.onnx is damaged"),
        (lie("manifest.json", 200, b"", 10**9), PullError, r"manifest\.json has 1000000000 bytes, and at most"),
        (endless("model.onnx"), PullError, r"model\.onnx is larger than the \d+ bytes that are left of --max-size"),
        (endless("manifest.json"), PullError, r"manifest\.json is larger than the \d+ bytes"),
        (endless("manifest.sig"), PullError, r"manifest\.sig is larger than the 64 bytes"),
        (lie("model.onnx", 200, Content_Encoding="gzip"), PullError, "compressed"),
        (lie("model.onnx", 206, Content_Range="bytes 5-9/10"), PullError, "another part of model"),
        (lie("manifest.json", 302, b"", Location="http://127.0.0.1:1/manifest.json"), PullError, "Redirects are not"),
        (lie("manifest.json", 401, b""), PullError, "needs a token"),
        (lie("golden.npz", 404, b""), PullError, r"has no golden\.npz: the server answers 404"),
        (lie("golden.npz", 503, b""), PullError, r"golden\.npz could not be fetched(?s:.*)answers 503"),
        (lie("manifest.sig", 200, b"\0" * 64), BundleError, "not by a trusted key"),
        (lie("manifest.json", 200, b"{}"), BundleError, "not by a trusted key"),
    ],
)
def test_a_server_that_is_wrong_or_hostile(
    go: Callable[..., Pulled], server: HttpsFolder, link: Path, answer: Answer, error: type[EdgeadError], said: str
) -> None:
    server.answer = answer
    refused(go, link, error, said, max_size=2)
    versions = link.with_name("current.edgead.versions")
    kept = sum(file.stat().st_size for file in versions.rglob("*") if file.is_file() and ".part" in str(file))
    assert kept <= 2 << 20
    server.answer = lambda *_: False
    assert go().switched


def test_a_server_that_says_nothing(
    go: Callable[..., Pulled], server: HttpsFolder, link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()

    def answer(*_: Any) -> bool:
        free.wait(30)
        return False

    server.answer = answer
    monkeypatch.setattr(download, "SILENCE", 0.05)
    refused(go, link, PullError, r"manifest\.json could not be fetched")
    free.set()


def test_a_server_whose_header_trickles(
    go: Callable[..., Pulled], server: HttpsFolder, link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte restarted the timeout, so that a pull did not end."""

    def answer(handler: Any, *_: Any) -> bool:
        with contextlib.suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            for _each in range(200):
                handler.wfile.write(b"x")
                time.sleep(0.05)
        return True

    server.answer = answer
    monkeypatch.setattr(download, "SILENCE", 0.3)
    monkeypatch.setattr(download, "TRIES", 1)
    start = time.monotonic()
    refused(go, link, PullError, r"manifest\.json could not be fetched")
    assert time.monotonic() - start < 8


def test_only_so_long(
    go: Callable[..., Pulled], server: HttpsFolder, link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = endless("model.onnx")
    monkeypatch.setattr(download, "LONGEST", 0.5)
    refused(go, link, PullError, r"(?s)took more than.*it resumes|is larger than")


@pytest.mark.parametrize("certificate", ["other", "elsewhere"])
def test_a_server_that_is_somebody_else(
    go: Callable[..., Pulled], shared: Path, link: Path, tmp_path: Path, certificate: str
) -> None:
    """Its certificate is not by whom we trust, or is for another address."""
    false = HttpsFolder(shared / "second.edgead", (shared / f"{certificate}.pem", shared / f"{certificate}.key"))
    trusted = shared / ("server.pem" if certificate == "other" else "elsewhere.pem")
    refused(go, link, PullError, "The certificate of .* is refused(?s:.*)--ca FILE", url=false.url, ca=trusted)
    refused(go, link, PullError, "The certificate of .* is refused", url=false.url, ca=None)
    assert false.asked == []
    false.close()


@pytest.mark.parametrize("days", [-9, 9])
def test_a_machine_that_has_lost_its_clock(
    go: Callable[..., Pulled], shared: Path, link: Path, tmp_path: Path, days: int
) -> None:
    """The advice was to trust the certificate, which was trusted; of a camera, to verify none."""
    files = make_certificate(tmp_path, "server", days=days)
    served = HttpsFolder(shared / "second.edgead", files)
    said = r"(?s)The certificate of .* is refused.*The clock here says 2\d{3}-"
    refused(go, link, PullError, said, url=served.url, ca=files[0])
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        connect(served.url, Tls(ca=str(files[0])), 5)
    assert "verify=0" not in explain_connection(caught.value)
    served.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1/x.edgead", "pulled from https://"),
        ("file:///etc/passwd", "pulled from https://"),
        ("ftp://host/x", "pulled from https://"),
        ("https://user:secret-word@host/x", "no password"),
        ("https://host/x?token=secret-word", "no password"),
        ("https://host/a b", "ASCII"),
        ("https://host:99999999/x", "not a URL"),
        ("https://", "pulled from https://"),
    ],
)
def test_urls_that_are_refused(go: Callable[..., Pulled], link: Path, url: str, said: str) -> None:
    with pytest.raises(PullError, match=said) as caught:
        go(url=url)
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"watch_minutes": math.nan}, {"watch_minutes": 0}, {"max_change": math.nan}], ids=str
)
def test_a_watch_that_would_find_nothing_is_refused(go: Callable[..., Pulled], wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="watch_minutes must be above 0"):
        go(**wrong)


@pytest.mark.parametrize("to", ["", ".", "/"])
def test_a_link_without_a_name_is_refused(go: Callable[..., Pulled], to: str) -> None:
    with pytest.raises(PullError, match="has no name"):
        go(to=to)


@pytest.mark.parametrize("name", ["../../../victim", "/tmp/victim", "a/b", ".hidden", "-rf", "x" * 101, "a\nb", "a\\b"])
def test_names_that_lead_elsewhere(
    go: Callable[..., Pulled], server: HttpsFolder, shared: Path, link: Path, name: str
) -> None:
    """Even a manifest with our signature."""
    files = json.loads((server.folder / "manifest.json").read_text())["files"]
    change(server.folder, shared / "ours", files={**files, name: "0" * 64})
    refused(go, link, PullError, "is not the name of a file in a bundle")


def test_what_is_not_as_good_as_what_is_there(
    go: Callable[..., Pulled], server: HttpsFolder, shared: Path, link: Path
) -> None:
    """An older bundle and one of another product carry our signature, and may come from an attacker's archive."""
    change(server.folder, shared / "ours", created="2024-12-31T23:59:59+00:00")
    refused(go, link, PullError, r"was made 2024-\S+, before the one in its place")
    change(server.folder, shared / "ours", created="2026-01-01T00:00:00+00:00", category="cap")
    refused(go, link, PullError, "is for 'cap', but the bundle in its place is for 'grey'")
    assert go(force=True).switched


def test_the_bundle_before_a_review_is_an_older_one(
    go: Callable[..., Pulled], server: HttpsFolder, shared: Path, link: Path, tmp_path: Path
) -> None:
    """A version of a review keeps the time of the export: the bundle with the threshold before came back."""
    before = shutil.copytree(server.folder, tmp_path / "before")
    reviewed = tmp_path / "reviewed.edgead"
    write_version(read_bundle(before), reviewed, 1100.0, marks=tmp_path / "marks", marked={})
    sign(reviewed, key=shared / "ours")
    server.folder = reviewed
    assert go().switched
    server.folder = before
    refused(go, link, PullError, "was made 2026-01-01T00:00:00.00:00, before the one in its place")


def test_what_fails_its_golden_frames_here(
    go: Callable[..., Pulled], server: HttpsFolder, shared: Path, link: Path
) -> None:
    server.folder = shared / "wrong.edgead"
    refused(go, link, DeviceError, "differs from the reference outputs")


def test_what_must_be_known_before(
    go: Callable[..., Pulled], server: HttpsFolder, shared: Path, link: Path, tmp_path: Path
) -> None:
    refused(go, link, ConfigError, "Only signed bundles are pulled", trust=())
    refused(go, link, ConfigError, "--pid and --metrics go together", pid="123")
    refused(go, link, PullError, "cannot be read", ca=tmp_path / "absent.pem")
    refused(go, link, ConfigError, "on another machine", pid=str(os.getpid()), metrics="192.0.2.1:80")
    refused(go, link, ConfigError, "takes the number of a process", pid="self", metrics="9100")
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as other:
        refused(go, link, ConfigError, "is not an edgead run", pid=str(other.pid), metrics="9100")
    assert server.asked == []
    folder = tmp_path / "line 3" / "folder.edgead"
    shutil.copytree(shared / "first.edgead", folder)
    with pytest.raises(PullError, match=r"is not a link(?s:.*)mkdir .* && mv .* && ln -s "):
        go(to=folder)
    sign(folder, key=shared / "ours")
    os.system(str(_command(go, folder)))
    assert go(to=folder).switched


def _command(go: Callable[..., Pulled], folder: Path) -> str:
    """Return what the error says to type."""
    with pytest.raises(PullError) as caught:
        go(to=folder)
    return str(caught.value).partition("Make it one:")[2].strip()
