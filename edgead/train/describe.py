"""What `edgead methods` prints: each method with its figures, schedules and settings."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from dataclasses import dataclass

from edgead.schema import stored_as
from edgead.train.configuration import as_setting, configure
from edgead.train.method import Method
from edgead.train.method_config import MethodConfig, Setting, steps_in_epoch
from edgead.train.methods import METHODS, get_method

TOLD = ("weights", "published", "training", "protocol", "localises", "needs", "presets")
EXAMPLE = 200
"""Good images that a schedule is told for."""
WIDTH = 110


@dataclass(frozen=True)
class Schedule:
    """The optimiser steps of a preset for `EXAMPLE` good images, and how they are counted."""

    steps: int = stored_as(f"steps_for_{EXAMPLE}_images")
    text: str = stored_as("text")


@dataclass(frozen=True)
class SettingDescription:
    """A setting: its value in each preset, and what it means."""

    presets: dict[str, Setting]
    meaning: str


@dataclass(frozen=True)
class MethodDescription:
    """A method for a reader; `edgead.schema.write` makes JSON of it. The texts are the card's."""

    name: str
    title: str
    paper: str
    weights: str
    published: str
    protocol: str
    localises: str
    needs: str
    presets: str
    training: str
    schedules: dict[str, Schedule]
    export_settings: tuple[str, ...]
    resume_settings: tuple[str, ...]
    settings: dict[str, SettingDescription]


def describe() -> list[MethodDescription]:
    """Describe each method."""
    return [_describe_one(get_method(name)) for name in METHODS]


def as_text(entry: MethodDescription, settings: bool) -> str:
    """Return a description as lines for a reader, with its settings or without."""
    lines = [f"{entry.name}: {entry.title} ({entry.paper})"]
    lines += [f"  {key:<12} {text}" for key in TOLD if (text := getattr(entry, key))]
    for when, open_ones in (("export", entry.export_settings), ("resume", entry.resume_settings)):
        if open_ones:
            lines.append(f"  {f'at {when}':<12} --set {', '.join(open_ones)}")
    if settings:
        lines += [line for name, setting in entry.settings.items() for line in _setting_lines(name, setting)]
    return "\n".join(lines)


def _describe_one(method: type[Method]) -> MethodDescription:
    card, (height, width) = method.card, method.Config().size
    presets = {preset: dataclasses.asdict(configure(method, preset)) for preset in method.presets}
    meanings = _meanings(method.Config)
    schedules = {preset: _schedule(configure(method, preset)) for preset in method.presets}
    return MethodDescription(
        name=method.name,
        title=card.title,
        paper=card.paper,
        weights=f"{card.parameters:g} M, {card.macs:g} GMAC per {height}×{width} image",
        published=card.published,
        protocol=card.reporting_note,
        localises=card.localises,
        needs=card.needs,
        presets=", ".join(presets),
        training=f"{schedules['paper'].text} (paper, of {EXAMPLE} good images)",
        schedules=schedules,
        export_settings=method.export_settings,
        resume_settings=method.resume_settings,
        settings={
            field.name: SettingDescription(
                {preset: values[field.name] for preset, values in presets.items()}, meanings[field.name]
            )
            for field in dataclasses.fields(method.Config)
        },
    )


def _schedule(config: MethodConfig) -> Schedule:
    epoch = steps_in_epoch(EXAMPLE, config.batch_size)
    return Schedule(config.total_steps(epoch), config.schedule(epoch))


def _meanings(config: type[MethodConfig]) -> dict[str, str]:
    """Return the texts that stand below the fields in the source: Python keeps them nowhere else."""
    meanings = {}
    for part in reversed(config.__mro__[:-1]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in zip(definition.body, definition.body[1:]):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    meanings[name] = inspect.cleandoc(words).replace("\n", " ")
    return meanings


def _setting_lines(name: str, setting: SettingDescription) -> list[str]:
    values = {preset: as_setting(name, value) for preset, value in setting.presets.items()}
    if len(set(values.values())) == 1:
        shown = values.popitem()[1]
    else:
        shown = ", ".join(f"{value} ({preset})" for preset, value in values.items())
    meaning = textwrap.wrap(setting.meaning, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return [f"  {name} = {shown}", *meaning]
