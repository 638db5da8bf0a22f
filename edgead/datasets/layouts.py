"""Recognise the layout of a folder and open it; docs/data.md shows each layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgead.datasets.by_folder import open_good_and_bad, open_mvtec, open_plain
from edgead.datasets.category import Category, name_of, some
from edgead.datasets.lookout import SUFFIX, find_manifests, open_lookout
from edgead.datasets.tables import open_meta, open_visa, read_meta
from edgead.errors import DataError, unknown
from edgead.folders import list_folder, list_subfolders, refuse_unreadable

EXPECTED = (
    "Expected a folder of good images, or train/good (and test/KIND, ground_truth/KIND) as in MVTec AD, "
    "or another layout of docs/data.md."
)


def open_category(root: str | Path, name: str | None = None) -> Category:
    """Open the one category in `root`, or the category `name` of several.

    Raises:
        DataError: no known layout, several categories without a name, or an unknown name.
    """
    if name is not None and (found := _open_named(Path(root), name)):
        return found
    categories = open_categories(root)
    known = ", ".join(category.name for category in categories)
    if name is not None:
        for category in categories:
            if category.name == name:
                return category
        raise DataError(unknown("category", name, [category.name for category in categories]))
    if len(categories) > 1:
        raise DataError(f"{root} holds several categories: {known}.\nChoose with --category NAME (or --category all).")
    return categories[0]


def open_again(root: str | Path, name: str) -> Category:
    """Open the category `name` of a run's data, or the only one, whose folder may have another name by now.

    Raises:
        DataError: see `open_category`.
    """
    return open_category(root, name if name in (each.name for each in open_categories(root)) else None)


def open_categories(root: str | Path) -> list[Category]:
    """Open every category in `root`, sorted by name. A folder of one category gives a list of one.

    Raises:
        DataError: the folder does not exist, cannot be read, has no known layout, or is ambiguous.
    """
    root = Path(root)
    if not root.is_dir():
        if root.suffix == SUFFIX and root.is_file():
            raise DataError(f"{root} is a file.\nPass the folder that holds it and the images: --data {root.parent}")
        raise DataError(f"{root} is not a folder." if root.exists() else f"The folder {root} does not exist.")
    if opener := _opener(root):
        return [opener()]
    if tables := read_meta(root):
        return [open_meta(root, name, rows) for name, rows in sorted(tables.items())]
    inside = {folder: opener for folder in list_subfolders(root) if (opener := _opener(folder))}
    if inside:
        _refuse_images_beside(root, list(inside))
        return [opener() for opener in inside.values()]
    return [_open_unsorted(root)]


def _open_named(root: Path, name: str) -> Category | None:
    """Open the folder of that name alone: what is wrong with its neighbours does not matter."""
    folder = root / name
    opener = _opener(folder) if Path(name).name == name and folder.is_dir() else None
    return opener() if opener else None


def _opener(folder: Path) -> Callable[[], Category] | None:
    """Return what opens a folder that is one category by its form; None where it is not."""
    if read_meta(folder):
        return None
    if rows := read_meta(folder.resolve().parent).get(name_of(folder)):
        return lambda: open_meta(folder.resolve().parent, name_of(folder), rows)
    if manifests := find_manifests(folder):
        return lambda: open_lookout(folder, manifests)
    if {path.name.lower() for path in list_subfolders(folder)} & {"train", "test"}:
        return lambda: open_mvtec(folder)
    if (folder / "image_anno.csv").is_file():
        return lambda: open_visa(folder)
    return None


def _refuse_images_beside(root: Path, categories: list[Path]) -> None:
    if images := list_folder(root).demand():
        raise DataError(
            f"{root} holds {len(images)} images itself and the data sets {some([path.name for path in categories])}.\n"
            f"Choose one (--data {categories[0]}), or move the images elsewhere."
        )


def _open_unsorted(root: Path) -> Category:
    """Open a folder of images that has no form of its own, or refuse it."""
    listing = list_folder(root, recursive=True)
    refuse_unreadable(listing.unreadable)
    if not listing.images:
        left_out = f" ({listing.describe()})" if listing.left_out else ""
        raise DataError(f"No images of good parts found in {root}{left_out}.\n{EXPECTED}")
    return open_good_and_bad(root, listing) or open_plain(root, listing)
