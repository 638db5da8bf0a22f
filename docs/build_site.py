"""Build the documentation site from docs/ and the pages at the root: `make docs`.

    python docs/build_site.py      # build/site/index.html

The pages link to each other and to files of the repository, as they do on the web page of a repository. The site
generator knows only its own folder, so everything is copied to build/docs first: the pages, those outside docs/ that
they link to (`PAGES`), and linked files. A link that leads nowhere, or a warning of the generator, ends the build.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "LICENSE": "license.md",
    "README.md": "index.md",
    "benchmarks/README.md": "published-results.md",
    "benchmarks/gpu_check/README.md": "gpu-check.md",
}
"""Pages outside docs/ ↦ their place on the site. The README's is the home page, which says the same."""
SHIM = "https://unpkg.com/iframe-worker/shim"
"""What the generator loads from the network so that the search works in a folder; docs/offline holds it."""
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")


def stage(folder: Path) -> None:
    """Write everything that the site consists of to `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for source, target in PAGES.items():
        if target != "index.md":
            text = (ROOT / source).read_text(encoding="utf-8")
            (folder / target).write_text(
                text if source.endswith(".md") else f"# {source}\n\n```text\n{text}```\n", "utf-8"
            )
    (folder / "adr" / "index.md").write_text(_list_decisions(), encoding="utf-8")
    origins = {folder / target: ROOT / source for source, target in PAGES.items() if target != "index.md"}
    for page in folder.rglob("*.md"):
        origin = origins.get(page, ROOT / "docs" / page.relative_to(folder))
        text = page.read_text(encoding="utf-8")
        relink = partial(_relink, origin=origin, page=page, folder=folder)
        page.write_text(LINK.sub(relink, text), encoding="utf-8")


def _relink(found: re.Match[str], origin: Path, page: Path, folder: Path) -> str:
    """Return what a link of a page becomes on the site; copy the file that it leads to where it is no page."""
    link = found.group(1)
    if "://" in link or link.startswith("mailto:"):
        return link
    target = Path(os.path.normpath(origin.parent / link))
    inside = target.relative_to(ROOT).as_posix()
    if inside in PAGES:
        place = folder / PAGES[inside]
    elif inside.startswith("docs/"):
        place = folder / target.relative_to(ROOT / "docs")
        place = place / "index.md" if target.is_dir() else place
    elif target.is_dir():
        place = folder / "files" / f"{inside}.md"
        names = sorted(path.name for path in target.iterdir() if not path.name.startswith(("__", ".")))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"# {inside}\n\n" + "\n".join(f"* `{name}`" for name in names) + "\n", encoding="utf-8")
    else:
        place = folder / "files" / inside
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target, place)
    return Path(os.path.relpath(place, page.parent)).as_posix()


def _list_decisions() -> str:
    """Return the page with all decision records."""
    lines = ["# Design decisions", "", "What was decided, and why.", ""]
    for path in sorted((ROOT / "docs" / "adr").glob("0*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"* [{title}]({path.name})")
    return "\n".join(lines) + "\n"


def _make_offline(page: Path) -> None:
    """Make a page of the site load its scripts and styles from the site itself.

    Raises:
        SystemExit: it would load something else from the network.
    """
    place = Path(os.path.relpath(BUILD / "site" / "offline" / "iframe-worker.js", page.parent)).as_posix()
    text = page.read_text(encoding="utf-8").replace(SHIM, place)
    page.write_text(text, encoding="utf-8")
    if loaded := re.findall(r"""(?:<script[^>]+src|<link[^>]+href|<img[^>]+src)=["']?(https?://[^"'> ]+)""", text):
        sys.exit(f"{page} loads {loaded[0]} from the network")


def main() -> None:
    stage(BUILD / "docs")
    shutil.rmtree(BUILD / "site", ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "zensical",
        "build",
        "--strict",
        "--clean",
        "--config-file",
        ROOT / "zensical.toml",
    ]
    paths = [str(ROOT / "docs"), *filter(None, [os.environ.get("PYTHONPATH")])]  # command_reference.py, of cli.md
    done = subprocess.run(command, cwd=ROOT, check=False, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)})
    if done.returncode:
        sys.exit(done.returncode)
    for page in (BUILD / "site").rglob("*.html"):
        _make_offline(page)
    print(f"open {BUILD / 'site' / 'index.html'}")


if __name__ == "__main__":
    main()
