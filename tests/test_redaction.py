"""No text that is shown holds a password, a token, a forged line or a terminal code."""

from __future__ import annotations

import time

import pytest

from edgead.redaction import printable, redact, remember_secret

SECRET = "geheim123"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"rtsp://user:{SECRET}@cam-3:554/line?token={SECRET}", "rtsp://cam-3:554/line?token=…"),
        (f"RTSP://user:{SECRET}@cam-3/line", "RTSP://cam-3/line"),
        (f"Cookie: session={SECRET}; id={SECRET}", "Cookie: …"),
        (f"got {{'set-cookie': 'session={SECRET}; path=/', 'a': 1}}", "got {'set-cookie': '…', 'a': 1}"),
        (f" rtsp://user:{SECRET}@cam-3/line", " rtsp://cam-3/line"),
        (f"rtsp:user:{SECRET}@cam-3/line", "rtsp:cam-3/line"),
        (f"rtsp:/user:{SECRET}@cam-3/line", "rtsp:/cam-3/line"),
        (f"rtsp://user:a/{SECRET}@cam-3/line", "rtsp://cam-3/line"),
        (f"rtsp://user:1/{SECRET}@cam-3/line", "rtsp://cam-3/line"),
        (f"rtsp://user:a?{SECRET}@cam-3/line", "rtsp://cam-3/line"),
        (f"rtsp://user:{SECRET}#b@cam-3/line", "rtsp://cam-3/line"),
        (f"rtsp://user:p@{SECRET}@cam-3/line", "rtsp://cam-3/line"),
        (f"rtsp://user:two {SECRET}@cam-3/line", "rtsp://cam-3/line"),
        (f"rtsp://user:{SECRET}@[::1/line", "rtsp://[::1/line"),
        (f"user:{SECRET}@cam-3/line", "cam-3/line"),
        (f"watch://user:a/{SECRET}@nas/share", "watch://nas/share"),
        (f"genicam:user:{SECRET}@host", "genicam:host"),
        (f"//user:{SECRET}@nas/share is gone", "//nas/share is gone"),
        (f"http://user:{SECRET}/x failed", "http://user:…/x failed"),
        (f"http://user:{SECRET}: failed", "http://user:…: failed"),
        (f"https://{SECRET}@host/x", "https://host/x"),
        (f"http://host/x#{SECRET}", "http://host/x"),
        (f"http://host/x?{SECRET}", "http://host/x?…"),
        (f"http://host/x?a=1&b={SECRET}", "http://host/x?a=…&b=…"),
        (f"mqtt://user:{SECRET}@host/topic", "mqtt://host/topic"),
        (f"rtsp://host/user=admin_password={SECRET}_channel=1.sdp", "rtsp://host/user=admin_password=…"),
        (f"https://hooks.host/services/T0/{SECRET}abcdefghijklmnop", "https://hooks.host/services/T0/…"),
        (f"The sink 'http://u:{SECRET}@h/x?key={SECRET}' is slow.", "The sink 'http://h/x?key=…' is slow."),
        (f"[Errno 5] I/O error: 'rtsp://u:{SECRET}@h/x'", "[Errno 5] I/O error: 'rtsp://h/x'"),
        (f"ConnectError(url='http://u:{SECRET}@h/')", "ConnectError(url='http://h/')"),
        (f"{{'Authorization': 'Basic {SECRET}=='}}", "{'Authorization': '…'}"),
        (f'Authorization: Digest username="u", response="{SECRET}"\nmore', "Authorization: …\nmore"),
        (f"curl -H Bearer {SECRET}", "curl -H Bearer …"),
        (f"http://host/x?token=${{A}}{SECRET}", "http://host/x?token=…"),
        (f"token=${{A}}{SECRET} http://host/x?${{A}}={SECRET}", "token=… http://host/x?${A}=…"),
        (f"api_key={SECRET} password='{SECRET}'", "api_key=… password='…'"),
        (f'{{"password": "{SECRET}"}}', '{"password": "…"}'),
    ],
)
def test_credentials_are_not_shown(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "/plain/path",
        "http://cam:80, http://cam:80: refused, (http://cam:80). http://cam: refused http://[::1]/x",
        "watch:///volume/a:b@c",
        "Give them as rtsp://USER:PASSWORD@HOST/x",
        "0",
        "jsonl:/data/a@b/x.jsonl",
        "watch:/volume/@eaDir",
        r"C:\parts\me@line\x.png",
        "/data/12:30@line/x.png",
        "v4l2:///dev/video0?width=1280",
        "rtsp://[::1]:554/Streaming/Channels/101 cannot be opened: Connection refused",
        "rtsp://cam:554/line failed; write to line@example.com",
        "[rtsp @ 0x55d1] method DESCRIBE failed: 401",
        "author=me epoch=3 tokens: 5",
        "late: decided after 20 ms, allowed 10 ms",
        "Set one:  --trigger 'http://0.0.0.0:8090/part?token=${TRIGGER_TOKEN}'",
        "Pass the --sink of edgead:  modbus-server:HOST:PORT, modbus://HOST:PORT, opcua:HOST:PORT",
        "token=${A_TOKEN}, password='${B}'; https://host/x?a=${A}&b=${B}.",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_known_secrets_are_replaced_everywhere() -> None:
    remember_secret("Xk29-plain-word", "${LINE_SECRET}")
    assert redact("GET /hook/Xk29-plain-word refused") == "GET /hook/${LINE_SECRET} refused"
    remember_secret("1234", "${PIN}")
    assert redact("frame 1234") == "frame 1234"


@pytest.mark.parametrize("piece", ["a:b,", "a-", "//a:", "http://", "Authorization:", "://a:b ", "a://b:c", "x/"])
def test_long_text_takes_no_time(piece: str) -> None:
    start = time.process_time()  # of this process, whatever others do meanwhile
    redact(piece * 20_000 + ":=")
    assert time.process_time() - start < 2


def test_text_for_a_line_is_one_line_without_codes() -> None:
    assert printable("a\nPASS b\r\x1b[31m\x07\u202e\u2028\udcff") == (r"a\nPASS b\r\x1b[31m\x07\u202e\u2028\udcff")
    assert printable("Prüfteil 7 – 部品") == "Prüfteil 7 – 部品"
