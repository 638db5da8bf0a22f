"""Opens engines by name, and finds those that can run on this machine."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib import metadata

from edgead.bundle import Bundle
from edgead.console import Console
from edgead.errors import ConfigError, DeviceError, EdgeadError, is_installed, unknown
from edgead.runtime.engine_table import ENGINES, PLUGINS
from edgead.runtime.engines import EngineSpec, Opening, first_line
from edgead.runtime.engines.checked import CheckedEngine, check
from edgead.runtime.golden import check_golden, require_agreement
from edgead.settings import parse_settings, split_settings


def find_spec(name: str) -> EngineSpec:
    """Return the description of an engine.

    Raises:
        ConfigError: neither in the table nor a plug-in.
    """
    if name in ENGINES:
        module, _, attribute = ENGINES[name].partition(":")
        spec: EngineSpec = getattr(importlib.import_module(module), attribute)
        return spec
    plugins = {plugin.name: plugin for plugin in metadata.entry_points(group=PLUGINS)}
    if name in plugins:
        brought: EngineSpec = plugins[name].load()
        return brought
    raise ConfigError(unknown("engine", name, [*ENGINES, *plugins]))


def all_specs() -> dict[str, EngineSpec]:
    """Return all engines of the table and of plug-ins."""
    plugins = (plugin.name for plugin in metadata.entry_points(group=PLUGINS))
    return {name: find_spec(name) for name in dict.fromkeys([*ENGINES, *plugins])}


def installed_engines() -> list[str]:
    """Return the exact engines with an installed package."""
    return [
        name
        for name, spec in all_specs().items()
        if spec.exact and not spec.chooses and (not spec.module or is_installed(spec.module))
    ]


def usable_engines() -> list[str]:
    """Return the installed engines that can run bundles on this machine, for instance because it has a GPU."""
    usable = []
    for name in installed_engines():
        try:
            find_spec(name).require_device()
        except EdgeadError:
            continue
        usable.append(name)
    return usable


def runs_on_gpu(name: str) -> bool:
    """Return whether an engine needs an NVIDIA GPU."""
    return find_spec(name).on_gpu


def open_engine(name: str, bundle: Bundle, *, batch: int = 1, console: Console | None = None) -> CheckedEngine:
    """Open a bundle's graph on an engine. `open_validated` also compares it with the reference outputs.

    Args:
        name: of `ENGINES`, with settings after a colon: ``"tensorrt:opt_level=5"``.
        bundle: the bundle.
        batch, console: see `Opening`.

    Raises:
        ConfigError: an unknown engine or setting.
        MissingDependencyError: its package is not installed.
        BundleError: it cannot read the graph.
        DeviceError: this machine cannot run it.
    """
    kind, _, text = str(name).partition(":")
    spec = find_spec(kind)
    usage = f"{kind}:NAME=VALUE,NAME=VALUE"
    given = split_settings((part for part in text.split(",") if part), usage)
    if "" in given.values():
        raise ConfigError(f"Settings are written {usage}, not '{text}'.")
    settings = spec.settings(**parse_settings(spec.settings, given, f"the engine {kind}"))
    try:
        engine = spec.open(bundle, Opening(batch, settings, console or Console()))
    except EdgeadError:
        raise
    except Exception as error:  # bindings may raise anything
        raise DeviceError(f"The engine {kind} cannot be opened here: {first_line(error)}") from error
    return check(engine, bundle)


def open_validated(name: str, bundle: Bundle, *, batch: int = 1, console: Console | None = None) -> CheckedEngine:
    """Open an engine and compare it with the bundle's reference outputs. This also warms it up.

    Args:
        name, bundle, batch, console: see `open_engine`.

    Raises:
        DeviceError: its outputs differ from the reference outputs by more than the tolerance.
        EdgeadError: it cannot be opened or run.
    """
    engine = open_engine(name, bundle, batch=batch, console=console)
    if find_spec(name.partition(":")[0]).chooses:  # it has validated what it chose
        return engine
    try:
        agreement = check_golden(bundle, engine, batch)
        require_agreement(agreement, engine.name)
    except BaseException:
        engine.close()
        raise
    if not engine.exact and console:
        console.say(f"{engine.name} is less precise than the bundle: {agreement.describe()}.")
    return engine


def open_agreeing(
    bundle: Bundle, names: Sequence[str], batch: int = 1, console: Console | None = None
) -> tuple[dict[str, CheckedEngine], dict[str, str]]:
    """Open the engines that agree with a bundle's reference outputs; return the reasons against the others."""
    engines: dict[str, CheckedEngine] = {}
    reasons: dict[str, str] = {}
    for name in names:
        try:
            engines[name] = open_validated(name, bundle, batch=batch, console=console)
        except EdgeadError as error:
            reasons[name] = first_line(error)
    return engines, reasons
