"""`edgead report`: build the page of a run, bundle, benchmark or sweep, or a comparison of several results."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

from edgead.bundle import MANIFEST, read_bundle
from edgead.errors import ConfigError, DataError
from edgead.files import write_text
from edgead.reports.benchmark_page import benchmark_page, is_benchmark
from edgead.reports.comparison import Comparison, compare
from edgead.reports.distillation_page import distillation_page
from edgead.reports.export_page import export_page, report_folder, write_export_results
from edgead.reports.page import PAGE, RESULTS, read_results, write_page
from edgead.reports.pictures import read_pictures
from edgead.reports.training_page import CONFIG, is_run, training_page

PICTURE = "pareto.svg"
KNOWN = (
    "Give the folder of a training run, a bundle, a benchmark or a sweep, or one or more results.json of benchmarks, "
    "sweeps and peers."
)


def build_report(path: str | Path) -> Path:
    """Build the page of one folder from its files; return its path.

    A run, a benchmark and a sweep have it in their folder, a bundle beside it in ``NAME.report``.

    Raises:
        DataError: the folder is none of these, or a file is damaged.
        MissingDependencyError: jinja2 is not installed.
    """
    folder = Path(path)
    if (folder / MANIFEST).is_file():
        folder = _bundle_report(folder)
    if is_run(folder):
        text = _readable(folder / CONFIG, lambda: training_page(folder, read_pictures(folder)))
    elif (folder / RESULTS).is_file():
        text = _results_page(folder)
    else:
        raise DataError(f"There is nothing to report on in {folder}.\n{KNOWN}")
    return write_page(folder / PAGE, text)


def _bundle_report(path: Path) -> Path:
    """Return the folder of a bundle's report; its results are written from the bundle where they are not there."""
    bundle, folder = read_bundle(path), report_folder(path.resolve())
    stored = read_results(folder / RESULTS).get("manifest") if (folder / RESULTS).is_file() else None
    if isinstance(stored, dict) and stored.get("digest") == bundle.manifest.digest:
        return folder
    return write_export_results(bundle)


def _results_page(folder: Path) -> str:
    stored, path = read_results(folder / RESULTS), folder / RESULTS
    if stored.get("kind") == "export":
        return _readable(path, lambda: export_page(folder, read_pictures(folder)))
    if stored.get("kind") == "distillation":
        return _readable(path, lambda: distillation_page(folder, read_pictures(folder)))
    if is_benchmark(stored):
        return _readable(path, lambda: benchmark_page(stored, read_pictures(folder), path))
    comparison = compare([folder])
    write_text(folder / PICTURE, comparison.picture())
    return comparison.page()


def _readable(path: Path, page: Callable[[], str]) -> str:
    """Return a page; a value of an unexpected type or form makes the file damaged."""
    try:
        return page()
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise DataError(f"{path} cannot be read: {type(error).__name__}: {error}.") from error


def report(paths: Sequence[str | Path], *, out: str | Path | None = None, open_page: bool = False) -> Path:
    """Build a page and return its path: that of one folder, or a comparison of several folders and results files.

    Args:
        paths: one folder for its own page; several folders, or files, for a comparison of latency and accuracy.
        out: file of a comparison's page, ``report.html`` by default; the picture ``pareto.svg`` is written beside it.
        open_page: show the page in the browser.

    Raises:
        ConfigError: `out` for the page of one folder, or a file that is no page, such as the results themselves.
        DataError: a path is not one of these, or a file is damaged.
        MissingDependencyError: jinja2 is not installed.
    """
    chosen = [Path(path) for path in paths]
    absent = [path for path in chosen if not path.exists()]
    if absent or not chosen:
        raise DataError(f"{absent[0] if absent else 'No path'} does not exist.\n{KNOWN}")
    if len(chosen) == 1 and chosen[0].is_dir():
        if out is not None:
            raise ConfigError("--out is for a comparison of several results. The page of one folder is kept in it.")
        page = build_report(chosen[0])
    else:
        page = Path(out or PAGE)
        _refuse_other_file(page)
        write_comparison(compare(chosen), page)
    if open_page:
        webbrowser.open(page.resolve().as_uri())
    return page


def _refuse_other_file(page: Path) -> None:
    if page.is_file():
        with page.open("rb") as stream:
            is_page = stream.read(15).lower() == b"<!doctype html>"
        if not is_page:
            raise ConfigError(
                f"{page} exists already, is not an HTML page and was kept. Choose another file with --out."
            )


def write_comparison(comparison: Comparison, page: Path) -> Path:
    """Write a comparison's page, and its picture beside it; return the page's path."""
    write_text(page.with_name(PICTURE), comparison.picture())
    return write_page(page, comparison.page())
