"""The images of one product in a data set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgead.errors import DataError

GOOD = "good"
GOOD_NAMES = frozenset({"good", "ok", "okay", "normal", "pass", "passed", "io"}) | {
    "no_defect",
    "no_defects",
    "non_defective",
    "without_defect",
    "without_defects",
    "defect_free",
}
"""Names of folders of good images, with `_` for spaces and hyphens; io and nio are German (in Ordnung)."""
BAD_NAMES = frozenset(
    {"bad", "ko", "nok", "ng", "nio", "not_ok", "not_good", "fail", "failed", "reject", "rejects"}
) | {
    "defect",
    "defects",
    "defective",
    "anomaly",
    "anomalies",
    "anomalous",
    "abnormal",
}
_DATE = re.compile(r"(19|20)\d\d([-_. ]?\d\d){0,2}([-_. T]\d.*)?")


def is_good(name: str) -> bool:
    """Tell by a folder's name whether its images are good."""
    return _plain(name) in GOOD_NAMES


def is_bad(name: str) -> bool:
    """Tell by a folder's name whether its images are defective."""
    return _plain(name) in BAD_NAMES


def _plain(name: str) -> str:
    return name.lower().replace(" ", "_").replace("-", "_")


def defect_of(name: str, else_called: str = "defect") -> str:
    """Return the kind of an image that a table calls defective: `name`, unless that says nothing or says good."""
    return else_called if not name or is_good(name) else name


def is_date(name: str) -> bool:
    """Tell whether a folder's name is a date, such as ``2026-11-27`` or ``20261127_0800``."""
    return _DATE.fullmatch(name) is not None


def is_time(name: str) -> bool:
    """Tell whether a folder may be a month, a day or an hour inside a folder with a date as name."""
    return is_date(name) or re.fullmatch(r"\d[\d_.: hT-]*", name) is not None


@dataclass(frozen=True)
class Sample:
    """One labelled image. `kind` is ``"good"`` or the name of the defect; `masks` is empty where there is no file.

    Of several masks each shows one defect; together they are the image's mask. `background` is the BGR colour of their
    pixels without a defect; None: black.
    """

    path: Path
    kind: str
    masks: tuple[Path, ...] = ()
    background: tuple[int, int, int] | None = None

    @property
    def anomalous(self) -> bool:
        return self.kind != GOOD


@dataclass(frozen=True)
class Category:
    """The images of one product.

    Attributes:
        name: the folder's name.
        root: the folder.
        layout: ``"mvtec"``, ``"loco"``, ``"mvtec3d"``, ``"visa"``, ``"meta.json"``, ``"lookout"``, ``"good and bad"``
            or ``"plain"``.
        normals: good images for training, sorted; empty where there are only labelled test images.
        validation: good images that the data set itself reserves for validation (LOCO, 3D-AD), sorted.
        test: labelled images, sorted; empty in a plain folder.
        problems: what is wrong with the labelled images or their masks, one line each. Training needs neither.
        notes: what was left out or how the folder was read, one line each.
    """

    name: str
    root: Path
    layout: str
    normals: tuple[Path, ...]
    validation: tuple[Path, ...] = ()
    test: tuple[Sample, ...] = field(default=(), repr=False)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def without_mask(self) -> int:
        """Number of defective test images that have no mask file."""
        return sum(sample.anomalous and not sample.masks for sample in self.test)

    def labelled(self) -> tuple[Sample, ...]:
        """Return the labelled images.

        Raises:
            DataError: something is wrong with them or with their masks.
        """
        if self.problems:
            more = f"\n({len(self.problems) - 1} more such problems)" if len(self.problems) > 1 else ""
            raise DataError(self.problems[0] + more)
        return self.test


def find_twice(paths: Iterable[Path], table: Path) -> str:
    """Return a line on the images that a table lists more than once; empty if there are none."""
    twice = [path for path, count in Counter(paths).items() if count > 1]
    return f"{table} lists {len(twice)} images twice, for instance {twice[0]}. Keep one line of each." if twice else ""


def name_of(root: Path) -> str:
    """Return the name of the category in a folder."""
    return root.resolve().name or "root"


def some(items: Sequence[object], most: int = 4) -> str:
    """Join the first items, and count the rest."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(str(item) for item in items[:most]) + more
