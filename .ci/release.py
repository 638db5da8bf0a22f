"""Build and check what a release consists of, in dist/: `make release`. Nothing is uploaded.

    python .ci/release.py [--out DIR] [--extra cpu] [--no-isolation]

The wheel is built from the source distribution, so a file that this lacks is missed here and not by a user. It is then
installed into a fresh virtual environment, imported and called there; the bill of materials lists what that holds.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--extra", default="cpu", help="extra that is installed and listed; empty for none")
    parser.add_argument("--no-isolation", action="store_true", help="build with the setuptools that is installed")
    options = parser.parse_args()
    out = options.out.resolve()
    version = agreed_version()
    out.mkdir(parents=True, exist_ok=True)
    if left := sorted(path.name for path in out.iterdir()):
        sys.exit(f"{out} is not empty: {', '.join(left)}. Move them away first.")
    call(sys.executable, "-m", "build", "--outdir", out, *(["--no-isolation"] if options.no_isolation else []), ROOT)
    wheel, sdist = out / f"edgead-{version}-py3-none-any.whl", out / f"edgead-{version}.tar.gz"
    call(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    if strange := [name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith("edgead")]:
        sys.exit(f"The wheel holds files beside the package: {', '.join(strange)}")
    bill = out / f"edgead-{version}.cdx.json"
    with tempfile.TemporaryDirectory() as folder:
        python = install(f"{wheel}[{options.extra}]" if options.extra else str(wheel), Path(folder, "venv"))
        said = call(python, "-m", "edgead", "--version", cwd=out)
        if version not in said:
            sys.exit(f"The installed version is '{said.strip()}', not {version}.")
        call(python, "-c", "import edgead; edgead.load, edgead.Inspector, edgead.Result, edgead.Verdict", cwd=out)
        # In an environment of its own: a package that it brings makes `import ray` three seconds slower.
        lister = install("cyclonedx-bom", Path(folder, "lister"))
        call(lister, "-m", "cyclonedx_py", "environment", "--output-reproducible", "-o", bill, python)
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in (wheel, sdist, bill)]
    (out / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    print("\n".join(sums))


def agreed_version() -> str:
    """Return the version; end if package, changelog and citation do not agree on it."""
    places = {
        "edgead/__init__.py": r'__version__ = "(.+)"',
        "CHANGELOG.md": r"(?m)^## (\S+)",
        "CITATION.cff": r"(?m)^version: (\S+)",
    }
    found = {name: re.findall(form, (ROOT / name).read_text("utf-8"))[0] for name, form in places.items()}
    if len(set(found.values())) > 1:
        sys.exit("The versions differ: " + ", ".join(f"{name} {version}" for name, version in found.items()))
    return found["CHANGELOG.md"]


def install(what: str, folder: Path) -> Path:
    """Install a package into a fresh virtual environment, in the versions of the tests; return its Python."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    call(*pip, "install", "--quiet", "-c", ROOT / "constraints.txt", what)
    return python


def call(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command; return what it printed, or end with it if the command failed."""
    done = subprocess.run([*map(str, command)], cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main()
