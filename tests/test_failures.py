"""No traceback from the command line: nasty values, odd machines, and what nobody foresaw."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from command_line import inside
from level_bundle import make_level_bundle

from edgead import cli, doctor, failures
from edgead.bundle import Bundle
from edgead.errors import BundleError, ConfigError
from edgead.images import encode_png, read_image
from edgead.text import valid

NASTY = [
    *(
        "",
        "x",
        "-1",
        "0",
        "99999",
        "1e999",
        "nan",
        "inf",
        "9" * 5000,
        "10" * 200,
        "[::1",
        "http://[::1",
        "rtsp://h:99999/x",
    ),
    *("mqtt://h:99999/t", "mqtts://h:x/t", "mqtt://[::1/t", "http://h:99999/", "av+rtsp://[::1", "sqlite:", "jsonl:"),
    *("sqlite:/nonexistent/x/y", "jsonl:/proc/x", "rejects:", "replay:", "replay:/etc", "watch:", "v4l2:x", "genicam:"),
    *("\udcff.png", "caf\udce9", r"$\frac$", "a\nb", "\x1b[31mred", "/etc/passwd", "/dev/null", "~", "fpr:", "fpr:nan"),
    *("a=", "=", "size=999999999999", "1,2", "0,0,0,0", "nan,nan,nan,nan", "onnxruntime:x=1", "openvino:hint=", ":"),
    *("tensorrt:opt_level=" + "9" * 30, "é" * 300, "x" * 5000),
]
"""Values for any option or argument."""


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run the command line in this process; return its exit code and standard error."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(ended.value.code or 0), capsys.readouterr().err


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Fail what takes longer."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def verbs(bundle: Path, image: Path) -> dict[str, list[str]]:
    """Verbs that are quick, each with arguments that work."""
    engine = ["--engine", "onnxruntime"]
    return {
        "predict": [str(bundle), str(image), *engine],
        "run": [str(bundle), "--source", str(image), "--max-frames", "1", *engine],
        "inspect": [str(bundle), *engine],
        "doctor": [],
    }


def with_value(parameter: click.Parameter, arguments: list[str], value: str) -> list[str]:
    """Put a value in the place of a parameter."""
    if isinstance(parameter, click.Argument):
        return [value, *arguments[1:]]
    name = parameter.opts[0]
    if name in arguments:
        place = arguments.index(name) + 1
        return [*arguments[:place], value, *arguments[place + 1 :]]
    return [*arguments, name, value]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["predict", pytest.param("run", marks=pytest.mark.long), "inspect", "doctor"])
def test_no_value_ends_in_a_traceback(
    verb: str,
    parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(doctor, "PURPOSES", dict(list(doctor.PURPOSES.items())[:1]))  # of the same shape, and quick
    bundle = make_level_bundle(tmp_path / "level.edgead")  # it is opened hundreds of times
    assert run([verb, *verbs(bundle.path, parts / "test" / "good" / "000.png")[verb]], capsys)[0] == 0
    arguments = verbs(bundle.path, parts / "test" / "good" / "000.png")[verb]
    odd = []
    for parameter in cli.cli.commands[verb].params:
        if getattr(parameter, "is_flag", False):
            continue
        for value in NASTY:
            with limited(60):
                code, said = run([verb, *with_value(parameter, arguments, value)], capsys)
            if code not in (0, 2, 4) or "Traceback" in said or failures.DEBUG in said:
                odd.append((parameter.opts[0], value[:40], code, said[-300:]))
    assert not odd


@pytest.mark.parametrize("sink", ["mqtt://h:99999/t", "mqtts://h:x/t", "mqtt://[::1/t", "http://[::1"])
def test_addresses_that_are_none_are_said(
    sink: str, bundle: Bundle, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = verbs(bundle.path, parts / "test" / "good" / "000.png")["run"]
    code, words = run(["run", *arguments, "--sink", sink], capsys)
    assert code == 2
    assert "malformed" in words


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BundleError("b"), 2, "Error: b\n"),
        (click.UsageError("u"), 2, "Error: u\n"),
        (KeyboardInterrupt(), 130, "Error: interrupted.\n"),
        (MemoryError(), 2, "Out of memory"),
        (PermissionError(13, "Permission denied", "/x"), 2, "Cannot read or write /x: Permission denied.\n"),
        (OSError(28, "No space left on device", b"/caf\xe9"), 2, "Free some space"),
        (RecursionError("deep"), 70, "RecursionError: deep\n  This is an internal error of edgead"),
        (ValueError("rtsp://u:secret@h/ " + "x" * 999), 70, "ValueError: rtsp://"),
        (OSError("no errno"), 70, "OSError: no errno"),
    ],
)
def test_every_error_is_a_few_lines(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", fail)
    ended, words = run([], capsys)
    assert ended == code
    assert said in words
    assert len(words.splitlines()) <= 3
    assert max(map(len, words.splitlines())) < 400
    assert "secret" not in words


def test_details_of_a_fault_are_kept_without_passwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TypeError("what nobody foresaw with rtsp://u:secret@h/")

    monkeypatch.setattr(cli.cli, "main", fail)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "argv", ["edgead", "run", "--source", "rtsp://u:secret@h/"])
    _, words = run([], capsys)
    [file] = (tmp_path / "state" / "edgead").iterdir()
    assert f"Details: {file}" in words
    assert "Traceback" in file.read_text()
    assert "what nobody foresaw" in file.read_text()
    assert "secret" not in file.read_text()
    monkeypatch.setenv(failures.DEBUG, "1")
    assert "Traceback" in run([], capsys)[1]
    assert len(list((tmp_path / "state" / "edgead").iterdir())) == 1


def python(*arguments: str | bytes | Path, stdout: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python in a process with these environment variables and no others of the user's."""
    kept = {
        name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    }
    command = [os.fsencode(sys.executable), *(os.fsencode(each) for each in arguments)]
    if stdout:
        command = [b"sh", b"-c", b'"$@" ' + stdout.encode(), b"sh", *command]
    return subprocess.run(command, env={**kept, **variables}, capture_output=True, check=False, timeout=120)


def edgead(*arguments: str | bytes | Path, stdout: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command line as `python` does."""
    return python("-m", "edgead", *arguments, stdout=stdout, **variables)


@pytest.fixture
def odd_image(tmp_path: Path, parts: Path) -> Path:
    """An image whose name is no UTF-8."""
    path = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9 \xe2\x82\xac.png"))
    try:
        path.write_bytes(encode_png(read_image(parts / "test" / "good" / "000.png")))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    return path


ONE_BY_ONE = """
import sys
from edgead.cli import main
calls = [[]]
for argument in sys.argv[1:]:
    calls.append([]) if argument == "next" else calls[-1].append(argument)
for call in calls:
    try:
        main(call)
    except SystemExit as end:
        print("ended with", end.code, file=sys.stderr)
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_encoding_and_any_name(encoding: str, bundle: Bundle, odd_image: Path) -> None:
    folder = odd_image.parent
    sinks = [
        f"--sink=jsonl:{folder / 'r.jsonl'}",
        f"--sink=sqlite:{folder / 'r.sqlite'}",
        f"--sink=rejects:{folder / 'bad'}",
    ]
    calls: list[list[str | Path]] = [
        ["predict", bundle.path, odd_image, "--engine", "onnxruntime", "--save", folder / "overlays"],
        ["run", bundle.path, "--source", odd_image, "--engine", "onnxruntime"],
        ["run", bundle.path, "--source", odd_image, "--engine", "onnxruntime", *sinks],
        ["inspect", bundle.path, "--engine", "onnxruntime"],
        ["predict", bundle.path, folder / "absent \u2713 \udcff.png"],
    ]
    arguments = [word for call in calls for word in ("next", *call)][1:]
    done = python("-c", ONE_BY_ONE, *arguments, PYTHONIOENCODING=encoding, HOME=str(folder))
    assert b"Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith(b"ended")] == [
        *[b"ended with 0"] * 4,
        b"ended with 2",
    ], done.stderr
    line = (folder / "r.jsonl").read_bytes().decode()  # valid UTF-8
    assert json.loads(line)["path"] == f"{folder}/caf\\xe9 €.png"
    with contextlib.closing(sqlite3.connect(folder / "r.sqlite")) as database:
        [table] = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        assert database.execute(f"select count(*) from {table}").fetchone() == (1,)


def test_a_closed_standard_output_is_no_traceback(bundle: Bundle, parts: Path) -> None:
    for closing in (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "> /dev/full"):
        done = edgead("predict", bundle.path, parts / "test" / "good", "--engine", "onnxruntime", stdout=closing)
        assert b"Traceback" not in done.stderr + done.stdout, closing
        assert done.returncode in (0, 1, 2), (closing, done.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_run_whose_messages_cannot_be_written_loses_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log on a full disk: the sink that fails is reported there, and every result has its fate all the same."""
    sinks = ["--sink", "jsonl:/dev/full", "--sink", f"jsonl:{tmp_path / 'r.jsonl'}"]
    made = make_level_bundle(tmp_path / "level.edgead")
    source = "synthetic:?width=64&height=64&frames=20"
    call = ["run", str(made.path), "--source", source, "--engine", "onnxruntime", "--json", *sinks]
    with open("/dev/full", "w", buffering=1) as full, contextlib.redirect_stderr(full):
        with pytest.raises(SystemExit) as ended:
            cli.main(call)
        sys.stderr = full  # it cannot be closed either
        with contextlib.suppress(OSError):
            full.close()
    summary = json.loads(capsys.readouterr().out)
    assert ended.value.code == 2
    fates = [(sink["taken"], sink["failed"], sink["waiting"]) for sink in summary["sinks"]]
    assert fates == [(0, summary["captured"], 0), (summary["captured"], 0, 0)]


def test_a_home_that_is_not_there_or_not_writable(
    bundle: Bundle, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("predict", bundle.path, parts / "test" / "good" / "000.png")
    without = edgead(*call)
    assert without.returncode == 0, without.stderr
    (tmp_path / "locked").mkdir(mode=0o555)
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for home in (tmp_path / "absent", Path("/proc/1/nothing"), tmp_path / "locked", Path("/dev/null")):
        monkeypatch.setenv("HOME", str(home))
        done = inside(*call)
        assert done.returncode == 0, (home, done.stderr)


def test_mqtt_without_a_home_says_what_to_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgead import home
    from edgead.runtime.broker import Broker
    from edgead.runtime.sinks.mqtt import default_store

    monkeypatch.setattr(home, "_user_folder", lambda *_: None)
    with pytest.raises(ConfigError, match=r"(?s)no home folder.*store=FILE"):
        default_store(Broker("h"), "t")
    assert home.cache_folder().is_dir()


@pytest.mark.skipif(sys.platform == "win32", reason="no HUP")
@pytest.mark.parametrize(("before", "code"), [(signal.SIG_DFL, 130), (signal.SIG_IGN, 0)])
def test_a_terminal_that_is_closed_ends_a_verb_as_ctrl_c_does(
    before: signal.Handlers, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not under nohup."""
    monkeypatch.setattr(doctor, "diagnose", lambda: signal.raise_signal(signal.SIGHUP) or [])
    kept = signal.signal(signal.SIGHUP, before)
    try:
        assert run(["doctor"], capsys)[0] == code
    finally:
        signal.signal(signal.SIGHUP, kept)


IN_A_LIBRARY = """
import itertools, sys, threading
import onnxruntime
model, sys.argv = sys.argv[1], ["edgead", *sys.argv[2:]]
opened = threading.Event()
def open_forever():
    for number in itertools.count():
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        if number:
            opened.set()
threading.Thread(target=open_forever, daemon=True).start()
opened.wait()
from edgead.__main__ import main
main()
"""


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["methods", "nothing"], 2)])
def test_a_thread_that_is_busy_in_a_library_does_not_abort_the_end(
    arguments: list[str], code: int, tmp_path: Path
) -> None:
    """As one that opens a bundle, or waits for a camera, while the run ends."""
    model = make_level_bundle(tmp_path / "level.edgead").path / "model.onnx"
    done = python("-c", IN_A_LIBRARY, model, *arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout or done.stderr


def test_ctrl_c_while_the_command_line_is_imported() -> None:
    program = (
        "import sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "from edgead.__main__ import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "Error: interrupted.\n")


def test_half_characters_become_escapes() -> None:
    assert valid("plain") == "plain"
    assert valid("grün €") == "grün €"
    assert valid("caf\udce9") == "caf\\xe9"
    assert valid("\ud800") == "\\ud800"
