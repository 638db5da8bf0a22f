"""Labelled images that are there several times: figures count each as an image of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from edgead.console import Console
from edgead.datasets.category import Category
from edgead.datasets.copies import contents_of
from edgead.errors import DataError


def find_repeats(images: Iterable[Path]) -> list[list[Path]]:
    """Return the groups of images whose files are equal, byte for byte. Only files of equal sizes are read."""
    paths = list(dict.fromkeys(images))
    sizes = Counter(path.stat().st_size for path in paths if path.is_file())
    groups: dict[str, list[Path]] = {}
    for path, content in contents_of(paths, {size for size, count in sizes.items() if count > 1}):
        groups.setdefault(content, []).append(path)
    return [group for group in groups.values() if len(group) > 1]


def check_repeats(category: Category, console: Console) -> None:
    """Warn of labelled images that are there several times.

    Raises:
        DataError: one is labelled good and defective; with both files.
    """
    kinds = {sample.path: sample.anomalous for sample in category.labelled()}
    groups = find_repeats(kinds)
    for group in groups:
        good, defective = ([path for path in group if kinds[path] is anomalous] for anomalous in (False, True))
        if good and defective:
            raise DataError(
                f"The same picture is labelled good and defective: {good[0]} and {defective[0]}.\n"
                "No figure can be right for both. Remove one of them."
            )
    if groups:
        console.say(
            f"Warning: {sum(map(len, groups)) - len(groups)} of {len(kinds)} labelled images of {category.name} are "
            f"copies of others, for instance {groups[0][1]} of {groups[0][0].name}. Each counts, so the intervals are "
            "too narrow."
        )
