"""`edgead keys` and `edgead sign`: bundles that only the holder of a key can have made."""

from __future__ import annotations

from pathlib import Path

import click

from edgead.cli.options import PATH, json_option
from edgead.cli.output import emit
from edgead.text import typed

passphrase_option = click.option(
    "--passphrase", default="", help="Passphrase of the private key: '${NAME}' or '${file:PATH}'. [default: none]"
)


@click.command()
@click.argument("action", type=click.Choice(["new", "show"]))
@click.argument("file", type=PATH)
@passphrase_option
@json_option
def keys(action: str, file: Path, passphrase: str, as_json: bool) -> None:
    """Make a key pair (new FILE), or show a public key (show FILE).

    FILE is the private key, which signs bundles: keep it off the line. FILE.pub is what the line trusts.
    """
    from edgead.runtime.sources.uri import read_secret
    from edgead.signatures.keys import fingerprint, new_key, read_public_key

    if action == "show":
        if passphrase:
            raise click.UsageError("--passphrase has no effect with show: a public key has none.")
        name = fingerprint(read_public_key(file))
        emit({"public": str(file), "key": name}, as_json, f"{name}  {file}")
        return
    public, name = new_key(file, read_secret(passphrase, "--passphrase"))
    text = f"Private key: {file}\nPublic key:  {public} ({name})\nNext:  edgead sign BUNDLE --key {typed(file)}"
    emit({"private": str(file), "public": str(public), "key": name}, as_json, text)


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--key", required=True, type=PATH, help="File of the private key; see `edgead keys`.")
@passphrase_option
@json_option
def sign(bundle: Path, key: Path, passphrase: str, as_json: bool) -> None:
    """Sign a bundle: write manifest.sig. `--trust` then refuses it if one byte of any file is changed."""
    from edgead.runtime.sources.uri import read_secret
    from edgead.signatures.signing import sign as make

    opened, name = make(bundle, key=key, passphrase=read_secret(passphrase, "--passphrase"))
    value = {"bundle": str(bundle), "digest": opened.manifest.digest, "key": name}
    emit(value, as_json, f"{bundle} is signed with the key {name}.\nDigest: {opened.manifest.digest}")
