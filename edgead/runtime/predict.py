"""`edgead predict`: results and overlays for image files."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.errors import ConfigError, SinkError, SourceError
from edgead.files import atomic_file, cut_name, refuse_unwritable
from edgead.folders import OVERLAY, RECONSTRUCTION, describe_left_out, list_folder
from edgead.geometry.tiling import Tiling
from edgead.images import Frame, encode_png, fit_frame, read_frame, to_frame
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.handover import trained_limits
from edgead.runtime.reconstruction import open_reconstructor
from edgead.runtime.result import Result
from edgead.runtime.sink_worker import SinkWorker, open_workers
from edgead.runtime.sinks import Sink
from edgead.runtime.sources import ImageSource
from edgead.runtime.sources.overlap import refuse_own_pictures

REPEATED = "image that was named before"


@dataclass(frozen=True)
class Collected:
    """The images for `predict`.

    Attributes:
        images: every image and every unreadable file or folder, each with a unique name for its overlay.
        unreadable: those that are not opened, with the reason.
        left_out: one line about the files that are not images or are named twice; empty if there are none.
        folders: those that were searched.
    """

    images: Sequence[tuple[Path, Path]]
    unreadable: Mapping[Path, str]
    left_out: str
    folders: Sequence[Path] = ()

    def __len__(self) -> int:
        return len(self.images)


def collect_images(paths: Sequence[Path]) -> Collected:
    """Find every image among files and folders (with subfolders), each once.

    Raises:
        SourceError: a path does not exist, or there is no image.
    """
    found: list[tuple[Path, Path]] = []
    unreadable: dict[Path, str] = {}
    left_out, known = Counter[str](), set[str]()
    for root in paths:
        before = len(found)
        if root.is_dir():
            prefix = Path(root.resolve().name) if len(paths) > 1 else Path()
            listing = list_folder(root, recursive=True)
            found += [(path, prefix / path.relative_to(root)) for path in listing.entries()]
            unreadable |= listing.unreadable
            left_out += listing.left_out
        elif root.is_file():
            found.append((root, Path(root.name)))
        else:
            raise SourceError(f"{root} does not exist.")
        if len(paths) > 1:
            own = [(os.path.realpath(path), (path, name)) for path, name in found[before:]]
            found[before:] = [each for real, each in own if real not in known]
            left_out[REPEATED] += sum(real in known for real, _ in own)
            known.update(real for real, _ in own)
    described = describe_left_out(+left_out)
    if not found:
        raise SourceError(f"No images in {', '.join(map(str, paths))}." + (f" ({described})" if described else ""))
    return Collected(_name_overlays(found), unreadable, described, [root for root in paths if root.is_dir()])


def _name_overlays(found: Sequence[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    taken: set[str] = set()
    named = []
    for path, name in found:
        tries = (name.with_name(f"{stem}{OVERLAY}") for stem in _stems(name))
        overlay = next(each for each in tries if str(each).casefold() not in taken)
        taken.add(str(overlay).casefold())  # USB sticks and shares may not tell A.png from a.png
        named.append((path, overlay))
    return named


def _stems(name: Path) -> Iterator[str]:
    longest = len(RECONSTRUCTION)
    yield cut_name(name.stem, longest)
    yield cut_name(name.name, longest)
    yield from (f"{cut_name(name.name, longest + 1 + len(str(number)))}-{number}" for number in itertools.count(2))


def predict(
    inspector: FrameInspector,
    collected: Collected,
    save: Path | None = None,
    *,
    batch: int = 1,
    sinks: Sequence[str | Sink | SinkWorker] = (),
    notice: Callable[[str, str], None] | None = None,
) -> Iterator[Result]:
    """Decide on image files, in order.

    Regions, minimum area, shapes and threshold are those of the inspector: `edgead.runtime.inspector.load` takes them
    under the names that `edgead.runtime.run.run` has (`roi`, `ignore`, `min_area`, `shapes`, `threshold`).

    Args:
        inspector: the inspector. It is not closed. An engine on a GPU must have been opened for `batch`.
        collected: from `collect_images`.
        save: folder for overlays (``NAME.overlay.png``): the map as heat, the mask outlined. If the bundle has a
            reconstruction, also for ``NAME.reconstruction.png`` at the canvas's size: the network's estimate of the
            defect-free image. Unreadable images have neither.
        batch: maximum images per inference, at least 1. The latencies of a result are those of its batch.
        sinks: URIs, sinks or their workers. Each gets every result and is closed at the end; a slow sink makes
            `predict` wait.
        notice: called with a headline and a line for each image of another shape than the training images, or of too
            few pixels. It is decided all the same.

    Yields:
        One result per file, with its `path`; UNKNOWN with the reason for an unreadable file or folder.

    Raises:
        ConfigError: a batch below 1, or a sink that cannot be opened.
        OSError: nothing can be written to `save`.
        SinkError: at the end, if a sink did not take every result, or an overlay could not be written.
    """
    if batch < 1:
        raise ConfigError(f"batch must be at least 1, not {batch}.")
    if save:
        refuse_unwritable(save)
    unsaved: dict[Path, OSError] = {}
    with _reporting(unsaved), open_workers(sinks) as workers:
        keep = any(worker.wants_frames for worker in workers)
        reconstruct = open_reconstructor(inspector.bundle) if save else None
        paths = [path for path, _ in collected.images]
        names = (name for _, name in collected.images)
        limits = trained_limits(inspector.bundle.manifest)
        opened = ImageSource("files", paths, inspector.pixels, collected.unreadable, searched=collected.folders)
        refuse_own_pictures([opened], [worker.sink for worker in workers])
        with opened as frames:
            while prepared := [inspector.try_to_prepare(captured) for captured in itertools.islice(frames, batch)]:
                for one, result, name in zip(prepared, inspector.try_to_infer(prepared), names):
                    image = one.captured.image
                    if image is not None and result.anomaly_map is not None:
                        headline, why = limits.why_untrained(image.shape[:2])
                        if headline and notice:
                            notice(headline, f"{result.path}: {why}")
                        if keep:
                            result.frame = to_frame(image, inspector.pixels)
                        if save:
                            try:
                                _save(inspector, image, result, save / name, reconstruct)
                            except OSError as error:  # a full disk must not cost results
                                unsaved[save / name] = error
                    for worker in workers:
                        worker.offer(result, wait=True)
                    yield result


@contextmanager
def _reporting(unsaved: Mapping[Path, OSError]) -> Iterator[None]:
    """Raise a SinkError at the end for what sinks have lost, and for overlays that could not be written."""
    lines = []
    try:
        yield
    except SinkError as error:
        lines.append(str(error))
    if unsaved:
        path, why = next(iter(unsaved.items()))
        lines.append(f"{len(unsaved)} overlays could not be written, first {path}: {why.strerror or why}.")
    if lines:
        raise SinkError("\n".join(lines))


def _save(
    inspector: FrameInspector,
    image: NDArray[Any],
    result: Result,
    overlay: Path,
    reconstruct: Callable[[Frame], Frame] | None,
) -> None:
    result.save(overlay, to_frame(image, inspector.pixels))
    if reconstruct:
        fitted = fit_frame(to_frame(image, inspector.pixels), inspector.size, geometry=result.geometry)
        tiling = Tiling(inspector.geometry, inspector.bundle.manifest.size)
        tiles = np.stack([reconstruct(tile) for tile in tiling.cut(fitted[None])])
        [stitched] = tiling.stitch(tiles.astype(np.float32))
        with atomic_file(overlay.with_name(overlay.name.removesuffix(OVERLAY) + RECONSTRUCTION)) as stream:
            stream.write(encode_png(np.rint(stitched).astype(np.uint8)))


def save_contact_sheet(inspector: FrameInspector, paths: Sequence[Path], path: Path) -> None:
    """Write a picture with the images in the first row and their overlays below. All must have the same size."""
    frames = [read_frame(name) for name in paths]
    overlays = [inspector.inspect(frame).overlay() for frame in frames]
    with atomic_file(path) as stream:
        stream.write(encode_png(np.concatenate([np.concatenate(frames, 1), np.concatenate(overlays, 1)])))
