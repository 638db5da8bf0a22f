"""Layouts in which folder names say which images are good: MVTec AD and its kin, good and bad, a plain folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from edgead.datasets.category import GOOD, Category, Sample, is_bad, is_date, is_good, is_time, name_of, some
from edgead.datasets.labels import describe_masks_among, match_masks
from edgead.errors import DataError
from edgead.folders import Listing, list_folder, list_images, list_subfolders

LOCO = frozenset({"logical_anomalies", "structural_anomalies"})
MASKS = "ground_truth"
GOOD_FOLDER = "called good, ok, normal or pass"


def open_mvtec(root: Path) -> Category:
    """Open ``train/good``, ``validation/good``, ``test/KIND``, ``ground_truth/KIND``; or 3D-AD's ``KIND/rgb``."""
    train, validation, test = _part(root, "train"), _part(root, "validation"), _part(root, "test")
    kinds = list_subfolders(test) if test else []
    three_d = any((kind / "rgb").is_dir() for part in (train, test) if part for kind in list_subfolders(part))
    notes: list[str] = []
    problems: list[str] = []
    normals = _good_images(train, three_d, notes) if train else ()
    kept_apart = _good_images(validation, three_d, notes) if validation else ()
    samples: list[Sample] = []
    if test and (loose := list_folder(test).demand()):
        problems.append(f"{test} holds {len(loose)} images outside its folders KIND, for instance {loose[0].name}.")
    masks = _part(root, MASKS)
    for folder in kinds:
        inside = folder / "rgb" if three_d else folder
        images = list_images(inside, recursive=True) if inside.is_dir() else []
        if three_d and not images:
            problems.append(f"{folder} has no images in rgb/, which the other kinds have.")
        found, wrong = _label(images, inside, folder.name, folder / "gt" if three_d else (masks or root) / folder.name)
        samples += found
        problems += wrong
    if masks:
        known = {folder.name for folder in kinds}
        absent = [path.name for path in list_subfolders(masks) if path.name not in known and not is_good(path.name)]
        if absent:
            problems.append(f"{masks} has masks for {some(absent)}, but test/ has no images of them.")
    left_out = _describe_rest(root, {train, validation, test, masks})
    layout = "mvtec3d" if three_d else "loco" if LOCO & {folder.name for folder in kinds} else "mvtec"
    notes += [left_out] if left_out else []
    return Category(name_of(root), root, layout, normals, kept_apart, tuple(samples), tuple(problems), tuple(notes))


def open_good_and_bad(root: Path, listing: Listing) -> Category | None:
    """Open ``good`` with folders of defects beside it; None if no folder is called so."""
    found = _by_subfolder(root, listing)
    good = [name for name in found if is_good(name)]
    bad = [name for name in found if is_bad(name)]
    if not good and not bad:
        return None
    if found[""] or len(good) != 1:
        what = [*(["images beside them"] if found[""] else []), *good]
        raise DataError(
            f"Cannot tell which images in {root} are good: it has the folders {some(sorted(filter(None, found)))}"
            f"{f' ({some(what)})' if what else ''}.\nPut good images into one folder {GOOD_FOLDER}, or into train/good."
        )
    masks = root / MASKS
    samples: list[Sample] = []
    problems: list[str] = []
    kinds = [name for name in found if name not in ("", good[0], MASKS)]
    for kind in kinds:
        labelled, wrong = _label(list_images(root / kind, True), root / kind, kind, masks / kind)
        samples += labelled
        problems += wrong
    note = f"{good[0]}/ is read as good images, {some(kinds)} as defects (not used for training)" if kinds else ""
    notes = [note, listing.describe()]
    normals = _refuse_others_inside(root / good[0], list_images(root / good[0], True))
    return Category(
        name_of(root), root, "good and bad", normals, (), tuple(samples), tuple(problems), tuple(filter(None, notes))
    )


def open_plain(root: Path, listing: Listing) -> Category:
    """Open a folder of good images, including subfolders with a date as name.

    Raises:
        DataError: all images are in subfolders, which may be one product or several.
    """
    found = _by_subfolder(root, listing)
    dates = [name for name in found if is_date(name)]
    others = sorted(name for name in found if name and name not in dates)
    if others and not found[""]:
        raise DataError(
            f"{root} holds images only in the folders {some(others)}. They may be one product or several.\n"
            f"For one, move good images to {root}/train/good. For several, choose one:  --data {root / others[0]}"
        )
    note = ", ".join(f"{name}/ ({found[name]} images)" for name in others[:4])
    notes = [f"left out: {note}{' and others' * (len(others) > 4)}" if others else "", listing.describe()]
    images = tuple(path for path in listing.images if _first(path, root) in ("", *dates))
    for image in images:
        if odd := [name for name in image.relative_to(root).parts[:-1] if not is_time(name) and not is_good(name)]:
            raise DataError(
                f"Cannot tell whether {image} is good: it is in a folder '{odd[0]}'.\n"
                f"Move good images to {root}/train/good, with any subfolders there."
            )
    if masks := describe_masks_among(images):
        raise DataError(masks[0])
    return Category(name_of(root), root, "plain", images, notes=tuple(filter(None, notes)))


def _part(root: Path, name: str) -> Path | None:
    """Return a part of the data set, whatever the case of its name.

    Raises:
        DataError: there are two.
    """
    found = [path for path in list_subfolders(root) if path.name.lower() == name]
    if len(found) > 1:
        raise DataError(f"{root} has several folders for one part: {some([path.name for path in found])}. Keep one.")
    return found[0] if found else None


def _good_images(part: Path, three_d: bool, notes: list[str]) -> tuple[Path, ...]:
    """Return the images in the folder of good ones and its subfolders; add notes on what is beside it."""
    folders = list_subfolders(part)
    good = [folder for folder in folders if is_good(folder.name)]
    if len(good) > 1:
        raise DataError(f"{part} has several folders of good images: {some([path.name for path in good])}. Keep one.")
    counts = {f"{path.name}/": len(list_images(path, True)) for path in folders if path not in good}
    counts["images in no folder"] = len(list_folder(part).demand())
    beside = [f"{name} ({count})" for name, count in counts.items() if count]
    if beside and good:
        notes.append(f"left out of {part.name}/: {some(beside)}; only {good[0].name}/ is used for training")
    elif beside:
        notes.append(f"{part.name}/ has {some(beside)}, and no folder {GOOD_FOLDER}")
    inside = [folder / "rgb" if three_d else folder for folder in good]
    if not inside or not inside[0].is_dir():
        return ()
    listing = list_folder(inside[0], recursive=True)
    if listing.left_out:
        notes.append(f"{part.name}/{good[0].name}: {listing.describe()}")
    return _refuse_others_inside(inside[0], listing.demand())


def _refuse_others_inside(folder: Path, images: Sequence[Path]) -> tuple[Path, ...]:
    """Return good images for training; refuse what does not seem to be one."""
    if others := [*_describe_inside(folder, images, is_bad, "good"), *describe_masks_among(images)]:
        raise DataError(others[0])
    return tuple(images)


def _describe_inside(folder: Path, images: Sequence[Path], is_other: Callable[[str], bool], label: str) -> list[str]:
    """Return a line on the first image in a subfolder whose name contradicts the label of its folder; else nothing."""
    found = ((image, name) for image in images for name in image.relative_to(folder).parts[:-1] if is_other(name))
    lines = (
        f"{image} is in a folder '{name}' among {label} images. Move the image or the folder." for image, name in found
    )
    return [*islice(lines, 1)]


def _label(images: Sequence[Path], inside: Path, kind: str, masks: Path) -> tuple[list[Sample], list[str]]:
    if is_good(kind):
        problems = [*_describe_inside(inside, images, is_bad, "good"), *describe_masks_among(images)]
        return [Sample(path, GOOD) for path in images], problems
    samples, problems = match_masks(images, inside, masks, kind)
    return samples, [*_describe_inside(inside, images, is_good, "defective"), *problems]


def _describe_rest(root: Path, used: set[Path | None]) -> str:
    """Return a line on the folders beside the parts of a data set."""
    beside = {f"{path.name}/": list_folder(path, True) for path in list_subfolders(root) if path not in used}
    beside["images in no folder"] = list_folder(root)
    counts = {
        name: len(listing.images) or "cannot be read" * bool(listing.unreadable) for name, listing in beside.items()
    }
    rest = [f"{name} ({count})" for name, count in counts.items() if count]
    return f"left out: {some(rest)}" if rest else ""


def _first(path: Path, root: Path) -> str:
    """Return the subfolder of a folder that an image is in; nothing where it is in the folder itself."""
    parts = path.relative_to(root).parts
    return parts[0] if len(parts) > 1 else ""


def _by_subfolder(root: Path, listing: Listing) -> Counter[str]:
    return Counter(_first(path, root) for path in listing.images)
