"""MJPEG over HTTP: every way of sending it, damage of each kind, passwords, and cameras that misbehave."""

from __future__ import annotations

import gc
import hashlib
import itertools
import re
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import videos
from http_camera import MULTIPART, HttpCamera, Send

from edgead.errors import SourceError
from edgead.runtime.sources import Captured, multipart, network, open_source

JPEGS = [
    cv2.imencode(".jpg", np.random.default_rng(n).integers(0, 256, (48, 64, 3), dtype=np.uint8))[1].tobytes()
    for n in range(5)
]


def part(data: bytes, header: bytes = b"Content-Type: image/jpeg\r\n", length: int | None = -1) -> bytes:
    stated = len(data) if length == -1 else length
    more = b"" if stated is None else b"Content-Length: %d\r\n" % stated
    return b"--frame\r\n" + header + more + b"\r\n" + data + b"\r\n"


def sending(*parts: bytes) -> Send:
    return lambda send: send(b"".join(parts))


def take(address: str, count: int) -> list[Captured]:
    source = open_source(address)
    with source as frames:
        return list(itertools.islice(frames, count))


def equal(captured: Captured, jpeg: bytes) -> bool:
    expected = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return captured.image is not None and np.array_equal(captured.image, expected)


def chunked(data: bytes, size: int) -> bytes:
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


WAYS = {
    "with a length": sending(*map(part, JPEGS)),
    "without a length": sending(*(part(data, length=None) for data in JPEGS), b"--frame--\r\n"),
    "without a header": sending(*(b"--frame\r\n\r\n" + data + b"\r\n" for data in JPEGS), b"--frame--\r\n"),
    "a text between": sending(*(part(b"<xml/>", b"Content-Type: text/xml\r\n") + part(data) for data in JPEGS)),
    "no line end before the boundary": sending(*(part(data)[:-2] for data in JPEGS)),
    "byte by byte": lambda send: [send(bytes((each,))) for each in b"".join(map(part, JPEGS[:2]))] and None,
}


@pytest.mark.parametrize("way", list(WAYS))
def test_every_way_of_sending_pictures(way: str) -> None:
    with HttpCamera(WAYS[way]) as camera:
        count = 2 if way == "byte by byte" else 5
        given = take(camera.address, count)
    assert [equal(captured, data) for captured, data in zip(given, JPEGS)] == [True] * count
    assert camera.requests[0].startswith("GET /line?size=1 HTTP/1.1\r\n")


@pytest.mark.parametrize("size", [1, 100, 10000])
def test_chunks(size: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + MULTIPART
    with HttpCamera(sending(chunked(b"".join(map(part, JPEGS)), size)), head) as camera:
        given = take(camera.address, 5)
    assert [equal(captured, data) for captured, data in zip(given, JPEGS)] == [True] * 5


def test_a_boundary_that_is_named_with_its_dashes() -> None:
    for named in (b"--frame", b'"frame"'):
        head = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=%s\r\n" % named
        with HttpCamera(WAYS["without a length"], head) as camera:
            assert [equal(one, data) for one, data in zip(take(camera.address, 5), JPEGS)] == [True] * 5


DAMAGE = {
    "cut": part(JPEGS[1][:900]),
    "cut and ended": part(JPEGS[1][:900] + b"\xff\xd9"),
    "rest of zeros": part(JPEGS[1][:900] + bytes(len(JPEGS[1]) - 902) + b"\xff\xd9"),
    "shorter than it says": part(JPEGS[1][:900], length=len(JPEGS[1])),
    "longer than it says": part(JPEGS[1], length=900),
    "empty": part(b""),
    "no JPEG": part(b"x" * 500),
    "another's rest": part(JPEGS[1][:900] + JPEGS[2][900:]),
}


@pytest.mark.parametrize("kind", list(DAMAGE))
def test_each_damaged_picture_is_an_error_and_the_next_one_is_right(kind: str) -> None:
    parts = [part(JPEGS[0]), DAMAGE[kind], part(JPEGS[3]), part(JPEGS[4])]
    with HttpCamera(sending(*parts)) as camera:
        given = take(camera.address, 4)
    assert [captured.cause for captured in given] == ["", "unreadable", "", ""]
    assert [equal(given[at], JPEGS[number]) for at, number in ((0, 0), (2, 3), (3, 4))] == [True] * 3
    assert given[1].error


def test_a_length_that_is_too_large_swallows_no_picture() -> None:
    parts = [part(JPEGS[0], length=len(JPEGS[0]) + 700), *map(part, JPEGS[1:])]
    with HttpCamera(sending(*parts)) as camera:
        given = take(camera.address, 5)
    assert [equal(captured, data) for captured, data in zip(given, JPEGS)] == [True] * 5


@pytest.mark.parametrize("cut", [0, 20])
@pytest.mark.parametrize("too_large", [*range(1, 16), 700])
def test_a_length_that_ends_in_or_behind_the_boundary_swallows_no_picture(too_large: int, cut: int) -> None:
    """It ended in the middle of the next boundary, which was not found then: every second picture was lost."""
    data = [one[: len(one) - cut] for one in JPEGS]
    with HttpCamera(sending(*(part(one, length=len(one) + too_large) for one in data[:4]), part(JPEGS[4]))) as camera:
        given = take(camera.address, 5)
    assert [captured.cause for captured in given] == ["unreadable" if cut else ""] * 4 + [""]
    assert equal(given[4], JPEGS[4])
    assert cut or [equal(captured, one) for captured, one in zip(given, JPEGS)] == [True] * 5


@pytest.mark.parametrize("length", [None, len(JPEGS[0]) + 700], ids=["without a length", "a length that is too large"])
def test_a_picture_is_there_when_it_has_come_not_when_the_next_one_begins(length: int | None) -> None:
    """Each counted as taken when the next one came: a part got the picture, and the verdict, of the one before."""
    thumbnail = b"\xff\xe1" + (len(JPEGS[1]) + 2).to_bytes(2, "big") + JPEGS[1]  # with an end marker of its own
    picture = JPEGS[0][:2] + thumbnail + JPEGS[0][2:]
    sent: list[float] = []

    def send_slowly(send: Callable[[bytes], None]) -> None:
        for half in (len(thumbnail) + 2, len(thumbnail) - 5, len(picture) - 1):
            whole = part(picture, length=length and length + len(thumbnail))
            start = len(whole) - len(picture) - 2
            send(whole[: start + half])  # a piece that ends there
            time.sleep(0.02)
            sent.append(time.monotonic())
            send(whole[start + half :])
            time.sleep(0.3)

    with HttpCamera(send_slowly) as camera:
        given = take(camera.address, 3)
    assert [captured.error for captured in given] == [""] * 3
    assert [equal(captured, JPEGS[0]) for captured in given] == [True] * 3
    assert all(-0.1 < captured.made - at < 0.15 for captured, at in zip(given, sent))


def test_a_damaged_picture_through_ffmpeg() -> None:
    pytest.importorskip("av")
    parts = [part(JPEGS[0])] * 3 + [part(JPEGS[1][:900] + b"\xff\xd9"), *map(part, JPEGS * 3)]
    with HttpCamera(lambda send: [time.sleep(0.02) or send(each) for each in parts] and None) as camera:
        given = take("av+" + camera.address, 12)
    assert [captured.cause for captured in given].count("unreadable") <= 1  # probing may take it
    for captured in given:
        assert captured.error or any(equal(captured, data) for data in JPEGS)


def test_other_video_over_http_goes_through_pyav(tmp_path: Path) -> None:
    data = videos.write_video(tmp_path / "line.ts", videos.pictures(60), **{"x264-params": "keyint=8"}).read_bytes()
    with HttpCamera(sending(data), b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n") as camera:
        given = take(camera.address, 5)
    assert [captured.error for captured in given] == [""] * 5
    assert given[0].image.shape == (120, 160, 3)


def test_media_time_of_a_camera_that_tells_it() -> None:
    header = b"Content-Type: image/jpeg\r\nX-Timestamp: %d.250000\r\n"
    with HttpCamera(sending(*(part(data, header % (100 + n)) for n, data in enumerate(JPEGS)))) as camera:
        capture = network._open_http(camera.address, network.Tls(), [])
        stamps = [capture.read()[0] and capture.stamp for _ in range(5)]
        capture.release()
    assert stamps == [100.25, 101.25, 102.25, 103.25, 104.25]


def basic(request: str) -> bytes:
    right = "Authorization: Basic dXNlcjpwOnc=" in request  # user and p:w
    return b"" if right else b'HTTP/1.0 401 No\r\nWWW-Authenticate: Basic realm="camera"\r\n\r\n'


def digest(algorithm: str, qop: str) -> Callable[[str], bytes]:
    make = hashlib.md5 if algorithm == "MD5" else hashlib.sha256

    def hashed(*values: str) -> str:
        return make(":".join(values).encode()).hexdigest()

    def check(request: str) -> bytes:
        fields = dict(re.findall(r'(\w+)="?([^",\r]+)', request.partition("Digest ")[2]))
        secret, asked = hashed("user", "a camera", "p:w"), hashed("GET", "/line?size=1")
        more = [fields.get("nc", ""), fields.get("cnonce", ""), "auth"] if qop else []
        if fields.get("response") == hashed(secret, "n0nce", *more, asked) and fields.get("opaque") == "op":
            return b""
        challenge = f'Digest realm="a camera", nonce="n0nce", algorithm={algorithm}, opaque="op"{qop}'
        return f'HTTP/1.0 401 No\r\nWWW-Authenticate: {challenge}\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'.encode()

    return check


CHECKS = {
    "basic": basic,
    "digest": digest("MD5", ', qop="auth"'),
    "digest of old": digest("MD5", ""),
    "SHA-256": digest("SHA-256", ', qop="auth,auth-int"'),
}


@pytest.mark.parametrize("way", list(CHECKS))
def test_passwords(way: str) -> None:
    with HttpCamera(sending(*map(part, JPEGS)), check=CHECKS[way]) as camera:
        right = camera.address.replace("//", "//user:p%3Aw@")
        assert equal(take(right, 1)[0], JPEGS[0])
        assert "Authorization" not in camera.requests[0]  # nobody gets a password that does not ask for it
        if way != "basic":
            assert "Basic" not in camera.requests[1]
        for address, says in (
            (right.replace("p%3Aw", "secret"), "does not accept this user and password"),
            (camera.address, "asks for a user and password"),
        ):
            before = len(camera.requests)
            with pytest.raises(SourceError, match=says) as caught:
                open_source(address)
            assert "secret" not in str(caught.value)
            assert len(camera.requests) - before <= 2  # a camera may lock a user out after some wrong passwords


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"HTTP/1.0 404 No\r\n", "has no stream of that name"),
        (b"HTTP/1.0 500 Broken\r\n", "the server sends no video (500 Broken)"),
        (b"HTTP/1.0 302 Found\r\nLocation: http://elsewhere/\r\n", "redirects (302 Found)"),
        (b"SSH-2.0-x\r\n", "does not speak HTTP"),
        (b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n", "sends text/html"),
        (b"HTTP/1.0 200 OK\r\n" + b"X: y\r\n" * 200, "does not speak HTTP"),
        (b"HTTP/1.0 200 OK\r\nX: " + b"y" * 70000 + b"\r\n", "does not speak HTTP"),
    ],
)
def test_what_is_no_camera_is_named(head: bytes, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "OPEN_S", 2.0)
    with HttpCamera(sending(b"<html>" * 100), head) as camera, pytest.raises(SourceError) as caught:
        open_source(camera.address)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"x" * 9000,
        part(b"", length=1 << 40),
        b"--frame\r\nX: " + b"y" * 40000,
        b"--frame\r\n" + b"y" * 9000,
        part(JPEGS[0])[:-900],
        part(b"x" * 9000, length=None),
        b"--frame--\r\n" + part(JPEGS[0]),
    ],
    ids=["nothing", "no part", "a huge length", "a huge header", "no end", "broken off", "a huge part", "the end"],
)
def test_a_stream_that_cannot_be_read_is_lost(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "MAX_PART", 8000)
    with HttpCamera(sending(sent)) as camera:
        capture = network._open_http(camera.address, network.Tls(), [])
        assert capture.isOpened()
        assert capture.read() == (False, None)
        capture.release()
    assert not capture.isOpened()


def test_a_camera_that_dribbles_is_lost_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "READ_S", 0.3)

    def dribble(send: Callable[[bytes], None]) -> None:
        for each in part(JPEGS[0]):
            send(bytes((each,)))
            time.sleep(0.05)

    with HttpCamera(dribble) as camera:
        capture = network._open_http(camera.address, network.Tls(), [])
        start = time.monotonic()
        assert capture.read() == (False, None)
        assert time.monotonic() - start < 2
        capture.release()


def trickle(send: Callable[[bytes], None]) -> None:
    for _ in range(400):
        send(b"x")
        time.sleep(0.05)


def test_a_camera_whose_header_trickles_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It held the opening, and with it the start of a run, for as long as it liked."""
    monkeypatch.setattr(network, "READ_S", 0.3)
    with HttpCamera(trickle, b"HTTP/1.0 200 OK") as camera:
        start = time.monotonic()
        with pytest.raises(SourceError, match="cannot be opened: timed out"):
            open_source(camera.address)
        assert time.monotonic() - start < 5


def test_a_camera_whose_chunks_trickle_is_lost_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "READ_S", 0.3)

    def send_one(send: Callable[[bytes], None]) -> None:
        send(chunked(part(JPEGS[0])[:1000], 1000) + b"1;")
        trickle(send)

    with HttpCamera(send_one, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + MULTIPART) as camera:
        capture = network._open_http(camera.address, network.Tls(), [])
        start = time.monotonic()
        assert capture.read() == (False, None)
        assert time.monotonic() - start < 5
        capture.release()


def test_a_camera_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgead.runtime.sources import live

    monkeypatch.setattr(live, "FIRST_DELAY", 0.01)
    with HttpCamera(sending(*map(part, JPEGS[:2]))) as camera:
        given = take(camera.address, 6)
    assert [captured.cause for captured in given] == ["", "", "lost", "", "", "lost"]


def test_no_connection_is_left_open() -> None:
    gc.collect()
    for head in (b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"):
        with HttpCamera(sending(chunked(part(JPEGS[0]), 100)), head + MULTIPART) as camera:
            capture = network._open_http(camera.address, network.Tls(), [])
            capture.read()
            capture.release()
    gc.collect()  # pytest turns the warning of a socket that was not closed into a failure
