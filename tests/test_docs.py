"""The documents: links and anchors resolve, pages can be found, and commands use verbs and options that exist."""

from __future__ import annotations

import importlib
import itertools
import re
from pathlib import Path

import click
import pytest

from edgead.cli import cli

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]
LINKED = [*PAGES, *ROOT.glob("benchmarks/*/*.md")]
CODE = re.compile(r"^```.*?^```|^ {4,}.*?$", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    links = (link for link in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", text)) if not link.startswith("http"))
    return [link for link in links if not _resolves(page, text, *link.partition("#")[::2])]


def _resolves(page: Path, text: str, name: str, anchor: str) -> bool:
    target = page.parent / name
    if name and not target.exists():
        return False
    return not anchor or anchor in anchors(target.read_text(encoding="utf-8") if name else text)


def ragged_rows(text: str) -> list[str]:
    """Return the rows of tables with more or fewer cells than the first row of their table."""
    found, columns = [], 0
    for line in CODE.sub("", text).splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        if cells and columns and cells != columns:
            found.append(line)
        columns = (columns or cells) if cells else 0
    return found


def commands(text: str) -> list[str]:
    """Return the `edgead …` commands of a page, from code blocks and from code in sentences."""
    joined = text.replace("\\\n", " ")
    blocks = [line for line in joined.splitlines() if line.startswith("    ")]
    blocks += [line for block in re.findall(r"^```sh\n(.*?)^```", joined, re.M | re.S) for line in block.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", joined)
    found = (re.search(r"(?:^|\s|/|-m )(edgead [a-z][^#]*)", piece) for piece in [*blocks, *spans])
    return [match.group(1) for match in found if match]


def wrong_command(command: str) -> str:
    """Return what a command names and does not exist, or an empty text."""
    verb = command.split()[1]
    if verb not in cli.commands:
        return verb
    parameters = cli.commands[verb].params
    exist = {name for each in parameters for name in (*each.opts, *each.secondary_opts)} | {"--help"}
    used = re.findall(r"(?<!\S)\[?(--[a-z][a-z-]*)", command)
    return ", ".join([*(name for name in used if name not in exist), *wrong_values(command)])


def wrong_values(command: str) -> list[str]:
    """Return the values that their options do not take. In capitals, or with “…”, a value stands for others."""
    verb, words = command.split()[1], command.split()
    kinds = {name: each for each in cli.commands[verb].params for name in each.opts}
    wrong = []
    for name, value in itertools.pairwise(words):
        option = kinds.get(name)
        if not isinstance(option, click.Option) or option.is_flag or re.search(r"^[^a-z0-9]|[A-Z…|$`']", value):
            continue
        try:
            option.type.convert(value.rstrip(",.])"), option, None)
        except click.BadParameter:
            wrong.append(f"{name} {value}")
    return wrong


def options() -> set[str]:
    every = [parameter for command in cli.commands.values() for parameter in command.params]
    names = {name for each in every if isinstance(each, click.Option) for name in (*each.opts, *each.secondary_opts)}
    return {"--help", *names}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_anchors_resolve_and_tables_are_whole(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not broken_links(page, text)
    assert not ragged_rows(text)
    assert "@@" not in text  # a place left for a figure


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_use_verbs_and_options_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not {command: wrong for command in commands(text) if (wrong := wrong_command(command))}
    alone = set(re.findall(r"`(--[a-z][a-z-]*)", text))
    assert alone <= options()


def test_the_checks_notice_what_is_wrong() -> None:
    page = ROOT / "docs" / "page.md"
    text = "# A page\n\n[a](none.md) [b](#none) [c](data.md#none) [d](#a-page) [e](data.md#duplicates)\n"
    assert broken_links(page, text) == ["none.md", "#none", "data.md#none"]
    assert ragged_rows("| a | b |\n|---|---|\n| `x\\|y` | 1 |\n| 1 |\n\n| a |\n") == ["| 1 |"]
    found = commands("Type `edgead train --date D`.\n\n    .venv/bin/edgead expert --out O   # a comment --no\n")
    assert [wrong_command(command) for command in found] == ["expert", "--date"]
    assert wrong_command("edgead run B --batch 0 --health some --engine E") == "--batch 0, --health some"
    assert len(commands((ROOT / "README.md").read_text(encoding="utf-8"))) > 10


def test_every_page_is_reached_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {page.name for page in ROOT.glob("docs/*.md")} <= {
        Path(name).name for name in re.findall(r"\]\((docs/[^)#]+)", text)
    }


def test_messages_refer_to_pages_that_exist() -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "edgead").rglob("*.py"))
    named = {name for text in sources for name in re.findall(r"(?<![`\w/])docs/[\w/-]+\.md\b", text)}
    assert len(named) > 3
    assert all((ROOT / name).exists() for name in named)


@pytest.mark.parametrize(
    ("name", "heading", "mark"),
    [
        ("troubleshooting.md", "", '"'),
        ("anomalib-on-jetson.md", "## Troubleshooting", "`"),
        ("plc.md", "## When it does not work", "`"),
    ],
)
def test_messages_that_tables_quote_exist(name: str, heading: str, mark: str) -> None:
    """The first column of a table of symptoms; capitals and “…” stand for what changes, and so do numbers."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "edgead").rglob("*.py"))
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    text = text[text.index(heading) :]
    cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    quoted = [each for cell in cells for each in re.findall(f"{mark}([^{mark}]+){mark}", cell)]
    assert len(quoted) > 2
    pieces = [piece.strip(" :") for each in quoted for piece in re.split(r"…|\b[A-Z]{2,}\b|\b[N\d]+\b", each)]
    assert not [piece for piece in pieces if piece not in sources and piece not in OF_OTHERS]


OF_OTHERS = {
    "cannot be opened: address already in use",
    "Unknown datatype for field",
}
"""Messages that asyncua and the system write, or end."""

GROUPS = {"edgead.sources", "edgead.sinks", "edgead.engines"}
"""Entry point groups, which look like modules."""


def resolves(name: str) -> bool:
    """Tell whether a dotted name is a module of edgead, or something in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_names_are_defined_in_the_files_that_the_documents_name() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]
    named = [
        pair for page in pages for pair in re.findall(r"`(\w+)`\s(?:of|in)\s`([\w/]+\.py)`", page.read_text("utf-8"))
    ]
    assert len(named) > 3
    assert not [pair for pair in named if not re.search(rf"^{pair[0]}\b", (ROOT / pair[1]).read_text("utf-8"), re.M)]


def test_python_names_in_the_documents_exist() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]
    spans = [span for page in pages for span in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))]
    names = {name for span in spans for name in re.findall(r"(?<![\w/.])edgead(?:\.[A-Za-z]\w*)+", span)} - GROUPS
    files = {name for span in spans for name in re.findall(r"\bedgead/[\w/]+\.py\b", span)}
    assert len(names) > 5
    assert files
    assert not [name for name in names if not resolves(name)]
    assert not [name for name in files if not (ROOT / name).exists()]
    assert not resolves("edgead.images.fit_picture")
