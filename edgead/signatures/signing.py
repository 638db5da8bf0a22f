"""Signs bundles: `edgead sign`. What is signed, and who checks it: `edgead.signatures.trust`."""

from __future__ import annotations

from pathlib import Path

from edgead.bundle import Bundle, parse_manifest, read_bundle, read_manifest_file, refuse_others
from edgead.errors import BundleError
from edgead.files import atomic_file
from edgead.signatures.keys import fingerprint, read_private_key
from edgead.signatures.trust import SIGNATURE


def sign(bundle: str | Path, *, key: str | Path, passphrase: str = "") -> tuple[Bundle, str]:
    """Sign a bundle; an older signature is replaced.

    Args:
        bundle: the folder. Its files are checked first, and nothing else may be in it.
        key: file of the private key.
        passphrase: of the key; empty for none.

    Returns:
        The bundle, and the fingerprint of the public key.

    Raises:
        BundleError: missing, damaged, or with a file that its manifest does not list.
        ConfigError: the key cannot be used.
        MissingDependencyError: cryptography is not installed.
    """
    private = read_private_key(Path(key), passphrase)
    opened = read_bundle(bundle, trust=())
    refuse_others(opened.folder, opened.manifest)
    content = read_manifest_file(opened.folder)
    if parse_manifest(opened.folder, content) != opened.manifest:
        raise BundleError(f"{opened.path} was changed while it was signed. Sign it again.")
    signature = private.sign(content)
    with atomic_file(opened.folder / SIGNATURE) as stream:
        stream.write(signature)
    return opened, fingerprint(private.public_key())
