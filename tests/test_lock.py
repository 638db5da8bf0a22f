"""requirements.lock: the versions that are tested, and nothing but the files whose hashes it lists."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import Marker

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / ".ci"))

import lock  # noqa: E402
from ends import requirements  # noqa: E402

HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-").replace(".", "-")


def locked() -> dict[str, list[tuple[str, set[str]]]]:
    """Return name ↦ versions with their hashes."""
    found: dict[str, list[tuple[str, set[str]]]] = {}
    for entry in re.split(r"\n(?=\S)", lock.LOCK.read_text()):
        if not entry.startswith("#"):
            version = entry.partition("==")[2].split()[0]
            found.setdefault(name_of(entry), []).append((version, set(HASH.findall(entry))))
    return found


def test_every_package_that_the_tests_need_is_there_with_hashes() -> None:
    found = locked()
    needed = {name_of(each) for each in (*requirements(lock.EXTRAS), *lock.TOOLS)}
    assert needed - found.keys() == set(lock.BY_VERSION), "run: make lock"
    assert all(hashes for versions in found.values() for _, hashes in versions)
    assert not [name for name in found if name.startswith(("nvidia-cu", "cuda-"))]


def test_versions_are_those_of_the_constraints() -> None:
    found, compared = locked(), 0
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        pin, _, marker = line.partition(" ; ")
        if "==" not in pin or pin.startswith("#") or name_of(pin) not in found:
            continue
        versions = [version for version, _ in found[name_of(pin)]]
        assert pin.partition("==")[2] in versions, f"{line}: run: make lock"
        assert len(versions) == 1 or marker, line
        compared += 1
    assert compared > 60


def test_a_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    """pip itself, with a package of the test's own in the place of the index."""
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "__init__.py").touch()
    (tmp_path / "setup.py").write_text(
        "from setuptools import setup\nsetup(name='part', version='1', packages=['part'])"
    )
    pip = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check"]
    build = [
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path / "files"),
        str(tmp_path),
    ]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    [wheel] = (tmp_path / "files").iterdir()
    hashed = subprocess.run([*pip, "hash", str(wheel)], check=True, capture_output=True, text=True).stdout
    [right] = HASH.findall(hashed)
    wrong = right[:-1] + ("0" if right[-1] != "0" else "1")
    outcomes = {}
    for name, lines in {"right": [wrong, right], "wrong": [wrong], "none": []}.items():
        listed = tmp_path / f"{name}.lock"
        listed.write_text(" \\\n".join(["part==1", *(f"    --hash=sha256:{each}" for each in lines)]) + "\n")
        options = ["--no-index", "--find-links", str(wheel.parent), "--target", str(tmp_path / name)]
        command = [*pip, "install", "--require-hashes", "--no-deps", *options, "-r", str(listed)]
        done = subprocess.run(command, capture_output=True, text=True)
        outcomes[name] = done.returncode, (tmp_path / name / "part").is_dir(), done.stderr
    assert outcomes["right"][:2] == (0, True), outcomes
    assert outcomes["wrong"][:2] == (1, False)
    assert "DO NOT MATCH THE HASHES" in outcomes["wrong"][2]
    assert outcomes["none"][:2] == (1, False)


def test_make_installs_by_hash() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nlocked:")[2].partition("\n\n")[0]
    assert "--require-hashes --no-deps -r requirements.lock" in recipe


@pytest.mark.parametrize(
    ("version", "holds"), [((3, 10, 13), False), ((3, 11, 4), False), ((3, 12, 1), True), ((3, 14, 0), False)]
)
def test_another_python_gets_no_hashes_and_a_line_that_says_so(
    version: tuple[int, ...], holds: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = ".".join(map(str, version))
    environment = {"python_full_version": text, "implementation_name": "cpython", "platform_machine": "x86_64"}
    assert Marker(f"{lock.PYTHON} and {lock.MACHINE}").evaluate({**environment, "sys_platform": "linux"}) == holds
    monkeypatch.setattr("sys.version_info", (*version, "final", 0))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / ".ci" / "holds.py"))
    assert (not ended.value.code) == holds
    assert capsys.readouterr().out.startswith("without hashes: ") == (not holds)
