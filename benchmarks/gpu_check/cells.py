"""Run cells of a sweep file one after another, without Ray: for a GPU machine on which Ray is not installed.

    python benchmarks/gpu_check/cells.py benchmarks/gpu_proof.toml --out DIR [--label TEXT] [--category NAME]

Options that may be repeated choose the cells; only their data has to be there. Each cell is trained in a process with
the machine's own packages. Export and benchmark run in another one, as soon as onnxruntime-gpu is there: see `SITE`.
DIR is the store of a sweep: the same call resumes. DIR/LABEL-CATEGORY-SEED.json holds the results of a cell.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from check import environment
from common import ROOT, SITE

if TYPE_CHECKING:
    from edgead.sweep.cell import Cell

STAGES = {"train": False, "measure": True}
"""Stage ↦ whether it runs on the packages in `SITE`."""


def choose(given: argparse.Namespace) -> list[Cell]:
    """Return the cells whose label and category were named; all where none was."""
    from edgead.sweep.cell import make_cells
    from edgead.sweep.file import read_sweep_file

    entries = []
    for entry in read_sweep_file(given.file):
        wanted = tuple(name for name in entry.categories if not given.category or name in given.category)
        if wanted and (not given.label or entry.label in given.label):
            entries.append(dataclasses.replace(entry, categories=wanted))
    return make_cells(entries)


def run_stage(given: argparse.Namespace, cell: Cell) -> None:
    """Run one stage of a cell in this process."""
    from edgead.sweep.worker import work

    precisions = cell.precisions if given.stage == "measure" else ()
    work(dataclasses.replace(cell, precisions=precisions), given.out, given.workers)


def keep_results(given: argparse.Namespace, cell: Cell) -> bool:
    """Copy the results of a cell to where they are easily found. Return whether it has any."""
    from edgead.sweep.store import Store

    name = re.sub(r"[^a-z0-9_]+", "-", f"{cell.label}-{cell.training.category}-{cell.training.seed}".lower())
    store = Store(given.out)
    shutil.copy(store.folder(cell) / "log.txt", given.out / f"{name}.log")
    [precision] = cell.precisions
    results = store.report(cell, precision) / "results.json"
    if results.is_file():
        shutil.copy(results, given.out / f"{name}.json")
    return results.is_file()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="sweep file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the store and the results")
    parser.add_argument("--label", action="append", help="label of cells to run")
    parser.add_argument("--category", action="append", help="category of cells to run")
    parser.add_argument("--workers", type=int, default=4, help="processes that prepare examples, for each cell")
    parser.add_argument("--wait", type=Path, help="file that appears when onnxruntime-gpu is there")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)  # in the stage's own process
    parser.add_argument("--key", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.out = given.out.resolve()
    sys.path.insert(0, str(ROOT))
    cells = choose(given)
    if given.stage:
        [cell] = [each for each in cells if each.key == given.key]
        run_stage(given, cell)
        return 0
    if not cells:
        parser.error("no cell of the file has this label and category")
    whole = True
    for cell in cells:
        for stage, packed in STAGES.items():
            while packed and given.wait and not given.wait.exists():
                time.sleep(0.5)
            command = [sys.executable, __file__, *sys.argv[1:], "--stage", stage, "--key", cell.key]
            subprocess.run(command, env=environment(packed=packed and SITE.is_dir()), check=False)
        done = keep_results(given, cell)
        whole &= done
        print(f"{cell.title}: {'done' if done else 'FAILED, see its log'}", flush=True)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
