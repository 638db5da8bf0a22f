"""The documentation site: complete, without dead links or warnings, and readable without internet."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from edgead.cli import cli

ROOT = Path(__file__).parents[1]
CONFIG = (ROOT / "zensical.toml").read_text(encoding="utf-8")


def test_every_page_is_in_the_menu() -> None:
    listed = set(re.findall(r'"([\w/-]+\.md)"', CONFIG))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= listed


def test_the_page_of_commands_keeps_examples_and_names_no_default_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    shown = importlib.import_module("command_reference").cli
    assert set(shown.commands) == set(cli.commands)
    for name, command in (("", shown), *shown.commands.items()):
        assert "\b" not in command.help, name
        options = [each for each in command.params if isinstance(each, click.Option)]
        assert not [each.name for each in options if "Sentinel" in repr(each.default)], name
    lines = shown.help.splitlines()
    assert lines[lines.index("```text") + 1].startswith("edgead demo")
    assert "\b" in (cli.help or "")  # the command line itself is not changed


@pytest.mark.slow
def test_the_site_is_built_strictly() -> None:
    pytest.importorskip("zensical", reason="no zensical (pip install 'edgead[docs]')")
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "build_site.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    site = ROOT / "build" / "site"
    commands = (site / "cli.html").read_text(encoding="utf-8")
    assert all(f'id="edgead-{name}"' in commands for name in cli.commands)
    assert "Sentinel" not in commands  # click's word for "not set"
    reference = (site / "api.html").read_text(encoding="utf-8")
    assert all(f'id="{name}"' in reference for name in ("edgead.load", "edgead.Inspector.inspect", "edgead.Result"))
    assert "0001-links-show-the-layout.html" in (site / "adr" / "index.html").read_text(encoding="utf-8")
    assert "unpkg.com" not in (site / "index.html").read_text(encoding="utf-8")
    assert not [link for page in site.rglob("*.html") if page.name != "404.html" for link in dead_links(page)]


def dead_links(page: Path) -> list[str]:
    """Return the links of a built page to files that are not there."""
    links = re.findall(r'(?:href|src)="([^"#?]+)', page.read_text(encoding="utf-8"))
    return [f"{page.name}: {link}" for link in links if ":" not in link and not (page.parent / link).exists()]
