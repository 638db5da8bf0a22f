"""Products of a line: each a bundle with its rules, loaded and warm; one of them decides."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from edgead import schema
from edgead.console import Console
from edgead.errors import ConfigError, EdgeadError, unknown
from edgead.line.triggers.trigger import Trigger
from edgead.machine import resident_mib
from edgead.runtime.frame_inspector import FrameInspector, refuse_other_depth
from edgead.runtime.inspector import load
from edgead.runtime.result import Result
from edgead.runtime.sources.source import Captured
from edgead.runtime.stream import Stream
from edgead.schema import FilePath, Within

REMEMBERED = 1000
"""Changeovers that are remembered, for frames that waited meanwhile."""


@dataclass(frozen=True)
class Product:
    """A product as a line's file describes it.

    Attributes:
        bundle: folder of the bundle.
        version: of this recipe, without spaces: one stands between name and version. Empty for the first 8 digits of a
            hash of all that decides.
        threshold, roi, ignore, min_area: see `edgead.load`.
    """

    bundle: FilePath
    version: str = ""
    threshold: Any = None
    roi: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    min_area: Annotated[int, Within(0)] = 0


class Products:
    """The open inspectors of all products. Close it (or use ``with``) to release them.

    Args:
        products: by name.
        first: name of the one that decides first; empty for the first one.
        engine, batch, shapes: see `edgead.load`.
        channels: change over, see `edgead.line.channels.open_channels`; closed at the end.
        console: shows long steps, and what each product is and needs.

    Attributes:
        recipes: the resolved settings of each product, by its ``name version``, as JSON values.

    Raises:
        EdgeadError: there is no product of that name, a version has spaces, a bundle cannot be loaded, or two cannot
            share frames.
    """

    def __init__(
        self,
        products: Mapping[str, Product],
        first: str = "",
        *,
        engine: str = "auto",
        batch: int = 1,
        shapes: tuple[str, ...] = (),
        channels: Sequence[Trigger] = (),
        console: Console | None = None,
    ) -> None:
        console = console or Console()
        self._channels, self._say = channels, console.say
        self._inspectors: dict[str, FrameInspector] = {}
        self.recipes: dict[str, dict[str, Any]] = {}
        self._stream: Stream | None = None
        self._choosing = threading.Lock()
        with ExitStack() as stack:
            for name, product in products.items():
                before = resident_mib()
                if why := why_no_version(product.version):
                    raise ConfigError(f"Product {name}: {why}")
                try:
                    opened = stack.enter_context(load_product(product, engine, batch, shapes, console))
                except EdgeadError as error:
                    error.args = (f"Product {name}: {error}",)
                    raise
                for one in self._inspectors.values():
                    refuse_other_depth(opened, one)
                settings = _resolve(name, product, opened)
                opened.recipe = f"{name} {settings['version']}"
                self._inspectors[name], self.recipes[opened.recipe] = opened, settings
                manifest, grown = opened.bundle.manifest, max(resident_mib() - before, 0.0)
                console.say(
                    f"Product {opened.recipe}: {manifest.name} on {opened.engine.name}, threshold "
                    f"{opened.threshold:.6g}, {grown:.0f} MiB"
                )
            decides = self._find(first or next(iter(self._inspectors), ""))
            self._changeovers: tuple[tuple[float, FrameInspector], ...] = ((-math.inf, decides),)
            self._open = stack.pop_all()

    @property
    def versions(self) -> dict[str, str]:
        """Version of each product's recipe, by the product's name."""
        return {name: inspector.recipe.removeprefix(f"{name} ") for name, inspector in self._inspectors.items()}

    @property
    def current(self) -> FrameInspector:
        """The inspector of the product that decides on the parts that come now."""
        return self._changeovers[-1][1]

    def at(self, moment: float) -> FrameInspector:
        """Return what decided at a moment, `time.monotonic` seconds, as far back as changeovers are remembered."""
        changeovers = self._changeovers
        found = (decides for since, decides in reversed(changeovers) if moment >= since)
        return next(found, changeovers[0][1])

    def choose(self, name: str) -> str:
        """Change over: parts that are triggered from now on are of this product. Thread-safe, and returns at once.

        A threshold that was set on it during the run, before another product decided, is over.

        Args:
            name: of the product.

        Returns:
            Its recipe, ``name version``.

        Raises:
            ConfigError: there is no such product; the old one still decides.
        """
        inspector = self._find(name)
        over = ""
        with self._choosing:  # of several at once, the last one that parts follow is the last one that pages show
            if inspector is not self.current:
                over = inspector.restore_threshold()
                # Replaced as a whole: threads of sources read it.
                self._changeovers = (*self._changeovers[1 - REMEMBERED :], (time.monotonic(), inspector))
            stream = self._stream
            if stream is not None:  # so that pages and reports about cameras name it too
                stream.call_soon(lambda: stream.take_over(inspector))
        if over:
            self._say(f"{inspector.recipe}: {over}")
        return inspector.recipe

    def meet(self, sinks: Sequence[object]) -> None:
        """Let sinks change over that take orders from a PLC: those with a method ``take_recipes(versions, choose)``."""
        for sink in sinks:
            if hasattr(sink, "take_recipes"):
                sink.take_recipes(self.versions, self.choose)

    def begin(self, stream: Stream) -> None:
        """Prepare a stream for all products.

        Raises:
            ConfigError: the products cannot share its frames.
        """
        for inspector in self._inspectors.values():
            stream.warm(inspector)
        self._stream = stream
        for channel in self._channels:
            channel.begin(self._hear)

    def close(self) -> None:
        """Close the channels and release all engines."""
        for channel in self._channels:
            channel.close()
        self._open.close()

    def _hear(self, part_id: str = "", at: float | None = None, doubt: str = "") -> str:
        """Change over. A channel is a trigger whose id is the name of a product."""
        try:
            recipe = self.choose(part_id)
        except ConfigError as error:
            self._say(f"Warning: no changeover: {error}")
            raise
        self._say(f"Changeover: {recipe} decides from the next part on.")
        return recipe

    def __enter__(self) -> Products:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _find(self, name: str) -> FrameInspector:
        if name not in self._inspectors:
            raise ConfigError(unknown("product", name, self._inspectors))
        return self._inspectors[name]


class FreeRun:
    """A gate (`edgead.runtime.gate.Gate`) without parts: the product that is chosen when a frame is made decides on it.

    Args:
        products: to choose from.
    """

    def __init__(self, products: Products) -> None:
        self._products = products
        self._send: Callable[[Result], None] = lambda result: None

    def meet(self, sinks: Sequence[object]) -> None:
        self._products.meet(sinks)

    def begin(self, stream: Stream, send: Callable[[Result], None]) -> None:
        self._products.begin(stream)
        self._send = send

    def admit(self, source: str, captured: Captured) -> str:
        return ""

    def inspector(self, captured: Captured) -> FrameInspector:
        return self._products.at(captured.made)

    def drop(self, captured: Captured, cause: str) -> None:
        """Nothing waits for it."""

    def take(self, result: Result) -> None:
        self._send(result)

    def close(self) -> None:
        """Nothing is left."""

    def summary(self) -> dict[str, Any]:
        return {}

    def to_prometheus(self) -> str:
        return ""


def why_no_version(version: str) -> str:
    """Return why a text cannot be a version, as its results would seem to be of another product; or nothing."""
    return f"the version {version!a} may hold no spaces." if any(map(str.isspace, version)) else ""


def load_product(
    product: Product, engine: str, batch: int, shapes: tuple[str, ...], console: Console
) -> FrameInspector:
    """Open a product's bundle with its rules. See `edgead.load`."""
    return load(
        Path(product.bundle),
        engine=engine,
        batch=batch,
        threshold=product.threshold,
        roi=product.roi,
        ignore=product.ignore,
        min_area=product.min_area,
        shapes=shapes,
        console=console,
    )


def _resolve(name: str, product: Product, inspector: FrameInspector) -> dict[str, Any]:
    """Return everything that decides on a product's frames. The version is its hash where it has no other."""
    region = inspector.region
    decides = {
        **schema.write(product),
        "name": name,
        "bundle": str(Path(product.bundle).resolve()),
        "bundle_digest": inspector.bundle.manifest.digest,
        "threshold_value": inspector.threshold,
        "region_sha256": hashlib.sha256(region.tobytes()).hexdigest() if region is not None else None,
    }
    content = {key: value for key, value in decides.items() if key not in ("bundle", "version", "roi", "ignore")}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    return {**decides, "version": product.version or digest}
