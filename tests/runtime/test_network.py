"""Network cameras: a real RTSP server and a real MJPEG server on loopback, killed and restarted."""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from ports import free_port

from edgead.decision import Verdict
from edgead.errors import MissingDependencyError, SourceError
from edgead.runtime.inspector import Inspector
from edgead.runtime.sources import network, open_source, pyav
from edgead.runtime.stream import Policy, Stream

SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).with_name("rtsp_server.py")
JPEG = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))[1].tobytes()


def start_rtsp(port: int, *credentials: str) -> subprocess.Popen[str]:
    try:
        server = subprocess.Popen(
            [SYSTEM_PYTHON, str(SERVER), str(port), *credentials],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        )
    except OSError:
        pytest.skip(f"no {SYSTEM_PYTHON} for the RTSP server")
    assert server.stdout
    if server.stdout.readline() != "ready\n":
        server.wait()
        server.stdout.close()
        pytest.skip("no GStreamer RTSP server (apt: gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-ugly)")
    return server


def test_a_picture_over_rtsp_is_as_old_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg keeps it back until the next one begins. It counted as taken then, one period late: of another part."""
    pytest.importorskip("av")
    monkeypatch.setenv("RTSP_RATE", "5")
    port = free_port()
    server = start_rtsp(port)
    try:
        with open_source(f"rtsp://127.0.0.1:{port}/line") as frames:
            given = list(itertools.islice(frames, 10))
    finally:
        end(server)
    assert [captured.error for captured in given] == [""] * 10
    ages = [captured.t_capture - captured.made for captured in given[-3:]]
    assert all(0.15 < age < 0.3 for age in ages), ages


def end(server: subprocess.Popen[str]) -> None:
    server.kill()
    server.wait()
    assert server.stdout
    server.stdout.close()


def test_rtsp_server_killed_and_restarted(inspector: Inspector, through: str) -> None:
    port = free_port()
    server = start_rtsp(port)
    restarted = []
    try:
        with Stream(inspector, [f"rtsp://127.0.0.1:{port}/line"], Policy(blurred_below=0)) as stream:
            causes = []
            for result in stream:
                causes.append(result.cause)
                if len(causes) == 3:
                    end(server)
                if result.cause == "lost" and not restarted:
                    server = start_rtsp(port)
                    restarted.append(server)
                if restarted and result.verdict is not Verdict.UNKNOWN:
                    stream.stop()
        assert "lost" in causes
        assert causes[-1] == ""
        assert result.frame_size == (120, 160)
    finally:
        end(server)


@pytest.fixture(params=["PyAV", "OpenCV"])
def through(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "OpenCV":
        monkeypatch.setattr(network, "has_pyav", lambda: False)
    return str(request.param)


@pytest.mark.parametrize(
    ("login", "path", "says"),
    [
        ("", "line", "asks for a user and password"),
        ("viewer:wrong-secret@", "line", "does not accept this user and password"),
        ("viewer:right-secret@", "elsewhere", "has no stream of that name"),
    ],
)
def test_rtsp_that_refuses_says_why(login: str, path: str, says: str, through: str) -> None:
    port = free_port()
    server = start_rtsp(port, "viewer", "right-secret")
    try:
        with pytest.raises(SourceError) as caught:
            open_source(f"rtsp://{login}127.0.0.1:{port}/{path}")
    finally:
        end(server)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_rtsp_with_the_right_password_opens_and_hides_it(inspector: Inspector, through: str) -> None:
    port = free_port()
    server = start_rtsp(port, "viewer", "right-secret")
    try:
        with Stream(inspector, [f"rtsp://viewer:right-secret@127.0.0.1:{port}/line"], max_frames=2) as stream:
            results = list(stream)
    finally:
        end(server)
    assert [result.source_id for result in results] == [f"rtsp://127.0.0.1:{port}/line"] * 2
    assert "secret" not in str([result.to_dict() for result in results])


def test_rtsp_through_opencv_opens_and_says_what_it_cannot_see(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(network, "has_pyav", lambda: False)
    port = free_port()
    server = start_rtsp(port)
    try:
        with open_source(f"rtsp://127.0.0.1:{port}/line") as frames:
            captured = next(frames)
    finally:
        end(server)
    assert captured.image is not None
    assert captured.image.shape == (120, 160, 3)
    assert f"rtsp://127.0.0.1:{port}/line is read through OpenCV, which conceals damaged frames" in caplog.text


def test_a_pyav_that_conceals_damage_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pyav.has_pyav()
    monkeypatch.setattr(pyav.metadata, "version", lambda name: "15.1.0")
    assert not pyav.has_pyav()
    with pytest.raises(MissingDependencyError, match="16 or newer is required"):
        open_source("av+rtsp://127.0.0.1:9/line")


class Mjpeg(BaseHTTPRequestHandler):
    """An endless multipart stream of one picture."""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/stream":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            while not self.server.ended.wait(0.01):  # type: ignore[attr-defined]
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(JPEG)}\r\n\r\n"
                self.wfile.write(head.encode() + JPEG + b"\r\n")
        except OSError:
            pass

    def log_message(self, format: str, *values: object) -> None:
        """Quiet."""


class MjpegServer:
    def __init__(self, port: int) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Mjpeg)
        self._server.ended = threading.Event()  # type: ignore[attr-defined]
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.ended.set()  # type: ignore[attr-defined]
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def mjpeg_port() -> Iterator[int]:
    port = free_port()
    server = MjpegServer(port)
    yield port
    server.close()


def test_mjpeg_server_killed_and_restarted(inspector: Inspector) -> None:
    port = free_port()
    server = MjpegServer(port)
    policy = Policy(frozen_after=0)  # it is one picture
    with Stream(inspector, [f"http://user:secret@127.0.0.1:{port}/stream?token=secret"], policy) as stream:
        causes: list[str] = []
        lost = False
        for result in stream:
            causes.append(result.cause)
            assert "secret" not in str(result.to_dict())
            if len(causes) == 3:
                server.close()
            if result.cause == "lost" and not lost:
                lost = True
                server = MjpegServer(port)
            elif lost and result.cause == "":
                stream.stop()
    server.close()
    assert causes[:3] == ["", "", ""]
    assert "lost" in causes
    assert causes[-1] == ""


def test_what_speaks_no_rtsp_is_named(mjpeg_port: int) -> None:
    with pytest.raises(SourceError, match=r"the server sends no video|does not speak RTSP"):
        open_source(f"rtsp://127.0.0.1:{mjpeg_port}/line")


def test_http_that_is_no_camera_says_so(mjpeg_port: int) -> None:
    with pytest.raises(SourceError, match="has no stream of that name"):
        open_source(f"http://127.0.0.1:{mjpeg_port}/other")


def test_real_video_file_gives_every_frame_in_order(inspector: Inspector, tmp_path: Path) -> None:
    path = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for number in range(12):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    results = list(inspector.stream(str(path)))
    assert [result.frame_id for result in results] == list(range(12))
    assert {result.cause for result in results} == {""}, [result.reason for result in results]
