"""Cameras with TLS: the certificate and the host's name in it are verified, unless the user turns that off."""

from __future__ import annotations

import itertools
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import videos
from http_camera import HttpCamera

from edgead.errors import ConfigError, SourceError
from edgead.runtime.sources import network, open_source
from edgead.runtime.sources.tls import Tls, split_tls

JPEG = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))[1].tobytes()
PART = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(JPEG), JPEG)
SCHEMES = ("https", "av+https", "rtsps", "av+rtsps")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority ``ca.pem``; certificates by it for 127.0.0.1 (``right``) and for another host (``other``)."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl")
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes", "-subj")
    authority = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    openssl(*new, "/CN=plant", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", *authority)
    for name, host in (("right", "IP:127.0.0.1"), ("other", "DNS:other.example")):
        openssl(*new, "/CN=camera", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / f"{name}.ext").write_text(f"subjectAltName={host}")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", f"{name}.ext")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
    return folder


@pytest.fixture
def serve(certificates: Path) -> Iterator[Callable[[str, str], str]]:
    """Starts a camera with a certificate, and returns its address."""
    servers: list[Any] = []

    def start(scheme: str, certificate: str) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / f"{certificate}.pem", certificates / f"{certificate}.key")
        if "https" in scheme:
            servers.append(
                HttpCamera(lambda send: [time.sleep(0.01) or send(PART) for _ in range(300)], context=context)
            )
        else:
            packets, codec = videos.encode("CAVLC", 96)
            servers.append(videos.LossyRtsp(packets, codec, context=context))
        prefix = "av+" if scheme.startswith("av+") else ""
        return prefix + str(servers[-1].address)

    yield start
    for server in servers:
        server.close()


def send_for_long(send: Callable[[bytes], None]) -> None:
    for _ in range(300):
        send(PART)
        time.sleep(0.01)


def with_options(address: str, options: str) -> str:
    return f"{address}{'&' if '?' in address else '?'}{options}"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_camera_whose_certificate_is_trusted_opens(
    scheme: str, serve: Callable[[str, str], str], certificates: Path
) -> None:
    source = open_source(with_options(serve(scheme, "right"), f"ca={certificates / 'ca.pem'}"))
    with source as frames:
        captured = next(frames)
    assert captured.error == ""
    assert captured.image is not None
    assert "ca" not in source.name.partition("?")[2]  # the options are not part of a camera's name


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_certificate_that_nobody_vouches_for_is_refused(scheme: str, serve: Callable[[str, str], str]) -> None:
    with pytest.raises(SourceError, match=r"certificate is rejected: .*\nTrust it with \?ca=FILE .*\?verify=0"):
        open_source(serve(scheme, "right"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_certificate_of_another_host_is_refused(
    scheme: str, serve: Callable[[str, str], str], certificates: Path
) -> None:
    with pytest.raises(SourceError, match=r"certificate is rejected: .*127\.0\.0\.1"):
        open_source(with_options(serve(scheme, "other"), f"ca={certificates / 'ca.pem'}"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_check_can_be_turned_off(scheme: str, serve: Callable[[str, str], str]) -> None:
    with open_source(with_options(serve(scheme, "other"), "verify=0")) as frames:
        captured = list(itertools.islice(frames, 1))
    assert captured[0].image is not None


@pytest.mark.parametrize("scheme", ["https", "rtsps"])
def test_ffmpeg_verifies_by_itself(
    scheme: str, serve: Callable[[str, str], str], certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sits between may let Python's connection pass, and take the one that pictures come by."""
    monkeypatch.setattr(network, "connect", lambda *_: SimpleNamespace(close=lambda: None))
    tls = Tls(ca=str(certificates / "ca.pem"))
    right, other = (network._open_pyav(serve(scheme, name), tls) for name in ("right", "other"))
    assert right.isOpened()
    assert not other.isOpened()
    assert not network._open_pyav(serve(scheme, "right"), Tls()).isOpened()
    right.release()


def test_opencv_does_not_take_a_camera_that_it_cannot_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "has_pyav", lambda: False)
    with pytest.raises(SourceError, match=r"OpenCV cannot verify .*\n.*pip install 'edgead\[rtsp\]'"):
        open_source("rtsps://127.0.0.1:9/line")
    with pytest.raises(SourceError, match="Connection refused"):
        open_source("rtsps://127.0.0.1:9/line?verify=0")


@pytest.mark.parametrize(
    ("uri", "address", "tls"),
    [
        ("https://cam/x?verify=0&token=a%20b", "https://cam/x?token=a%20b", Tls(verify=False)),
        ("av+rtsps://cam/x?verify=1", "av+rtsps://cam/x", Tls()),
        ("http://cam/x?verify=0", "http://cam/x?verify=0", Tls()),
        ("rtsp://cam/x?ca=1", "rtsp://cam/x?ca=1", Tls()),
        ("https://cam/x?a&b=", "https://cam/x?a&b=", Tls()),
    ],
)
def test_options_are_taken_out_of_the_address(uri: str, address: str, tls: Tls) -> None:
    assert split_tls(uri) == (address, tls)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("verify=no", "verify must be 1, or 0"),
        ("ca=/no/such/file", "the file /no/such/file .* does not exist"),
        ("ca=" + __file__, "holds no certificates"),
    ],
)
def test_options_that_cannot_be_used_are_named(options: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_source(f"https://user:secret@127.0.0.1:9/x?{options}")
