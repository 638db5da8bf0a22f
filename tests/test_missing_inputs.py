"""A missing or empty input ends in an error, for every verb and every argument that names a file; so does a pipe."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from command_line import inside
from every_verb import calls
from level_bundle import make_level_bundle

from edgead.bundle import Bundle

RUN = Path(__file__).parent / "train" / "runs" / "draem.json"
OUTPUTS = ("--out", "--to")
OWN = {"sweep.toml", "key"}
"""What the user writes: it may come from a pipe, for instance by ``<(…)`` of a shell."""
WITHOUT_INPUT = {"demo", "doctor", "keys", "methods", "plc", "pull"}
ACCEPTED = {
    ("predict", "chip", "empty-file"): "its frame is UNKNOWN",
    ("review", "rejects", "empty-folder"): "nothing was rejected yet",
    ("review", "marks", "empty-folder"): "nothing was marked yet",
}
"""Verb, name of the input and what is in its place ↦ why it is no error."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_level_bundle(tmp_path_factory.mktemp("bundle") / "b.edgead")


@pytest.fixture(scope="module")
def every_call(bundle: Bundle, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[str]]]:
    """Return a folder with all inputs, and calls that read them."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "run").mkdir()
    shutil.copy(RUN, folder / "run" / "config.json")
    found = calls(bundle, parts, folder / "run", folder)
    assert found.keys() > WITHOUT_INPUT
    (folder / "marks").mkdir()
    assert inside("keys", "new", "key", folder=folder).returncode == 0
    (folder / "empty-folder").mkdir()
    (folder / "empty-file").touch()
    os.mkfifo(folder / "pipe")
    more = [
        ["review", "rejects", "--marks", "marks"],
        ["review", "rejects", "--marks", "marks", "--bundle", str(bundle.path)],
        ["plan", *found["plan"][:6], "--profile", "run/config.json"],
        ["report", str(bundle.path), "run"],
        ["run", "--config", "sweep.toml"],
    ]
    return folder, [*([verb, *rest] for verb, rest in found.items() if verb not in WITHOUT_INPUT), *more]


def inputs(call: list[str], folder: Path) -> list[int]:
    """Return which arguments name something that is there."""
    named = [at for at in range(1, len(call)) if call[at - 1] not in OUTPUTS and len(call[at]) < 200]
    return [at for at in named if not call[at].startswith("-") and (folder / call[at]).exists()]


@pytest.mark.slow
@pytest.mark.parametrize("instead", ["absent", "empty-folder", "empty-file", "pipe"])
def test_an_input_that_is_missing_empty_or_a_pipe_is_an_error(
    every_call: tuple[Path, list[list[str]]], instead: str
) -> None:
    folder, found = every_call
    tried = 0
    for call in found:
        assert inputs(call, folder), call
        for at in inputs(call, folder):
            if instead == "pipe" and call[at] in OWN:
                continue
            changed = [*call[:at], instead, *call[at + 1 :]]
            done = inside(*changed, folder=folder)
            accepted = (call[0], Path(call[at]).name, instead) in ACCEPTED and "--bundle" not in call
            assert done.returncode == (0 if accepted else 2), (changed, done.stderr)
            assert "Traceback" not in done.stderr
            tried += 1
    assert tried > 25
