"""`edgead run --check`: opens everything that a line needs, says what it found, and closes it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgead.console import Console
from edgead.errors import ConfigError, EdgeadError, describe
from edgead.images import COLOUR, PixelFormat
from edgead.line.channels import open_channels
from edgead.line.products import Product, load_product
from edgead.line.triggers import (
    BaseTrigger,
    CameraTrigger,
    Trigger,
    open_trigger,
    refuse_beside_camera,
    refuse_same_signal,
    refuse_untimed,
)
from edgead.redaction import printable, redact, shown
from edgead.runtime.sinks import open_sink, refuse_twice
from edgead.runtime.sources.opening import as_source, is_unnamed, refuse_alike
from edgead.runtime.sources.overlap import refuse_own_pictures
from edgead.runtime.sources.source import Captured, Source

WITHIN = 5.0
"""Seconds for the first frame of a source, and for a broker or a PLC to answer."""


@dataclass(frozen=True)
class Finding:
    """One thing that a line needs.

    Attributes:
        kind: ``product``, ``source``, ``trigger``, ``control`` or ``sink``; ``line`` where they do not fit together.
        name: without credentials.
        ok: it can be used.
        text: what was found, or why it cannot be used.
    """

    kind: str
    name: str
    ok: bool
    text: str


def check_line(
    products: Mapping[str, Product],
    *,
    sources: Sequence[str],
    sinks: Sequence[str],
    triggers: Sequence[str],
    control: Sequence[str],
    engine: str,
    batch: int,
    console: Console,
) -> list[Finding]:
    """Open everything, one after the other; what cannot be opened does not stop the others. See `edgead.runtime.run`.

    Args:
        products: by name.
        sources, sinks, triggers, control: URIs.
        engine, batch: see `edgead.load`.
        console: shows long steps.
    """
    findings: list[Finding] = []
    formats: list[PixelFormat] = []
    opened_sources: list[tuple[bool, Source]] = []
    opened_triggers: list[Trigger] = []
    opened_sinks: list[object] = []

    def note(kind: str, name: str, look: Callable[[], str]) -> None:
        try:
            found = Finding(kind, printable(redact(name)), True, printable(look()))
        except (EdgeadError, OSError) as error:
            found = Finding(kind, printable(redact(name)), False, shown(describe(error)))
        findings.append(found)

    def look_at_product(product: Product) -> str:
        with load_product(product, engine, batch, (), console) as opened:
            formats.append(opened.pixels)
            manifest = opened.bundle.manifest
            return f"{manifest.method} {manifest.precision} on {opened.engine.name}, threshold {opened.threshold:.6g}"

    for name, product in products.items():
        note("product", name, lambda product=product: look_at_product(product))  # type: ignore[misc]
    fired = any(uri.startswith("camera:") for uri in triggers)
    pixels = formats[0] if formats else COLOUR

    def look_at_source(uri: str) -> str:
        opened_sources.append((is_unnamed(uri), as_source(uri, pixels)))
        return _look_at_source(opened_sources[-1][1], fired)

    def look_at_trigger(uri: str) -> str:
        opened_triggers.append(open_trigger(uri))
        return _look_at_triggers(opened_triggers[-1:])

    def look_at_sink(uri: str) -> str:
        opened_sinks.append(open_sink(uri))
        return _look_at_sink(opened_sinks[-1])

    for uri in sources:
        note("source", uri, lambda uri=uri: look_at_source(uri))  # type: ignore[misc]
    for uri in triggers:
        note("trigger", uri, lambda uri=uri: look_at_trigger(uri))  # type: ignore[misc]
    for uri in control:
        note("control", uri, lambda uri=uri: _look_at_triggers(open_channels([uri], print)))  # type: ignore[misc]
    for uri in sinks:
        note("sink", uri, lambda uri=uri: look_at_sink(uri))  # type: ignore[misc]
    try:
        if len(set(formats)) > 1:
            raise ConfigError("The products read depth or 16-bit images differently: they cannot share frames.")
        refuse_alike(opened_sources)
        refuse_beside_camera(opened_triggers)
        refuse_same_signal(opened_triggers)
        refuse_untimed(opened_triggers, [source for _, source in opened_sources])
        refuse_twice(sinks)
        refuse_own_pictures([source for _, source in opened_sources], opened_sinks)
    except ConfigError as error:
        findings.append(Finding("line", "all of them", False, shown(describe(error))))
    return findings


def _look_at_source(source: Source, fired: bool) -> str:
    first: queue.SimpleQueue[Captured | None] = queue.SimpleQueue()
    threading.Thread(target=_read_first, args=(source, first), daemon=True).start()
    try:
        captured = first.get(timeout=WITHIN)
    except queue.Empty:
        source.stop()
        if fired:
            return f"opened; no frame within {WITHIN:g} s, its trigger did not fire"
        raise EdgeadError(f"it opens, but no frame comes within {WITHIN:g} s") from None
    if captured is None:
        raise EdgeadError("it opens, but ends without a frame")
    if captured.image is None:
        raise EdgeadError(captured.error or "its first frame is not an image")
    height, width = captured.image.shape[:2]
    return f"{width}×{height} pixels"


def _read_first(source: Source, first: queue.SimpleQueue[Captured | None]) -> None:
    try:
        with source as frames:
            first.put(next(iter(frames), None))
    except Exception as error:  # a plug-in may raise anything
        first.put(Captured(None, describe(error), source.name, None, time.monotonic()))


def _look_at_triggers(opened: Iterable[Trigger]) -> str:
    """Begin triggers that open nothing, and wait until each is ready."""
    for trigger in opened:
        said: list[str] = []
        if isinstance(trigger, BaseTrigger):
            trigger.say = said.append
        try:
            trigger.begin(lambda part_id="", at=None, doubt="": part_id)
            until = time.monotonic() + WITHIN
            while not getattr(trigger, "ready", True):
                if said or time.monotonic() > until:
                    raise EdgeadError(said[0] if said else f"no answer within {WITHIN:g} s")
                time.sleep(0.02)
        finally:
            trigger.close()
        if isinstance(trigger, CameraTrigger):
            return "every picture is a part"
    return "ready"


def _look_at_sink(sink: Any) -> str:
    try:
        return str(sink.look()) if hasattr(sink, "look") else "can be opened"
    finally:
        sink.close()
