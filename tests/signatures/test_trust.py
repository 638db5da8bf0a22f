"""Signed bundles: what is refused, by name, when only those of trusted keys are loaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import inside
from full_disk import limited_files
from level_bundle import make_level_bundle

import edgead
from edgead.archive.scorer import Scorer
from edgead.bundle import Bundle, manifest_digest, read_bundle
from edgead.errors import BundleError, ConfigError
from edgead.signatures.keys import fingerprint, new_key, read_private_key, read_public_key
from edgead.signatures.signing import sign
from edgead.signatures.trust import REVOKED, TRUST, read_trust

FILES = ("manifest.json", "manifest.sig", "model.onnx", "golden.npz")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "ours"
    new_key(path)
    return path


@pytest.fixture(scope="module")
def public(key: Path) -> Path:
    return key.with_name("ours.pub")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_level_bundle(tmp_path_factory.mktemp("bundle") / "tiny.edgead")


@pytest.fixture(scope="module")
def original(bundle: Bundle, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signed") / "signed.edgead"
    shutil.copytree(bundle.path, path)
    sign(path, key=key)
    return path


@pytest.fixture
def signed(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "signed.edgead"))


def test_a_signed_bundle_is_loaded(signed: Path, public: Path) -> None:
    opened = read_bundle(signed, [public])
    assert opened.signer == fingerprint(read_public_key(public))
    assert read_bundle(signed).signer == ""
    with edgead.load(signed, trust=[public.parent]) as inspector:
        assert inspector.bundle.signer == opened.signer


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_refused_with_the_files_name(signed: Path, public: Path, name: str) -> None:
    """Every byte of manifest and signature; of the others, which are read and hashed whole, 16 over their length."""
    file = signed / name
    data = file.read_bytes()
    few = name.startswith("manifest")
    for place in range(0, len(data), 1 if few else max(1, len(data) // 16)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        with pytest.raises(BundleError, match=name):
            read_bundle(signed, [public])
    for changed in (data[:-1], data + b"\n", b""):
        file.write_bytes(changed)
        with pytest.raises(BundleError, match=name):
            read_bundle(signed, [public])
    file.write_bytes(data)
    read_bundle(signed, [public])


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(signed: Path, public: Path, name: str) -> None:
    (signed / name).unlink()
    with pytest.raises(BundleError, match="is not signed" if name == "manifest.sig" else name):
        read_bundle(signed, [public])


@pytest.mark.parametrize("name", ["model.cpu.onnx", ".DS_Store", "manifest.sig.old", "key.pub", "new\nline"])
def test_a_further_file_is_refused(signed: Path, public: Path, name: str) -> None:
    (signed / name).write_bytes(b"")
    with pytest.raises(BundleError) as refused:
        read_bundle(signed, [public])
    assert f"{ascii(name)[1:-1]} is not part of the signed bundle" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_further_folder_is_refused(signed: Path, public: Path) -> None:
    (signed / "folder").mkdir()
    with pytest.raises(BundleError, match="folder is not part of the signed bundle"):
        read_bundle(signed, [public])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", ["inside", "outside"])
def test_a_link_in_place_of_a_file_is_refused(signed: Path, public: Path, name: str, place: str) -> None:
    """Its content is the signed one now, and somebody else's to change later."""
    elsewhere = signed.parent / "elsewhere" if place == "outside" else signed / "copy"
    (signed / name).rename(elsewhere)
    (signed / name).symlink_to(elsewhere)
    with pytest.raises(BundleError, match=f"{name} is (not a file|a link to a file outside)|copy is not part"):
        read_bundle(signed, [public])


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "..", "", "a/b"])
def test_a_signed_manifest_that_lists_a_path_is_refused(signed: Path, key: Path, public: Path, name: str) -> None:
    (signed.parent / "outside").write_bytes(b"x")
    values = json.loads((signed / "manifest.json").read_text())
    values["files"][name] = "0" * 64
    values["digest"] = manifest_digest(values)
    content = json.dumps(values).encode()
    (signed / "manifest.json").write_bytes(content)
    (signed / "manifest.sig").write_bytes(read_private_key(key).sign(content))
    with pytest.raises(BundleError, match=r"is missing|is not a file"):
        read_bundle(signed, [public])
    with pytest.raises(BundleError):
        sign(signed, key=key)


def test_the_signature_of_another_bundle_is_refused(signed: Path, key: Path, public: Path) -> None:
    """Its threshold is lower, and its hashes are its own."""
    before = (signed / "manifest.sig").read_bytes()
    values = json.loads((signed / "manifest.json").read_text())
    values["threshold"]["value"] += 1
    values["digest"] = manifest_digest(values)
    (signed / "manifest.json").write_text(json.dumps(values))
    read_bundle(signed)
    with pytest.raises(BundleError, match="not by a trusted key"):
        read_bundle(signed, [public])
    sign(signed, key=key)
    assert read_bundle(signed, [public]).manifest.threshold.value == values["threshold"]["value"]
    assert (signed / "manifest.sig").read_bytes() != before


def test_keys_are_rotated_and_removed(original: Path, key: Path, public: Path, tmp_path: Path) -> None:
    """Both keys are trusted while bundles are signed again; then the old one is removed."""
    folder, old = tmp_path / "trusted", Path(shutil.copytree(original, tmp_path / "old.edgead"))
    folder.mkdir()
    shutil.copy(public, folder)
    new, _ = new_key(tmp_path / "new")
    again = Path(shutil.copytree(original, tmp_path / "again.edgead"))
    sign(again, key=tmp_path / "new")
    read_bundle(old, [folder])
    with pytest.raises(BundleError, match="not by a trusted key"):
        read_bundle(again, [folder])
    shutil.copy(new, folder)
    assert {read_bundle(path, [folder]).signer for path in (old, again)} == read_trust([folder]).keys.keys()
    (folder / "ours.pub").unlink()
    with pytest.raises(BundleError, match=r"manifest\.json is refused.*not by a trusted key"):
        read_bundle(old, [folder])
    read_bundle(again, [folder])


def test_a_revoked_bundle_is_refused(signed: Path, public: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trusted"
    folder.mkdir()
    shutil.copy(public, folder)
    digest = read_bundle(signed, [folder]).manifest.digest
    (folder / REVOKED).write_text(f"# passes cracked caps\n\n{digest.upper()}  # 3 March\n")
    with pytest.raises(BundleError, match=f"refused: its digest {digest} is in the {REVOKED}"):
        read_bundle(signed, [folder])
    (folder / REVOKED).write_text(f"{digest[:12]}\n")
    with pytest.raises(ConfigError, match="line 1: a line is the digest"):
        read_bundle(signed, [folder])


def test_keys_that_cannot_be_trusted(signed: Path, key: Path, public: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    places: dict[str, Callable[[Path], object]] = {
        "is a private key": lambda path: shutil.copy(key, path),
        "is not a public key": lambda path: path.write_bytes(b"ssh-ed25519 AAAA"),
        "is not an Ed25519 key": lambda path: path.write_bytes(
            other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        ),
        "is larger than 64 KiB": lambda path: path.write_bytes(public.read_bytes() + b"\n" * (1 << 16)),
        "does not exist": lambda path: None,
        "holds no public key": lambda path: path.mkdir(),
        "every user may change it": lambda path: (shutil.copy(public, path), path.chmod(0o666)),
        "cannot be read": lambda path: (path.mkdir(), (path / "x.pub").mkdir()),
    }
    for number, (said, make) in enumerate(places.items()):
        make(tmp_path / f"{number}.pub")
        with pytest.raises(ConfigError, match=said):
            read_bundle(signed, [public, tmp_path / f"{number}.pub"])


def test_the_environment_says_whom_to_trust(
    signed: Path, bundle: Bundle, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUST, f"{public}{os.pathsep}{public.parent}")
    assert read_bundle(signed).signer
    with pytest.raises(BundleError, match=r"is not signed(?s:.*)edgead sign tiny\.edgead --key"):
        read_bundle(bundle.path)
    assert read_bundle(bundle.path, trust=()).signer == ""
    scorer = Scorer(bundle.path, engine="onnxruntime")
    monkeypatch.setenv(TRUST, "")
    with pytest.raises(ConfigError, match="EDGEAD_TRUST is empty"):
        read_bundle(signed)
    monkeypatch.delenv(TRUST)
    with pytest.raises(BundleError, match="is not signed"):  # it has kept its keys, on whichever machine it scores
        scorer._load()


def test_openssl_makes_and_checks_the_same_signature(signed: Path, key: Path, public: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    common = ["openssl", "pkeyutl", "-rawin", "-in", signed / "manifest.json"]
    check = [*common, "-verify", "-pubin", "-inkey", public, "-sigfile", signed / "manifest.sig"]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    made = subprocess.run([*common, "-sign", "-inkey", key], capture_output=True, check=True).stdout
    assert made == (signed / "manifest.sig").read_bytes()


def test_keys_and_sign_from_the_command_line(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, key = Path(shutil.copytree(bundle.path, tmp_path / "x.edgead")), tmp_path / "keys" / "cell-7"
    monkeypatch.setenv("KEY_WORDS", "correct-horse-battery")
    made = json.loads(inside("keys", "new", key, "--passphrase", "${KEY_WORDS}", "--json").stdout)
    assert (key.stat().st_mode & 0o777, key.with_name("cell-7.pub").stat().st_mode & 0o777) == (0o600, 0o644)
    assert b"ENCRYPTED" in key.read_bytes()
    refused = inside("keys", "new", key).stderr
    assert "exists already and was kept" in refused
    assert "--force" not in refused  # there is none
    assert made["key"] in inside("keys", "show", made["public"]).stdout
    for arguments, said in (
        ([], "needs a passphrase"),
        (["--passphrase", "${ABSENT}"], "not set"),
        (["--passphrase", "correct-horse-battery"], "visible in ps"),
    ):
        done = inside("sign", copy, "--key", key, *arguments)
        assert said in done.stderr
        assert "correct-horse" not in done.stdout + done.stderr
    monkeypatch.setenv("OTHER", "wrong-horse-battery")
    assert "the passphrase is wrong" in inside("sign", copy, "--key", key, "--passphrase", "${OTHER}").stderr
    assert not (copy / "manifest.sig").exists()
    done = inside("sign", copy, "--key", key, "--passphrase", "${KEY_WORDS}", "--json")
    assert json.loads(done.stdout) == {"bundle": str(copy), "digest": bundle.manifest.digest, "key": made["key"]}
    shown = inside("inspect", copy, "--trust", made["public"], "--engine", "onnxruntime")
    assert f"signature  by the trusted key {made['key']}" in shown.stdout
    assert TRUST not in os.environ
    assert "not checked" in inside("inspect", copy, "--engine", "onnxruntime").stdout


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_key_needs_a_name(name: str) -> None:
    with pytest.raises(ConfigError, match="has no name"):
        new_key(Path(name))


def test_half_of_a_key_is_not_left(tmp_path: Path) -> None:
    with limited_files(10), pytest.raises(OSError, match="too large"):
        new_key(tmp_path / "ours")
    with pytest.raises(OSError, match="name too long"):  # of the public key alone
        new_key(tmp_path / ("k" * 253))
    assert not list(tmp_path.iterdir())


def test_what_must_not_sign(bundle: Bundle, key: Path, public: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle.path, tmp_path / "x.edgead"))
    shutil.copy(key, copy / "ours")
    with pytest.raises(BundleError, match="ours is not part of the signed bundle"):
        sign(copy, key=copy / "ours")
    (copy / "ours").unlink()
    with pytest.raises(ConfigError, match="is not a private key"):
        sign(copy, key=public)
    open_to_all = Path(shutil.copy(key, tmp_path / "open"))
    open_to_all.chmod(0o640)
    with pytest.raises(ConfigError, match="can be read by others"):
        sign(copy, key=open_to_all)
    (copy / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"model\.onnx is damaged"):
        sign(copy, key=key)
    assert not (copy / "manifest.sig").exists()


def arguments_of(verb: str, bundle: Path, parts: Path, folder: Path, public: Path) -> list[str | Path]:
    """Return the call of a verb with a bundle that is not signed; `folder` has one that is, signed.edgead."""
    images = parts / "test" / "good"
    source = ["--source", images, "--engine", "onnxruntime"]
    camera = f'[cameras.a]\nsource = "{images}"\n[products.x]\nbundle = "{bundle}"\n[run]\ntrust = ["{public}"]\n'
    (folder / "line.toml").write_text(camera)
    trust = ["--trust", public]
    return {
        "inspect": ["inspect", bundle, *trust],
        "predict": ["predict", bundle, images, *trust],
        "predict --ray": ["predict", bundle, images, "--ray", "local", "--out", folder / "x.parquet", *trust],
        "run": ["run", bundle, *source, *trust],
        "run --shadow": ["run", folder / "signed.edgead", "--shadow", bundle, *source, *trust],
        "run --check": ["run", bundle, "--check", *source, *trust],
        "run --config": ["run", "--config", folder / "line.toml", "--engine", "onnxruntime"],
        "benchmark": ["benchmark", bundle, "--data", parts, "--out", folder / "b", *trust],
        "plan": ["plan", "--cameras", "1", "--fps", "1", "--deadline", "1s", "--bundle", bundle, *trust],
        "doctor": ["doctor", "--build", bundle, *trust],
        "report": ["report", bundle, *trust],
    }[verb]


VERBS = ("inspect", "predict", "predict --ray", "run", "run --shadow", "run --check", "run --config", "benchmark")


@pytest.mark.parametrize("verb", [*VERBS, "plan", "doctor", "report"])
def test_every_verb_refuses_what_is_not_signed(
    verb: str, bundle: Bundle, signed: Path, parts: Path, public: Path
) -> None:
    done = inside(*arguments_of(verb, bundle.path, parts, signed.parent, public))
    assert done.returncode != 0
    assert "is not signed, and only signed bundles are loaded here" in done.stderr + done.stdout
    assert "PASS" not in done.stdout


def test_a_line_file_names_keys_from_its_folder(signed: Path, parts: Path, public: Path) -> None:
    shutil.copytree(public.parent, signed.parent / "trusted")
    (signed.parent / "line.toml").write_text(
        f'[cameras.a]\nsource = "{parts / "test" / "good"}"\n[products.x]\nbundle = "signed.edgead"\n'
        '[run]\nengine = "onnxruntime"\ntrust = ["trusted"]\n'
    )
    done = inside("run", "--config", signed.parent / "line.toml", folder=parts)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
