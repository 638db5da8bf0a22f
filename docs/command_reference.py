"""The commands for docs/cli.md, for mkdocs-click: examples are code, and only defaults that are set are shown."""

from __future__ import annotations

import copy
import inspect

import click

from edgead.cli import cli as commands


def _examples_as_code(text: str) -> str:
    """Indent the paragraphs that click prints as they are (marked by ``\\b``), so that Markdown keeps their lines."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(_as_code(each) if each.startswith("\b") else each for each in paragraphs)


def _as_code(paragraph: str) -> str:
    return "\n".join(["```text", *paragraph.splitlines()[1:], "```"])


def _readable(command: click.Command) -> click.Command:
    """Return a copy of a command, with its subcommands, for the page."""
    command = copy.copy(command)
    command.add_help_option = False  # the page says that every command has it
    command.help = _examples_as_code(command.help or "")
    command.params = [copy.copy(each) for each in command.params]
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.default is not None:
            parameter.default = _default(parameter)
    if isinstance(command, click.Group):
        command.commands = {name: _readable(each) for name, each in command.commands.items()}
    return command


def _default(option: click.Option) -> object:
    """Return what the column of defaults shows: nothing where the option has none, or where its help says it."""
    unset = type(option.default).__name__ == "Sentinel"
    return None if unset or option.is_flag or "[default:" in (option.help or "") else option.default


cli = _readable(commands)
