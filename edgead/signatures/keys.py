"""Ed25519 keys in PEM files, as OpenSSL writes and reads them: private ones sign bundles, public ones are trusted."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgead.errors import ConfigError, require

EXTRA = "sign"
PUBLIC = ".pub"
"""Suffix of public keys."""
LARGEST_KEY = 1 << 16
"""Bytes of a key's file, and of a list of revoked bundles."""
_CIPHERS = "cryptography.hazmat.primitives"


def new_key(path: Path, passphrase: str = "") -> tuple[Path, str]:
    """Write a new private key, readable by its owner alone, and its public key beside it, ``PATH.pub``.

    Args:
        path: of the private key.
        passphrase: encrypts it; empty for none.

    Returns:
        The public key's path and fingerprint.

    Raises:
        ConfigError: a file is there already, which is never replaced, or the path has no name.
        MissingDependencyError: cryptography is not installed.
    """
    serialization, ed25519 = _libraries()
    if not path.name:
        raise ConfigError(f"'{path}' has no name. Name the file of the private key, as in  edgead keys new ours.key")
    public = path.with_name(path.name + PUBLIC)
    if found := next((one for one in (path, public) if one.exists()), None):
        raise ConfigError(f"{found} exists already and was kept. Choose another file for the key.")
    key = ed25519.Ed25519PrivateKey.generate()
    cipher = serialization.NoEncryption()
    if passphrase:
        cipher = serialization.BestAvailableEncryption(passphrase.encode())
    form = serialization.PrivateFormat.PKCS8
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        _created(path, key.private_bytes(serialization.Encoding.PEM, form, cipher), 0o600),
        _created(public, key.public_key().public_bytes(serialization.Encoding.PEM, kind), 0o644),
    ):
        pass
    return public, fingerprint(key.public_key())


@contextmanager
def _created(path: Path, content: bytes, mode: int) -> Iterator[None]:
    """Write a file that is not there yet; it never exists with another mode. After an error it is gone again."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def read_private_key(path: Path, passphrase: str = "") -> Any:
    """Return the private key of a PEM file.

    Raises:
        ConfigError: it cannot be read, others may read it, or it is no such key.
        MissingDependencyError: cryptography is not installed.
    """
    serialization, ed25519 = _libraries()
    content = read_small(path, "The key")
    if b"PRIVATE KEY" not in content:
        raise ConfigError(f"{path} is not a private key. Sign with the file that has no {PUBLIC} at its end.")
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path} can be read by others, who could sign with it.\nRun:  chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(content, passphrase.encode() or None)
    except TypeError as error:
        need = "needs a passphrase: --passphrase '${NAME}'" if not passphrase else "has no passphrase"
        raise ConfigError(f"{path} {need}.") from error
    except Exception as error:  # the library's errors have no common base
        raise ConfigError(f"{path} cannot be read: it is damaged, or the passphrase is wrong.") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError(f"{path} is not an Ed25519 key.\nMake one with:  edgead keys new FILE")
    return key


def read_public_key(path: Path) -> Any:
    """Return the public key of a PEM file.

    Raises:
        ConfigError: it cannot be read, or is no such key.
        MissingDependencyError: cryptography is not installed.
    """
    serialization, ed25519 = _libraries()
    content = read_small(path, "The key")
    if b"PRIVATE KEY" in content:
        raise ConfigError(f"{path} is a private key. Keep it where bundles are signed, and trust its {PUBLIC} file.")
    try:
        key = serialization.load_pem_public_key(content)
    except Exception as error:  # as above
        raise ConfigError(f"{path} is not a public key in PEM form.") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise ConfigError(f"{path} is not an Ed25519 key.\nMake one with:  edgead keys new FILE")
    return key


def fingerprint(public: Any) -> str:
    """Return the first 16 digits of the SHA-256 of a public key's 32 bytes."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def read_small(path: Path, what: str) -> bytes:
    """Return the content of a file that has at most `LARGEST_KEY` bytes.

    Raises:
        ConfigError: it cannot be read or is larger; begins with `what`.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_KEY + 1)
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}.") from error
    if len(content) > LARGEST_KEY:
        raise ConfigError(f"{what} {path} is larger than {LARGEST_KEY >> 10} KiB.")
    return content


def _libraries() -> tuple[Any, Any]:
    return require(f"{_CIPHERS}.serialization", EXTRA), require(f"{_CIPHERS}.asymmetric.ed25519", EXTRA)
