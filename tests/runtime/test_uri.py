"""URIs of sources and sinks: odd passwords work or are refused without being shown; secrets from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgead.errors import ConfigError, EdgeadError
from edgead.runtime.sinks import open_sink
from edgead.runtime.sources import open_source
from edgead.runtime.sources.uri import complete, fill_secrets, scheme_of

SECRET = "geheim"


@pytest.mark.parametrize(
    ("uri", "whole"),
    [
        ("RTSP://cam/x", "rtsp://cam/x"),
        ("  https://cam:8080/x?a=1", "https://cam:8080/x?a=1"),
        ("rtsp://u:p@ss@cam/x", "rtsp://u:p@ss@cam/x"),
        ("rtsp://u:p%2F%3F%23%40%20@cam/x", "rtsp://u:p%2F%3F%23%40%20@cam/x"),
        ("rtsp://u:$ecret$x@cam/x", "rtsp://u:$ecret$x@cam/x"),
        ("rtsp://[::1]:554/x", "rtsp://[::1]:554/x"),
        ("SQLITE:a b@c", "sqlite:a b@c"),
        ("/data/a:b@c.png", "/data/a:b@c.png"),
        (r"C:\data\x.png", r"C:\data\x.png"),
    ],
)
def test_address_is_completed(uri: str, whole: str) -> None:
    assert complete(uri) == whole


@pytest.mark.parametrize("scheme", ["rtsp", "HTTP", "https", "mqtt", "mqtts", "av+rtsp"])
@pytest.mark.parametrize(
    "rest",
    [
        f"u:{SECRET}@cam/x",
        f"/u:{SECRET}@cam/x",
        f"//u:a/{SECRET}@cam/x",
        f"//u:1/{SECRET}@cam/x",
        f"//u:a?{SECRET}@cam/x",
        f"//u:{SECRET}#b@cam/x",
        f"//u:two {SECRET}@cam/x",
        f"//u:p@ss two {SECRET}@cam/x",
        f"//u:{SECRET}\n@cam/x",
        f"//u:{SECRET}@[::1/x",
        f"//u:{SECRET}@cam:99999/x",
        f"//u:{SECRET}@cam:{SECRET}/x",
        f"//u:{SECRET}@cam:0/x",
        f"//u:{SECRET}@/x",
        f"//u:{SECRET}/x",
        f"//u:{SECRET}",
    ],
)
def test_malformed_address_is_refused_and_not_shown(scheme: str, rest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        complete(f"{scheme}:{rest}")
    assert SECRET not in str(caught.value)
    assert "two" not in str(caught.value)
    assert scheme.lower() in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("uri", [f"user:{SECRET}@cam/x", f"user:two {SECRET}@cam/x", f"us$er:{SECRET}@cam"])
def test_address_without_a_scheme_is_refused_and_not_shown(uri: str) -> None:
    for opener in (open_source, open_sink):
        with pytest.raises(EdgeadError) as caught:
            opener(uri)  # type: ignore[operator]
        assert SECRET not in str(caught.value)


def test_secrets_are_filled_in_and_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAM_PASSWORD", "a/b?c#d@e f%")
    (tmp_path / "pass word").write_text("from-a-file\n")
    assert complete("rtsp://u:${CAM_PASSWORD}@cam/x") == "rtsp://u:a%2Fb%3Fc%23d%40e%20f%25@cam/x"
    assert complete(f"http://cam/x?key=${{file:{tmp_path / 'pass word'}}}") == "http://cam/x?key=from-a-file"
    assert fill_secrets("${CAM_PASSWORD}") == "a/b?c#d@e f%"
    for path in ("sqlite:${CAM_PASSWORD}", "sqlite:///data/${CAM_PASSWORD}", "watch://${CAM_PASSWORD}/in"):
        assert complete(path) == path  # a name; the value was percent-encoded, and results went into %2Fdata


def test_missing_secret_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(ConfigError, match="environment variable EMPTY"):
        complete("rtsp://u:${EMPTY}@cam/x")
    with pytest.raises(ConfigError, match="environment variable NOT_THERE"):
        complete("rtsp://u:${NOT_THERE}@cam/x")
    with pytest.raises(ConfigError, match=r"secret in .* cannot be read: No such file"):
        complete(f"rtsp://u:${{file:{tmp_path}/none}}@cam/x")


def test_scheme() -> None:
    assert [scheme_of(uri) for uri in ("RTSP://x", "c:/x", "/a:b", "av+rtsp:x")] == ["rtsp", "", "", "av+rtsp"]
