"""Marks of rejects by people, kept as labelled images: see docs/live-page.md."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgead.audit import append_line
from edgead.errors import ConfigError
from edgead.files import atomic_file, file_lock, stays_below
from edgead.schema import parse_json
from edgead.text import utc_now

FOLDERS = {"false reject": "good", "real defect": "bad", "unsure": "unsure"}
"""Mark ↦ folder of the picture. ``good`` and ``bad`` together are a data set for ``edgead benchmark --data``."""
FILE = "marks.jsonl"


@dataclass(frozen=True)
class Mark:
    """The last mark of a reject.

    Attributes:
        id: of the result.
        mark: a key of `FOLDERS`.
        by, at: who, and when (UTC, ISO 8601).
        picture: relative to the folder of the marks.
        result: `edgead.runtime.result.ResultFields`.
        why: as they said; empty for nothing.
    """

    id: str
    mark: str
    by: str
    at: str
    picture: str
    result: Mapping[str, Any]
    why: str = ""


class Marks:
    """``marks.jsonl``, and the pictures ``images/good``, ``images/bad`` and ``unsure``.

    Several threads and processes may mark in one folder.

    Args:
        folder: for both.

    Attributes:
        damaged: lines that `all` has left out, because nothing can be read from them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._path = folder, folder / FILE
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._marks: dict[str, Mark] = {}
        self.damaged = 0

    def of(self, result_id: str) -> str:
        """Return the mark of a result; empty if there is none."""
        found = self.all().get(result_id)
        return found.mark if found else ""

    def all(self) -> dict[str, Mark]:
        """Return the last mark of each result, by its id, with those that other processes have made by now."""
        with self._lock:
            try:
                facts = self._path.stat()
            except OSError:
                return {}
            if self._seen != (facts.st_mtime_ns, facts.st_size):
                self._seen = facts.st_mtime_ns, facts.st_size
                self._marks, self.damaged = _read(self._path)
            return self._marks

    def set(
        self, stem: str, result: Mapping[str, Any], mark: str, by: str, picture: Callable[[], bytes], why: str = ""
    ) -> None:
        """Keep a mark: the picture first, then the line, so that a line always has its picture.

        The picture lies in the folder of the last mark alone: the folders are labels.

        Args:
            stem: name of the result's files, see `edgead.runtime.sinks.rejects.stem_of`.
            result: `edgead.runtime.result.ResultFields`.
            mark: a key of `FOLDERS`.
            by: who marks.
            picture: returns the picture as PNG.
            why: as they say.

        Raises:
            ConfigError: an unknown mark.
            OSError: it cannot be written.
        """
        check_mark(mark)
        self.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(self.folder / ".marking.lock", lambda: None):
            before = self.of(str(result["id"]))
            path = self._place(mark, stem)
            with atomic_file(path) as stream:
                stream.write(picture())
            name = path.relative_to(self.folder).as_posix()
            made = Mark(str(result["id"]), mark, by, utc_now("milliseconds"), name, dict(result), why)
            line = dataclasses.asdict(made)
            try:
                grown = append_line(
                    self._path, line if why else {key: value for key, value in line.items() if key != "why"}
                )
            except BaseException:
                if mark != before:
                    path.unlink(missing_ok=True)
                raise
            for other in FOLDERS.keys() - {mark}:  # where it was, or was left by a process that was killed
                self._place(other, stem).unlink(missing_ok=True)
            self._take(made, grown)

    def _take(self, made: Mark, grown: int) -> None:
        """Remember a mark that was appended, so that the whole file is not read again for each."""
        with self._lock, contextlib.suppress(OSError):
            facts = self._path.stat()
            if self._seen and facts.st_size == self._seen[1] + grown:
                self._seen = facts.st_mtime_ns, facts.st_size
                self._marks = {**self._marks, made.id: made}

    def _place(self, mark: str, stem: str) -> Path:
        folder = FOLDERS[mark]
        return (self.folder if folder == "unsure" else self.folder / "images") / folder / f"{stem}.png"


def check_mark(mark: str) -> None:
    """Refuse an unknown mark.

    Raises:
        ConfigError: it is not a key of `FOLDERS`.
    """
    if mark not in FOLDERS:
        raise ConfigError(f"A mark must be one of {', '.join(FOLDERS)}.")


def marks_folder(folder: Path, named: Path | None = None) -> Path:
    """Return where the marks of a folder of rejects are: in the folder itself, if it is one of marks, or in ``marks``.

    Args:
        folder: of a ``rejects:`` sink, or of marks.
        named: folder of the marks, if it is another one.

    Raises:
        ConfigError: one of the folders is not there.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder. Name the folder of the sink rejects:DIR, or that of the marks.")
    if named is not None and not named.is_dir():
        raise ConfigError(
            f"--marks {named} is not a folder. The first mark creates it:  edgead review PICTURE --as unsure"
        )
    if named is not None:
        return named
    return folder if (folder / FILE).is_file() else folder / "marks"


def of_one_product(marks: Collection[Mark], folder: Path, bundle: str = "") -> list[Mark]:
    """Return marks of the parts of one product: what is good on one part may be a defect on another.

    A line with products saves the rejects of all in one folder. Products that share a bundle count as one; marks
    without a product are anybody's.

    Args:
        marks: all of them.
        folder: they are from, for the error.
        bundle: name of one of the product's bundles; without it, or if no mark is of it, all must be of one product.

    Raises:
        ConfigError: they are of several products.
    """
    found = _products_in(marks)
    own = [(names, bundles) for names, bundles in found if bundle in bundles] or found
    if len(own) > 1:
        shown = ", ".join(sorted("/".join(sorted(names)) for names, _ in found))
        raise ConfigError(
            f"The marks in {folder} are of several products: {shown}. Parts of one say nothing about another.\n"
            "Mark those of one product in a folder of its own:  edgead review PICTURES --as MARK --marks DIR"
        )
    return [one for one in marks if not (name := _product_of(one)) or name in own[0][0]]


def _products_in(marks: Iterable[Mark]) -> list[tuple[set[str], set[str]]]:
    """Return for each product its name and those of its bundles; products with a common bundle are together."""
    found: list[tuple[set[str], set[str]]] = []
    for one in marks:
        if name := _product_of(one):
            names, bundles = {name}, {str(one.result.get("bundle"))}
            for other in [each for each in found if each[0] & names or each[1] & bundles]:
                found.remove(other)
                names, bundles = names | other[0], bundles | other[1]
            found.append((names, bundles))
    return found


def _product_of(mark: Mark) -> str:
    """Return the product of a mark's recipe, ``NAME VERSION``; empty for none."""
    recipe = mark.result.get("recipe")
    return recipe.rpartition(" ")[0] if isinstance(recipe, str) else ""


def _read(path: Path) -> tuple[dict[str, Mark], int]:
    """Return the last mark of each result, and how many lines are damaged."""
    marks, damaged = dict[str, Mark](), 0
    with contextlib.suppress(OSError):
        if not path.is_file():  # a pipe would never end
            return {}, 0
        for line in path.read_bytes().splitlines():
            made = _mark_in(line)
            damaged += made is None and bool(line.strip())
            if made is not None:
                marks[made.id] = made
    return marks, damaged


def _mark_in(line: bytes) -> Mark | None:
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        values = parse_json(line)
        made = Mark(**{name: values[name] for name in ("id", "mark", "by", "at", "picture", "result")})
        texts = (made.id, made.mark, made.by, made.at, made.picture)
        whole = all(isinstance(each, str) for each in texts) and isinstance(made.result, dict)
        if whole and made.mark in FOLDERS and stays_below(made.picture):
            return dataclasses.replace(made, why=str(values.get("why", "")))
    return None
