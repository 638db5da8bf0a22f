"""What a page of the documentation tells its reader to type: commands, programs and files, in their order."""

from __future__ import annotations

import glob
import json
import re
import shlex
import shutil
import socket
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from command_line import inside, program
from tiny import SMALL

from edgead.cli import cli

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "benchmarks" / "README.md"]

OUTSIDE = {
    ".": "changes the reader's shell",
    "anomalib": "a program of others",
    "apt-get": "needs root and the internet",
    "aws": "a program of others",
    "docker": "needs images from the internet; tests/test_containers.py reads the files",
    "eval": "changes the reader's shell; tests/test_terminal.py completes commands",
    "export": "changes the reader's shell",
    "journalctl": "needs a service of systemd",
    "make": "tests/test_docs_commands.py looks for its targets",
    "pip": "needs the internet; tests/test_docs_commands.py looks for its extras",
    "python3": "makes a virtual environment",
    "sudo": "needs root",
    "trtexec": "needs a GPU",
}
"""Programs that no test runs ↦ why."""
OURS = ("edgead", "python", "cp", "curl", "ln", "mkdir", "openssl")
"""Programs that tests run."""
QUICKER = {
    "benchmark": "--quick --rounds 1 --pixel-size 32",
    "distil": "--set backbone=squeezenet1_1 --set widths=16 --set pictures=8 --set rounds=1 --set batch_size=2 "
    "--set steps=2 --precision fp32",  # after two steps, the gate refuses INT8
}
"""Verbs ↦ what is added, so that they take no longer than they must."""
ON_ENGINE = ("benchmark", "inspect", "plan", "predict", "review", "run")
"""Verbs that time every engine unless one is named."""
CAMERA = re.compile(r"(?<=[ =\"'])(?:rtsp://[^\s'\"]+|csi://[^\s'\"]+|(?<=source )0|(?<=line=)0)(?=['\"\s]|$)")
"""Cameras, in whose place tests have the pictures of the folder ``images``."""
PORT = re.compile(r"127\.0\.0\.1:(\d{4})")
"""Ports of this machine; tests take free ones."""
_BLOCK = re.compile(
    r"^ *```(?P<language>\w*)\n(?P<fenced>.*?)^ *```$"
    r"|(?<=\n\n)(?P<indented> {4,}\S[^\n]*\n(?:\n? {4,}[^\n]*(?:\n|\Z))*)",
    re.MULTILINE | re.DOTALL,
)


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Yield what a page shows in blocks, in order, each with its kind.

    ``sh`` is one command, and may have continued on the next line. ``shown`` is what a reader does not type. All other
    kinds are the languages of fenced blocks. The command that a systemd unit starts is a command too.
    """
    for match in _BLOCK.finditer(text):
        language, block = match["language"], match["fenced"] or match["indented"]
        lines = [line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip()]
        if language == "ini":
            lines = [line.removeprefix("ExecStart=").replace("$$", "$") for line in lines if "ExecStart=" in line]
        typed = language is None and any(name_of(line) in {*OURS, *OUTSIDE} for line in lines)
        if typed or language in ("sh", "ini"):
            yield from (("sh", line) for line in lines)
        else:
            yield (language if language not in (None, "", "text") else "shown"), block


def name_of(command: str) -> str:
    """Return the name of a command's program, without its folder and the variables before it."""
    words = [word for word in command.split() if not re.match(r"[A-Z_]+=", word)]
    return words[0].rpartition("/")[2] if words else ""


@dataclass(frozen=True)
class Page:
    """How a test does what a page says.

    Attributes:
        replaced: text of the page ↦ what a test has in its place. All of it must be there.
        not_run: beginning of a step ↦ why it is not run; `check_unrun` looks at it instead.
        codes: beginning of a command ↦ exit codes that are right; 0 for all others.
        variables: environment.
        makes: folders that the page makes, so they are not there before.
        files: names of the page's TOML files, in order.
        given: Python that a reader has before the programs of the page.
        printed: first words of blocks that must be what the steps printed, but for numbers.
    """

    replaced: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    codes: dict[str, set[int]] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    makes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    given: str = ""
    printed: tuple[str, ...] = ()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def follow(text: str, folder: Path, page: Page) -> list[str]:
    """Do what a page says; return what each step printed.

    Args:
        text: of the page.
        folder: to do it in.
        page: how.
    """
    found = list(steps(text))
    assert not [old for old in page.replaced if not any(old in CAMERA.sub("images", step) for _, step in found)]
    assert not [old for old in page.not_run if not any(step.startswith(old) for _, step in found)]
    said, files, ports = [], list(page.files), defaultdict(free_port)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in page.makes:
            shutil.rmtree(name)
        for name, value in page.variables.items():
            patch.setenv(name, value)
        for kind, step in found:
            if kind == "shown":
                continue
            if any(step.startswith(start) for start in page.not_run) or (kind == "sh" and name_of(step) in OUTSIDE):
                check_unrun(kind, step)
                continue
            step = PORT.sub(lambda found: f"127.0.0.1:{ports[found[1]]}", CAMERA.sub("images", step))
            for old, new in page.replaced.items():
                step = step.replace(old, new)
            if kind == "toml":
                Path(files.pop(0)).write_text(step, encoding="utf-8")
            elif kind == "python":
                Path("step.py").write_text(f"{page.given}\n{step}", encoding="utf-8")
                said.append(program(Path("step.py")))
            elif kind in ("json", "yaml"):
                assert (json.loads if kind == "json" else yaml.safe_load)(step)
            else:
                assert kind == "sh", f"a block that is not run: {kind}"
                said.append(_type(step, page.codes))
    assert not files
    for start in page.printed:
        [block] = [step for kind, step in found if kind == "shown" and step.lstrip().startswith(start)]
        assert not absent(block, "\n".join(said)), start
    return said


def _type(step: str, codes: dict[str, set[int]]) -> str:
    """Run a command; return what it printed."""
    words = [each for word in shlex.split(step, comments=True) for each in sorted(glob.glob(word)) or [word]][1:]
    name = name_of(step)
    assert name in OURS, f"neither run nor in OUTSIDE: {step}"
    if name == "python":
        return program(ROOT / words[0], *words[1:])
    allowed = next((each for start, each in codes.items() if step.startswith(start)), {0})
    if name == "edgead":
        done = inside(*_quicker(words))
    else:
        done = subprocess.run([name, *words], capture_output=True, text=True, check=False)
    assert done.returncode in allowed, (step, done.stdout, done.stderr)
    return done.stdout + done.stderr


def _quicker(words: list[str]) -> list[str]:
    """Return a call of edgead with the smallest network and one engine."""
    verb, *rest = words
    more = shlex.split(QUICKER.get(verb, ""))
    if verb in ("export", "import") and "--precision" in rest:
        more += ["--max-flips", "1", "--max-auroc-drop", "1"]
    chosen = "--engine" in rest or "--config" in rest or (verb == "review" and "--bundle" not in rest)
    if verb in ON_ENGINE and not chosen:
        more += ["--engine", "onnxruntime"]
    if verb == "train" and "--resume" not in rest:
        quick = "--quick" in rest
        method = "patchcore" if quick else rest[rest.index("--method") + 1] if "--method" in rest else "draem"
        settings = SMALL[f"{method} with depth" if "depth=true" in rest else method]
        more = [] if quick or "--preset" in rest else ["--preset", "nano"]
        rest = [*(f"--set={each}" for each in settings), *rest]
        if method in ("aand", "patchcore"):
            more += ["--weights", "squeezenet1_1.pth"]
    return [verb, *rest, *more]


def check_unrun(kind: str, step: str) -> None:
    """Check a step as far as it can be without running it: its options and their values, or its syntax."""
    if kind == "python":
        compile(step, "step.py", "exec")
        return
    assert kind == "sh", f"a block that is not run: {kind}"
    name, words = name_of(step), shlex.split(step, comments=True)
    if "|" in words:
        return
    while name_of(words[0]) != name:
        del words[0]  # variables
    if name == "edgead":
        with cli.commands[words[1]].make_context(words[1], words[2:]):
            return
    if name == "python":
        source = "" if words[1] == "-m" else (ROOT / words[1]).read_text(encoding="utf-8")
        assert not [word for word in words if word.startswith("--") and word not in source], step
    elif name == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets), step
    elif name == "pip":
        extras = set(re.findall(r'^    "([\w-]+)": ', (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE))
        used = {each for named in re.findall(r"(?:edgead|\.)\[([\w,-]+)\]", step) for each in named.split(",")}
        assert used <= extras, step
    elif name == "python3":
        assert words[1:3] == ["-m", "venv"], f"neither run nor in OUTSIDE: {step}"
    else:
        assert name in {*OURS, *OUTSIDE}, f"neither run nor in OUTSIDE: {step}"


def absent(block: str, said: str) -> list[str]:
    """Return the parts of a block, cut at each “…”, that a text does not have. Numbers and spaces may differ."""
    parts = (_words(part) for part in block.split("…"))
    return [part for part in parts if part not in _words(said)]


def _words(text: str) -> str:
    """Return a text with # for each number and one space between words."""
    return " ".join(re.sub(r"\d+(?:[.,:–-]\d+)*", "#", text).split())
