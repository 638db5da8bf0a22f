"""What a terminal, a log and a pipe get: bars and tables, colours, --quiet, completion, any encoding, early readers."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from level_bundle import make_level_bundle

from edgead import console, terminal
from edgead.cli import cli, main
from edgead.cli.output import emit
from edgead.console import Terminal
from edgead.table import Table

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SPEED = r"Speed: (?:(?:capture|fit|infer|post|total) \d+\.\d/\d+\.\d(?:, )?){5} ms \(p50/p99\)"


@pytest.fixture(scope="module")
def level(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle that opens at once."""
    return str(make_level_bundle(tmp_path_factory.mktemp("level") / "level.edgead").path)


def call(*command: str | Path, screen: tuple[str, ...] = (), **variables: str) -> tuple[int, str, str]:
    """Run Python with arguments; return its exit code, standard output and standard error.

    Args:
        command: the arguments.
        screen: which of ``"stdout"`` and ``"stderr"`` are a terminal of 120 columns; the others are pipes.
        variables: of the environment.
    """
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    ends = {name: slave if name in screen else subprocess.PIPE for name in ("stdout", "stderr")}
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment = {**kept, "TERM": "xterm", **variables}
    with subprocess.Popen([sys.executable, *map(str, command)], env=environment, **ends) as process:  # type: ignore[call-overload]
        os.close(slave)
        shown = b""
        while screen and (part := _read(master)):
            shown += part
        piped = process.communicate(timeout=60)
    os.close(master)
    out, err = (shown if name in screen else piped[index] for index, name in enumerate(ends))
    return process.returncode, out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "surrogateescape")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""


BAR = """
import sys
from edgead.console import Terminal
from edgead.failures import prepare_streams
prepare_streams()
console = Terminal()
with console.bar("reading [red]", 3) as step:
    step("first")
    console.say("a line above the bar")
    step("caf\\u00e9 \\u2713")
    step("")
with console.clock("building") as show:
    show("layers")
print("result")
"""


def test_on_a_terminal_there_is_a_bar_and_lines_appear_above_it() -> None:
    code, out, err = call("-c", BAR, screen=("stderr",))
    assert (code, out) == (0, "result\n")
    assert "\x1b[2K" in err
    plain = ESCAPES.sub("", err)
    assert "reading [red] ━" in plain
    assert "a line above the bar\r\n" in plain
    assert "3/3" in plain


def test_in_a_log_nothing_moves() -> None:
    assert call("-c", BAR, FORCE_COLOR="1") == (0, "result\n", "a line above the bar\n")
    assert call("-c", BAR, screen=("stderr",), TERM="dumb") == (0, "result\n", "a line above the bar\r\n")


def test_without_rich_a_terminal_gets_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "is_installed", lambda name: False)
    monkeypatch.setattr(terminal, "is_screen", lambda stream: True)
    monkeypatch.setattr(console, "is_screen", lambda stream: True)
    monkeypatch.setattr(console, "ON_SCREEN", 0.0)
    with Terminal().bar("reading", 2) as step:
        step("first")
        step("second")
    emit(None, False, Table(("bundle", "p99"), [("bottle", "3.1 ms")]))
    told = capsys.readouterr()
    assert re.fullmatch(r"reading  1/2  0:00:00 left  first\n", told.err)
    assert told.out == "bundle  p99\n--------------\nbottle  3.1 ms\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_a_terminal_of_any_encoding(encoding: str, level: str, parts: Path) -> None:
    code, out, err = call("-c", BAR, screen=("stderr",), PYTHONIOENCODING=encoding)
    assert (code, out) == (0, "result\n")
    assert "Traceback" not in err
    assert ("━" in err) == (encoding == "utf-8")


TABLE = """
from edgead.cli.output import emit
from edgead.table import Table
emit(None, False, Table(("bundle", "p99"), [("[bold]bottle", "3.1 ms \\u2713"), ("x" * WIDTH, "–")]))
"""


def test_a_table_is_drawn_where_it_fits() -> None:
    _, drawn, _ = call("-c", TABLE.replace("WIDTH", "20"), screen=("stdout",))
    assert "\x1b[1mbundle" in drawn
    assert "[bold]bottle" in ESCAPES.sub("", drawn)
    _, wide, _ = call("-c", TABLE.replace("WIDTH", "150"), screen=("stdout",))
    assert "x" * 150 in wide
    _, piped, _ = call("-c", TABLE.replace("WIDTH", "20"))
    assert piped.splitlines()[0] == "bundle                p99"


@pytest.mark.parametrize(
    ("screen", "variables", "coloured"),
    [
        (("stdout",), {}, True),
        ((), {}, False),
        (("stdout",), {"NO_COLOR": "1"}, False),
        ((), {"FORCE_COLOR": "1"}, True),
        ((), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (("stdout",), {"TERM": "dumb"}, False),
    ],
)
def test_colours(screen: tuple[str, ...], variables: dict[str, str], coloured: bool) -> None:
    program = "from edgead.terminal import echo; import click; echo(click.style('FAIL', 'red'))"
    _, out, _ = call("-c", program, screen=screen, **variables)
    assert out.strip() == ("\x1b[31mFAIL\x1b[0m" if coloured else "FAIL")


def inside(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a verb in this process, which has imported the engines already."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def test_quiet_leaves_results_and_errors(
    level: str, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = str(parts / "test" / "chip")
    for arguments in (["-q", "predict", level, images], ["predict", "--quiet", level, images]):
        code, out, err = inside(capsys, *arguments)
        assert (code, len(out.splitlines()), err) == (0, 2, "")
    assert inside(capsys, "run", "-q", level, "--source", images)[2] == ""
    assert inside(capsys, "-q", "inspect", level)[2] == ""
    code, out, err = inside(capsys, "-q", "predict", level, str(tmp_path / "absent"))
    assert (code, out, err.startswith("Error: ")) == (2, "", True)


def test_every_verb_takes_quiet() -> None:
    for verb in cli.commands.values():
        assert "quiet" in {parameter.name for parameter in verb.params}, verb.name


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "LEVEL", "PARTS"],
        ["run", "LEVEL", "--source", "PARTS"],
        ["run", "LEVEL", "--source", "PARTS", "--json"],
        ["inspect", "LEVEL"],
        ["inspect", "LEVEL", "--json"],
    ],
)
def test_the_last_line_is_the_speed(
    arguments: list[str], level: str, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"LEVEL": level, "PARTS": str(parts / "test" / "chip")}
    code, out, err = inside(capsys, *(places.get(each, each) for each in arguments))
    assert code == 0, err
    assert re.fullmatch(SPEED, err.splitlines()[-1])
    assert "Speed" not in out


def test_a_run_without_an_inferred_frame_says_so(
    level: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    _, _, err = inside(capsys, "predict", level, str(tmp_path / "bad.png"))
    assert err.splitlines()[-1] == "Speed: no frame was inferred"


@pytest.mark.parametrize("verb", ["predict", "run"])
def test_a_reader_that_leaves_early(verb: str, level: str, parts: Path, tmp_path: Path) -> None:
    """Exit code 1, and nothing on standard error but the account of a run."""
    images = parts / "test" / "good" / "000.png"
    for number in range(400):
        (tmp_path / f"{number:03}.png").symlink_to(images)
    source = ["--source"] if verb == "run" else []
    command = " ".join([sys.executable, "-m", "edgead", verb, level, *source, str(tmp_path)])
    script = f"{command} | head -n 1 > /dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr
    assert done.stdout == "1\n"


def test_completion_works_in_bash(tmp_path: Path) -> None:
    """The command of the documentation, and what the shell offers after it."""
    program = tmp_path / "edgead"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m edgead "$@"\n')
    program.chmod(0o755)
    script = """
        eval "$(_EDGEAD_COMPLETE=bash_source edgead)"
        complete -p edgead
        offer() {
            COMPREPLY=(); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _edgead_completion edgead; echo "${COMPREPLY[@]}"
        }
        offer edgead exp
        offer edgead predict --thr
        offer edgead run line.edgead --engine openv
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[1:] == ["export", "--threshold", "openvino openvino-bf16"]


@pytest.mark.parametrize("verb", sorted(cli.commands))
def test_the_help_of_every_verb_in_ascii(verb: str) -> None:
    result = CliRunner().invoke(cli, [verb, "--help"])
    assert result.exit_code == 0
    help_text = result.output.encode("ascii", "backslashreplace").decode()
    assert "--quiet" in help_text


ALL_VERBS = """
import json, sys
from edgead import doctor
from edgead.cli import main
doctor.PURPOSES = dict(list(doctor.PURPOSES.items())[:2])  # the import of every package takes its time
codes = {}
for verb, arguments in json.load(open(sys.argv[1])).items():
    try:
        main([verb, *arguments])
    except SystemExit as end:
        codes[verb] = end.code
json.dump(codes, open(sys.argv[2], "w"))
"""


@pytest.mark.long
def test_no_verb_needs_utf_8(level: str, trained: Path, parts: Path, tmp_path: Path) -> None:
    """On a terminal that has ASCII alone, and where files are opened as ASCII unless somebody says otherwise."""
    from onnx import parser, save_model

    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        main (float[N, 3, 16, 16] image) => (float[N, 1, 16, 16] heat) <float[1, 3, 1, 1] w = {0.2, 0.3, 0.5}>
        { heat = Conv (image, w) }""")
    save_model(model, tmp_path / "m.onnx")
    tiny = ["size=32", "reconstructive_width=2", "discriminative_width=2", "batch_size=2", "steps=1"]
    settings = [f"--set={each}" for each in tiny]
    (tmp_path / "rejects").mkdir()
    (tmp_path / "sweep.toml").write_text(f'data = "{parts}"\n[[methods]]\nmethod = "draem"\npreset = "nano"\n')
    fast = ["--engine", "onnxruntime"]
    small = ["stem=4", "widths=16,16", "pictures=8", "rounds=1", "batch_size=2", "steps=2"]
    student = ["--precision", "fp32", "--bundle-out", tmp_path / "student.edgead", *(f"--set={each}" for each in small)]
    calls: dict[str, list[Any]] = {
        "benchmark": [level, "--data", parts, "--rounds", "1", "--quick", *fast, "--out", tmp_path / "report"],
        "demo": ["--out", parts],  # not empty: an error
        "distil": [level, "--data", parts, "--target", "9999ms", "--out", tmp_path / "student", *student],
        "doctor": [],
        "export": ["--checkpoint", trained, "--out", tmp_path / "x.edgead"],
        "import": [tmp_path / "m.onnx", "--threshold-data", parts, "--out", tmp_path / "i.edgead"],
        "inspect": [level, *fast],
        "keys": ["new", tmp_path / "key"],
        "methods": ["transfusion"],
        "plan": ["--cameras", "2", "--fps", "5", "--deadline", "9s", "--profile", tmp_path / "absent"],
        "plc": ["registers"],
        "predict": [level, parts / "test" / "chip", *fast],
        "pull": ["https://127.0.0.1:9/part", "--to", tmp_path / "now", "--trust", tmp_path / "key.pub"],  # nobody there
        "report": [tmp_path / "report"],
        "review": [tmp_path / "rejects"],
        "run": [level, "--source", parts / "test" / "chip", *fast],
        "sign": [tmp_path / "i.edgead", "--key", tmp_path / "key"],
        "sweep": [tmp_path / "sweep.toml", "--list"],
        "synthesise": [trained, "--count", "1", "--out", tmp_path / "pictures"],
        "train": ["--data", parts, "--preset", "nano", "--out", tmp_path / "run", *settings],
    }
    assert set(calls) == set(cli.commands)
    (tmp_path / "calls.json").write_text(json.dumps(calls, default=str))
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    program = ["-c", ALL_VERBS, tmp_path / "calls.json", tmp_path / "codes.json"]
    code, shown, _ = call(*program, screen=("stdout", "stderr"), **ascii_only)
    assert code == 0, shown
    assert "Traceback" not in shown
    codes = json.loads((tmp_path / "codes.json").read_text())
    assert codes == {verb: 2 if verb in ("demo", "plan", "pull") else 0 for verb in calls}, shown


def test_the_console_is_silent_with_quiet() -> None:
    from edgead.cli.output import terminal as of_this_call

    found: list[Any] = []
    group = click.Group(params=list(cli.params))
    group.add_command(click.Command("verb", callback=lambda: found.append(of_this_call())))
    runner: Callable[..., Any] = CliRunner().invoke
    runner(group, ["-q", "verb"])
    runner(group, ["verb"])
    assert [type(each) for each in found] == [console.Console, Terminal]
