"""`edgead run --view` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from level_bundle import frame_of, make_level_bundle

from edgead.cli import cli
from edgead.images import encode_png


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("command")
    bundle = make_level_bundle(folder / "first.edgead").path
    (folder / "part.png").write_bytes(encode_png(frame_of(100)))
    return ["run", str(bundle), "--source", str(folder / "part.png"), "--engine", "onnxruntime"]


def test_a_run_with_a_page(arguments: list[str]) -> None:
    done = CliRunner().invoke(cli, [*arguments, "--view", "0"])
    assert done.exit_code == 0, done.output
    assert "Live page: http://127.0.0.1:" in done.output
    assert "PASS" in done.output


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (["--view-token", "${X}"], "--view-token has no effect without --view"),
        (["--view-folder", "x"], "--view-folder has no effect without --view"),
        (["--view", "0", "--view-token", "plain-text-token"], "visible in ps"),
        (["--view", "0.0.0.0:0"], "needs a token"),
        (["--view", "0", "--view-bundles", "absent"], "no such folder"),
        (["--view", "x"], "--view must be a port"),
    ],
)
def test_what_is_refused(arguments: list[str], given: list[str], match: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, [*arguments, *given])
    assert done.exit_code != 0
    assert match in f"{done.output} {done.exception}"
