"""The manifests of Amazon Lookout for Vision, in the form of SageMaker Ground Truth: one JSON object a line.

Its objects name images and masks by ``s3://`` addresses. The files themselves lie anywhere below the folder: each is
found by its name, and where several files have that name, by the end of its path.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgead.datasets.category import GOOD, Category, Sample, defect_of, find_twice, is_good, name_of, some
from edgead.errors import DataError
from edgead.folders import list_folder
from edgead.schema import parse_json

SUFFIX = ".manifest"
FOLDER = "manifests"
"""Subfolder in which manifests may lie beside the images' folders."""
CLASS = "groundtruth/image-classification"
MASK = "groundtruth/semantic-segmentation"
LARGEST = 256 << 20
"""Bytes of a manifest: half a million images."""
LONGEST = 2048
"""Characters of an address; S3 allows 1,024 bytes after the bucket."""
WHITE = "#ffffff"
"""Colour of pixels without a defect where the colour map does not state it."""


@dataclass(frozen=True)
class Entry:
    """A line of a manifest: addresses, kind of defect (or ``"good"``), BGR colour of the mask's good pixels."""

    image: str
    kind: str
    mask: str = ""
    background: tuple[int, int, int] | None = None


def find_manifests(root: Path) -> list[Path]:
    """Return the manifests of a folder, in itself or in ``manifests/``, sorted; files of another form are not any."""
    places = [root, root / FOLDER]
    files = (path for place in places if place.is_dir() for path in place.glob(f"*{SUFFIX}"))
    return sorted(path for path in files if path.is_file() and _is_manifest(path))


def open_lookout(root: Path, manifests: list[Path]) -> Category:
    """Open a data set of Lookout for Vision: with a test manifest as split there, else good images are for training.

    Raises:
        DataError: a damaged line, a file that is missing or cannot be told apart, several manifests for one part.
    """
    parts = _by_part(manifests)
    table = {part: _read(path) for part, path in parts.items()}
    files = _Files(root)
    train, test = table.get("train", []), table.get("test", [])
    normals = sorted({files.find(entry.image) for entry in train if entry.kind == GOOD})
    defective = [entry for entry in train if entry.kind != GOOD]
    notes = []
    if defective and not test:
        test = defective
        notes.append(f"no test manifest: its {len(defective)} defective images are labelled images, not trained on")
    elif defective:
        notes.append(f"left out: {len(defective)} defective images that the training manifest lists")
    samples = [
        Sample(files.find(entry.image), entry.kind, (files.find(entry.mask),) if entry.mask else (), entry.background)
        for entry in test
    ]
    files.refuse_missing(manifests[0])
    for part, entries in table.items():
        if twice := find_twice((files.find(entry.image) for entry in entries), parts[part]):
            raise DataError(twice)
    ordered = tuple(sorted(samples, key=lambda sample: sample.path))
    return Category(name_of(root), root, "lookout", tuple(normals), (), ordered, notes=tuple(notes))


class _Files:
    """The image files below a folder, found by the end of an address."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.missing: list[str] = []
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._address_of: dict[Path, str] = {}
        for path in list_folder(root, recursive=True).demand():
            self._by_name[path.name].append(path)

    def find(self, address: str) -> Path:
        """Return the file of an address; note it as missing where there is none.

        Raises:
            DataError: it may be several files, or the only one of its name is that of another address.
        """
        parts = PurePosixPath(address.partition("://")[2] or address).parts
        found = self._by_name.get(parts[-1], [])
        if not found:
            self.missing.append(address)
            return self.root / parts[-1]
        common = {path: _common_end(path.relative_to(self.root).parts, parts) for path in found}
        best = [path for path in found if common[path] == max(common.values())]
        if len(best) > 1:
            raise DataError(
                f"{address} may be {some(best)}.\nKeep the folders of the bucket, so that the paths end as in the "
                "manifest."
            )
        other = self._address_of.setdefault(best[0], address)
        if other != address:
            raise DataError(
                f"Only one file here has the name of {address} and {other}: {best[0]}.\nCopy the other one, too:  "
                f"aws s3 sync s3://BUCKET/PATH {self.root}"
            )
        return best[0]

    def refuse_missing(self, manifest: Path) -> None:
        if self.missing:
            raise DataError(
                f"{manifest} lists {len(self.missing)} files that are not below {self.root}, for instance "
                f"{self.missing[0]}.\nedgead reads local files only. Copy them there: aws s3 sync s3://BUCKET/PATH "
                f"{self.root}"
            )


def _common_end(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    pairs = zip(reversed(first), reversed(second))
    return next((number for number, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def _by_part(manifests: list[Path]) -> dict[str, Path]:
    """Tell which manifest is for training and which for the test; a single one is for training."""
    parts: dict[str, Path] = {}
    for path in manifests:
        part = "test" if "test" in path.stem.lower() and len(manifests) > 1 else "train"
        if part in parts:
            names = some([each.name for each in manifests])
            raise DataError(
                f"Cannot tell which manifest is for training: {names}.\nKeep one, or two called train{SUFFIX} and "
                f"test{SUFFIX}."
            )
        parts[part] = path
    return parts


def _is_manifest(path: Path) -> bool:
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} is larger than {LARGEST >> 20} MB. Split it, or leave it out.")
        with path.open(encoding="utf-8-sig") as stream:
            first = parse_json(next((line for line in stream if line.strip()), "null"))
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and "source-ref" in first


def _read(path: Path) -> list[Entry]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read {path}: {error}.") from error
    return [_entry(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _entry(path: Path, number: int, line: str) -> Entry:
    try:
        return _parse(parse_json(line))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}, line {number}: cannot read it ({error}).\nExpected source-ref and a label with class-name normal "
            "or anomaly, as Lookout for Vision and Ground Truth write them."
        ) from error


def _parse(row: dict[str, Any]) -> Entry:
    """Read a line.

    The label counts by its class-name: examples of Amazon's own documentation have ``"anomaly-label": 1`` on a normal
    image.
    """
    image = row["source-ref"]
    described = {key: value for key, value in row.items() if key.endswith("-metadata")}
    labels = [str(value["class-name"]) for value in described.values() if value.get("type") == CLASS]
    _refuse_no_address(image)
    if len(labels) != 1:
        raise ValueError(f"{len(labels)} labels")
    if is_good(labels[0]):
        return Entry(image, GOOD)
    for key, value in described.items():
        mask = row.get(key.removesuffix("-metadata"))
        if value.get("type") == MASK and mask:
            _refuse_no_address(mask)
            return Entry(image, *_masked(mask, labels[0], value.get("internal-color-map") or {}))
    return Entry(image, labels[0])


def _refuse_no_address(value: Any) -> None:
    if not isinstance(value, str) or not PurePosixPath(value).name or len(value) > LONGEST:
        raise ValueError(f"source-ref or mask is not an address of at most {LONGEST} characters")


def _masked(mask: str, label: str, colours: dict[str, Any]) -> tuple[str, str, tuple[int, int, int]]:
    """Return kind, address of the mask, and its background's BGR colour."""
    background, kinds = WHITE, []
    for entry in colours.values():
        if str(entry["class-name"]).lower() == "background":
            background = str(entry["hex-color"])
        else:
            kinds.append(str(entry["class-name"]))
    red, green, blue = bytes.fromhex(background.removeprefix("#"))
    return defect_of(kinds[0] if len(kinds) == 1 else label, label), mask, (blue, green, red)
