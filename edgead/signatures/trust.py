"""Whose bundles are loaded: those that a trusted key has signed, or everyone's. See docs/bundle.md.

manifest.sig is the Ed25519 signature (64 bytes) of the bytes of manifest.json, which holds the SHA-256 of every other
file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgead.errors import BundleError, ConfigError
from edgead.signatures.keys import PUBLIC, fingerprint, read_public_key, read_small

SIGNATURE = "manifest.sig"
SIGNATURE_BYTES = 64
TRUST = "EDGEAD_TRUST"
"""Environment variable: files and folders of public keys, with `os.pathsep` between. Child processes inherit it."""
REVOKED = "revoked.txt"
"""In a folder of keys: digests of bundles that are refused although their signature holds, one a line."""


@dataclass(frozen=True)
class Trust:
    """Whose bundles are loaded.

    Attributes:
        keys: public keys by their fingerprint.
        revoked: digests of bundles that are refused.
        places: where the keys are, for messages.
    """

    keys: Mapping[str, Any]
    revoked: frozenset[str]
    places: str

    def find_signer(self, manifest: Path, content: bytes, signature: bytes) -> str:
        """Return the fingerprint of the key that signed a manifest.

        Args:
            manifest: its path, for messages.
            content: its bytes.
            signature: of them.

        Raises:
            BundleError: none of the keys did.
        """
        from cryptography.exceptions import InvalidSignature

        for name, key in self.keys.items():
            try:
                key.verify(signature, content)
            except InvalidSignature:
                continue
            return name
        raise BundleError(
            f"{manifest} is refused: {SIGNATURE} beside it is not by a trusted key ({', '.join(self.keys)}), or the "
            f"manifest was changed.\nGet the bundle again, or trust the key of its maker with --trust."
        )

    def refuse_revoked(self, path: Path, digest: str) -> None:
        """Refuse a revoked bundle.

        Raises:
            BundleError: it is.
        """
        if digest in self.revoked:
            raise BundleError(f"{path} is refused: its digest {digest} is in the {REVOKED} of {self.places}.")


def read_trust(places: str | Path | Sequence[str | Path] | None = None) -> Trust | None:
    """Return the trusted keys; None if everyone's bundles are loaded.

    Args:
        places: files, and folders with ``*.pub`` and perhaps `REVOKED`, or one of them. None for those of the
            environment variable `TRUST`; an empty sequence for everyone.

    Raises:
        ConfigError: one is missing, holds no public Ed25519 key, or may be changed by every user.
        MissingDependencyError: cryptography is not installed.
    """
    places = trusted_places() if places is None else places
    if isinstance(places, (str, os.PathLike)):  # one alone
        places = [places]
    if not places:
        return None
    keys = [read_public_key(file) for place in places for file in _key_files(Path(place))]
    folders = [Path(place) for place in places if Path(place).is_dir()]
    revoked = frozenset(digest for folder in folders for digest in _read_revoked(folder / REVOKED))
    return Trust({fingerprint(key): key for key in keys}, revoked, ", ".join(map(str, places)))


def trusted_places() -> tuple[str, ...]:
    """Return the files and folders of keys in the environment variable `TRUST`; none for everyone.

    Raises:
        ConfigError: it is empty.
    """
    given = os.environ.get(TRUST)
    if given == "":
        raise ConfigError(f"The environment variable {TRUST} is empty. Name the trusted keys, or unset it.")
    return tuple(given.split(os.pathsep)) if given else ()


def _key_files(place: Path) -> Iterable[Path]:
    if not place.exists():
        raise ConfigError(f"The trusted key {place} does not exist. Name a file or a folder of public keys.")
    files = [place]
    if place.is_dir():
        try:
            files = sorted(file for file in place.iterdir() if file.suffix == PUBLIC)
        except OSError as error:
            raise ConfigError(f"The trusted keys in {place} cannot be read: {error.strerror}.") from error
        if not files:
            raise ConfigError(f"{place} holds no public key (*{PUBLIC}).\nMake one with:  edgead keys new FILE")
    for path in {place, *files}:
        _refuse_open(path)
    return files


def _refuse_open(path: Path) -> None:
    """Refuse what every user of the machine may change."""
    if os.name == "posix" and path.stat().st_mode & stat.S_IWOTH:
        raise ConfigError(f"{path} decides whom to trust, and every user may change it.\nRun:  chmod o-w {path}")


def _read_revoked(path: Path) -> list[str]:
    if not os.path.lexists(path):
        return []
    text = read_small(path, "The list").decode("utf-8", "replace")
    _refuse_open(path)
    lines = [line.partition("#")[0].strip().lower() for line in text.splitlines()]
    for number, line in enumerate(lines, 1):
        if line and not re.fullmatch(r"[0-9a-f]{64}", line):
            raise ConfigError(f"{path}, line {number}: a line is the digest of a bundle (64 digits), or a # comment.")
    return [line for line in lines if line]
