"""The bundles that a changeover can choose from: the page names them, and only names from here are opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgead.bundle import MANIFEST
from edgead.errors import ConfigError
from edgead.files import names_apart


class Bundles:
    """Bundles, and folders of bundles, by name.

    Args:
        places: each a bundle or a folder of bundles. A folder is listed again each time.

    Raises:
        ConfigError: one of them does not exist.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        for place in places:
            if not place.is_dir():
                raise ConfigError(f"--view-bundles {place}: there is no such folder.")
        self._places = tuple(places)

    def names(self) -> list[str]:
        """Return the names, sorted."""
        return sorted(self._found())

    def path(self, name: str) -> Path:
        """Return the path of a bundle.

        Raises:
            ConfigError: an unknown name.
        """
        found = self._found()
        if name not in found:
            raise ConfigError("There is no such bundle in --view-bundles.")
        return found[name]

    def _found(self) -> dict[str, Path]:
        """Return the bundles by name; those of one name by their paths, so that each can be told and chosen."""
        found: dict[Path, Path] = {}
        for place in self._places:
            inside = [place] if _is_bundle(place) else sorted(place.glob("*/"))
            for path in inside:
                if _is_bundle(path) and not path.name.startswith("."):
                    found.setdefault(path.absolute(), path)
        names = names_apart([(path.name.removesuffix(".edgead"), path) for path in found.values()])
        return dict(zip(names, found.values()))


def _is_bundle(path: Path) -> bool:
    return (path / MANIFEST).is_file()
