"""Good parts that people have marked as false rejects, as further images to train on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgead.console import Console
from edgead.datasets import Category
from edgead.datasets.copies import look_at
from edgead.errors import ConfigError
from edgead.images import PixelFormat
from edgead.marks import FILE, Mark, Marks, marks_folder, of_one_product
from edgead.train.run_config import MarkedConfig
from edgead.train.split import Split


def find_marked(folder: Path, category: Category, parted: Split, pixels: PixelFormat, console: Console) -> MarkedConfig:
    """Return the marked good parts that a run trains on.

    They are never held out: somebody chose them, so that the threshold's promise would not hold. Those that show what a
    held-out or a labelled image shows are left out.

    Args:
        folder: of a ``rejects:`` sink, or of its marks.
        category: of the run.
        parted: its good images.
        pixels: how images become frames.
        console: shows the progress.

    Raises:
        ConfigError: there is no such folder, no good part is marked, or parts of several products are.
    """
    root = marks_folder(folder).resolve()
    known = Marks(root)
    marks = [one for one in known.all().values() if one.mark == "false reject"]
    if known.damaged:
        console.say(f"Warning: {known.damaged} damaged lines of {root / FILE} are left out")
    marks = sorted((one for one in marks if (root / one.picture).is_file()), key=lambda one: one.picture)
    if not marks:
        raise ConfigError(
            f"No picture in {root} is marked as false reject.\n"
            "Mark some:  edgead review REJECT.png --as false-reject, or leave out --marked."
        )
    of_one_product(marks, root)
    unseen = [*parted.held_out, *(sample.path for sample in category.test)]
    seen = _files_of(unseen)
    kept = [one for one in marks if not _came_from(one, seen)]
    paths = [*unseen, *(root / one.picture for one in kept)]
    pictures = look_at(paths, pixels, console.track("comparing marked pictures"))
    first, held_out = len(unseen), range(len(parted.held_out))
    groups, numbers = pictures.groups(), range(first, len(paths))
    alike = {one for one, _ in pictures.near(numbers, held_out)} | {one for one in numbers if groups[one] < first}
    names = tuple(one.picture for number, one in zip(numbers, kept) if number not in alike)
    left_out = len(marks) - len(names)
    if not names:
        raise ConfigError(f"All {left_out} pictures marked as false reject in {root} show held-out or labelled images.")
    rest = f"; {left_out} are left out, because they show held-out or labelled images" if left_out else ""
    console.say(f"{len(names)} marked good parts of {root} are trained on and never held out{rest}")
    return MarkedConfig(str(root), names, left_out)


def _files_of(paths: Iterable[Path]) -> set[Path]:
    return {path.resolve() for path in paths}


def _came_from(mark: Mark, files: set[Path]) -> bool:
    """Tell whether a marked frame is one of some image files, inspected."""
    path = mark.result.get("path")
    return isinstance(path, str) and Path(path).resolve() in files
