"""The inspector: what `edgead.load` returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgead.bundle import read_bundle
from edgead.console import Console
from edgead.errors import ConfigError
from edgead.images import Mask
from edgead.runtime.engines.opening import open_validated
from edgead.runtime.engines.tiled import batch_for
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.result import Result
from edgead.runtime.rules import describe_threshold, read_region
from edgead.runtime.sources.source import Source
from edgead.runtime.stream import Stream
from edgead.settings import check_batch, refuse_text


def load(
    bundle: str | Path,
    *,
    engine: str = "auto",
    batch: int = 1,
    threshold: float | str | None = None,
    region: Mask | None = None,
    roi: Sequence[str | Path] = (),
    ignore: Sequence[str | Path] = (),
    min_area: int = 0,
    shapes: Sequence[str] = (),
    trust: Sequence[str | Path] | None = None,
    console: Console | None = None,
) -> Inspector:
    """Read a bundle, check its hashes, open it on an engine and compare it with the reference outputs.

    Args:
        bundle: the folder ``NAME.edgead``.
        engine: ``"auto"`` for the fastest installed engine, or a name of `edgead.runtime.engine_table.ENGINES`, with
            settings after a colon: ``"tensorrt:opt_level=5"``.
        batch: maximum frames per inference; engines on a GPU are built for it.
        threshold: scores above it fail; ``"fpr:0.001"`` for the share of good parts that may fail; None for the
            bundle's own.
        region, min_area, shapes: see `FrameInspector`.
        roi, ignore: mask images, or ``x,y,width,height`` as shares of the frame, in place of `region`; see
            `edgead.runtime.rules.read_region`.
        trust: public keys, and folders of them: a bundle that none of them has signed is refused. None for those of
            the environment variable ``EDGEAD_TRUST``, an empty sequence for any bundle.
        console: shows long steps (TensorRT builds its engine at the first start on a device), and what a threshold
            in place of the bundle's own means for good parts.

    Raises:
        BundleError: missing, damaged, of a newer format, or not signed by a trusted key.
        ConfigError: an invalid threshold, region, engine, batch or key.
        MissingDependencyError: the engine's package is not installed.
        DeviceError: this machine cannot run the engine, or its output differs from the reference outputs.
    """
    check_batch(batch)
    refuse_text("roi", roi)
    refuse_text("ignore", ignore)
    opened = read_bundle(bundle, trust)
    if roi or ignore:
        if region is not None:
            raise ConfigError("Pass either region, or roi and ignore, but not both.")
        region = read_region(roi, ignore, opened.manifest.region_size, opened.manifest.aspects)
    runner = open_validated(engine, opened, batch=batch_for(opened.manifest, batch), console=console)
    try:
        inspector = Inspector(opened, runner, threshold=threshold, region=region, min_area=min_area, shapes=shapes)
    except BaseException:
        runner.close()
        raise
    if console and (meaning := describe_threshold(opened.manifest, threshold)):
        console.say(f"{opened.manifest.name}: {meaning}")
    return inspector


class Inspector(FrameInspector):
    """Decides on frames and on whole sources. Arguments and attributes: see `FrameInspector`."""

    def stream(
        self,
        source: str | Path | Source | Iterable[NDArray[Any]] | Callable[[], NDArray[Any] | None],
        *,
        keep_frames: bool = False,
    ) -> Iterator[Result]:
        """Decide on every frame of a source, in order, until it ends.

        A file's frames wait for the receiver. Of a camera the newest frame is taken; older ones are dropped while the
        receiver is busy. See `edgead.runtime.stream.Stream` for details and for several sources.

        Args:
            source: what `edgead.runtime.sources.open_source` takes, an open source, an iterable of frames, or a
                function that returns the next frame, and None at the end.
            keep_frames: each result has its frame, to draw on: `Result.overlay`, `Result.save`.

        Raises:
            SourceError: the source cannot be opened.
        """
        with Stream(self, [source], keep_frames=keep_frames) as stream:
            yield from stream
