"""Secrets in every option of every verb: also in an option or a verb that is added later."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from command_line import inside
from https_folder import HttpsFolder, make_certificate
from level_bundle import frame_of, make_level_bundle

from edgead.cli import cli
from edgead.images import encode_png
from edgead.pull import download

NAMED = re.compile(r"token|pass|secret|credential|api_?key")
PASSWORD = "pass-w0rd-0f-mine"
ADDRESS = f"https://user:{PASSWORD}@nas.example/x?token={PASSWORD}"
REQUIRED = {"keys": ["show"], "plc": ["simulate"]}
"""What a verb needs before other arguments, so that it looks at them."""
TEXT = click.types.StringParamType, click.Path


def parameters() -> Iterator[tuple[str, click.Parameter]]:
    for verb, command in cli.commands.items():
        for parameter in command.params:
            yield verb, parameter


def call(verb: str, given: click.Parameter, value: str) -> list[str]:
    """A call with a value for one parameter, and names of nothing for those that the verb needs."""
    words = [verb, *REQUIRED.get(verb, [])]
    for each in cli.commands[verb].params:
        if each is not given and not each.required:
            continue
        text = value if each is given else "absent"
        if isinstance(each, click.Argument):
            words += [] if isinstance(each.type, click.Choice) else [text]
        elif each is given or isinstance(each.type, TEXT):
            words += [each.opts[-1], text]
        else:
            words += [each.opts[-1], "1s" if each.name == "deadline" else "1"]
    return words


def test_an_option_for_a_secret_takes_none_that_ps_would_show(tmp_path: Path) -> None:
    found = [(verb, each) for verb, each in parameters() if NAMED.search(each.name or "")]
    assert {each.name for _, each in found} >= {"token", "metrics_token", "view_token", "passphrase"}
    for verb, option in found:
        done = inside(*call(verb, option, PASSWORD), folder=tmp_path)
        assert done.returncode == 2, (verb, option.name)
        assert PASSWORD not in done.stdout + done.stderr, (verb, option.name)
        assert "visible in ps" in done.stderr or "no effect" in done.stderr, (verb, option.name, done.stderr)


@pytest.mark.slow
def test_no_error_shows_a_password_in_an_address(tmp_path: Path) -> None:
    """Whatever parameter it is written into."""
    tried = 0
    for verb, parameter in parameters():
        if not isinstance(parameter.type, TEXT) or (verb, parameter.name) == ("demo", "out"):
            continue  # the demo makes that folder
        done = inside(*call(verb, parameter, ADDRESS), folder=tmp_path)
        words = (verb, parameter.name, done.stdout, done.stderr)
        assert done.returncode not in (1, 70), words
        assert PASSWORD not in done.stdout + done.stderr, words
        assert "Traceback" not in done.stderr, words
        tried += 1
    assert tried > 60


def test_keys_and_pull_keep_what_they_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase, and the token of a server: in no output, no file beside the bundle, and no report of an error."""
    pytest.importorskip("cryptography")
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.setenv("EDGEAD_DEBUG", "0")
    for name in ("CACHE", "STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    secrets = {"PHRASE": "correct-horse-b4ttery", "WRONG": "wrong-horse-b4ttery", "SERVER": "server-t0ken-of-mine"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    bundle = make_level_bundle(tmp_path / "made" / "x.edgead").path
    key, signing = tmp_path / "key", ["sign", bundle, "--key", tmp_path / "key", "--json"]
    server = HttpsFolder(bundle, make_certificate(tmp_path, "server"))
    fetch = ["pull", server.url, "--to", tmp_path / "line" / "now.edgead", "--trust", tmp_path / "key.pub"]
    fetch += ["--ca", tmp_path / "server.pem", "--engine", "onnxruntime", "--token", "${SERVER}", "--json"]

    def refuse(handler: object, name: str, content: bytes) -> bool:
        raise RuntimeError(f"unforeseen {secrets['SERVER']}")

    calls = {
        "keys": (["keys", "new", key, "--passphrase", "${PHRASE}", "--json"], 0),
        "no passphrase": (signing, 2),
        "wrong passphrase": ([*signing, "--passphrase", "${WRONG}"], 2),
        "sign": ([*signing, "--passphrase", "${PHRASE}"], 0),
        "pull": (fetch, 0),
        "from elsewhere": (["pull", ADDRESS, *fetch[2:]], 2),
        "unforeseen": (fetch, 70),
    }
    shown = {}
    for name, (words, code) in calls.items():
        if name == "unforeseen":
            monkeypatch.setattr(download, "quote", refuse)
        done = inside(*words, folder=tmp_path)
        assert done.returncode == code, (name, done.stderr)
        shown[name] = done.stdout + done.stderr
    server.close()
    assert server.tokens
    assert set(server.tokens) == {f"Bearer {secrets['SERVER']}"}
    texts = {**shown, **{str(path): path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()}}
    assert any("error-" in name for name in texts), "the report of the internal error"
    held = {name for name, text in texts.items() if any(each in text for each in (*secrets.values(), PASSWORD))}
    assert held == set()


def test_a_line_file_and_its_results_hold_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every kind of message as JSON, and everything that a run can write."""
    secrets = {"CAMERA": "camera-passw0rd", "HOOK": "hook-t0ken-of-mine", "METRICS": "metrics-t0ken-of-mine"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    bundle = make_level_bundle(tmp_path / "level.edgead").path
    (tmp_path / "pictures").mkdir()
    for level in (100, 200):
        (tmp_path / "pictures" / f"{level}.png").write_bytes(encode_png(frame_of(level)))
    hook = "http://user:${HOOK}@127.0.0.1:1/in?token=${HOOK}"
    line = tmp_path / "line.toml"
    line.write_text(
        f'sinks = ["jsonl:r.jsonl", "sqlite:r.sqlite", "rejects:rejects", "{hook}"]\n'
        '[cameras.a]\nsource = "pictures"\n[cameras.b]\nsource = "http://user:${CAMERA}@127.0.0.1:1/stream"\n'
        f'[products.x]\nbundle = "{bundle}"\n'
        '[run]\nengine = "onnxruntime"\nhealth = "off"\nrecord = "record"\n'
        'metrics = "0"\nmetrics_token = "${METRICS}"\n'
    )
    # The second camera never comes, and the run would wait for it.
    done = inside("run", "--config", line, "--max-frames", "2", "--log", "json", "--json", folder=tmp_path)
    said = [json.loads(text) for text in done.stderr.splitlines()]
    assert any("127.0.0.1:1" in each["message"] for each in said), done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != line]
    assert {"r.jsonl", "r.sqlite"} <= {path.name for path in written}
    shown = {"output": done.stdout + done.stderr} | {str(each): each.read_bytes().decode("latin1") for each in written}
    assert {name for name, text in shown.items() if any(each in text for each in secrets.values())} == set()
