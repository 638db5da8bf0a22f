"""Fuzz the readers of files, guided by coverage: ``make fuzz SECONDS=60`` for each. Findings end in an error.

``--executions 1000000 --out FILE`` goes on, in rounds of so many seconds for each reader, until the file has that many.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT.parent), str(ROOT), str(ROOT / "runtime")]
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

import atheris  # noqa: E402

with atheris.instrument_imports(include=["edgead", "zipfile"]):
    from readers import READERS

    import edgead.export.imports.anomalib
    import edgead.export.imports.third_party_onnx
    import edgead.train.donors
    import edgead.train.step_metrics  # noqa: F401  readers import these late
    from edgead.machine import describe_measurement

import worker  # noqa: E402

MEMORY_MIB, TIMEOUT = 3000, 10
"""libFuzzer's own limits, for what the readers' guards cannot see: a crash or a hang in compiled code."""
RESTARTS = 20
PACKAGES = ("atheris", "onnx", "torch", "av")


def fuzz(name: str, folder: Path, seconds: float, largest: int) -> dict[str, Any]:
    """Fuzz a reader with files of up to `largest` bytes; start again after what ended the process. Return the facts."""
    until, executions, coverage, ends, started = time.monotonic() + seconds, 0, 0, [], time.monotonic()
    while (left := until - time.monotonic()) > 1 and len(ends) < RESTARTS:
        options = [f"-max_total_time={max(1, round(left))}", f"-timeout={TIMEOUT}", f"-rss_limit_mb={MEMORY_MIB}"]
        options += [f"-max_len={largest}", "-print_final_stats=1", "-verbosity=1", "-reload=0"]
        with tempfile.TemporaryFile() as log:
            code = _in_a_child(name, folder / name, options, log.fileno())
            log.seek(0)
            text = log.read().decode(errors="replace")
        counts = [
            *map(int, re.findall(r"^#(\d+)\t", text, re.M)),
            *map(int, re.findall(r"executed_units: (\d+)", text)),
        ]
        executions += max(counts, default=0)
        coverage = max([coverage, *map(int, re.findall(r"\bft: (\d+)", text))])
        if code:
            reasons = [line for line in text.splitlines() if "ERROR: libFuzzer" in line or "Error" in line]
            ends.append((reasons or text.splitlines()[-1:] or [f"code {code}"])[-1].strip()[:200])
    texts = sorted(path.read_text().strip() for path in (folder / name / "findings").glob("*.txt"))
    facts = {"executions": executions, "seconds": round(time.monotonic() - started, 1), "features": coverage}
    return {**facts, "corpus": len([*(folder / name / "corpus").glob("*")]), "findings": texts, "ended_by": ends}


def _in_a_child(name: str, folder: Path, options: list[str], log: int) -> int:
    """Fuzz in a process of its own, which has imported everything already; return its exit code, or minus a signal."""
    gc.freeze()  # what is imported is no garbage: else each collection of the child looks through it again
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for number in (1, 2):
        os.dup2(log, number)
    try:
        worker.fuzz(READERS[name], folder, options)
    except SystemExit as end:
        os._exit(int(end.code or 0))
    except BaseException:
        traceback.print_exc()
    os._exit(99)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each reader (20)")
    parser.add_argument("--executions", type=int, default=0, help="of each reader: more rounds until --out has so many")
    parser.add_argument("--readers", nargs="*", choices=[*READERS], default=[*READERS], metavar="READER")
    parser.add_argument("--largest", type=int, default=1 << 16, help="bytes of a file; 4096 is several times as fast")
    parser.add_argument("--folder", type=Path, default=ROOT.parent / "build" / "fuzz", help="for corpus and findings")
    parser.add_argument("--out", type=Path, help="results file; executions are added up where it is there")
    given = parser.parse_args()
    record: dict[str, Any] = {"readers": {}}
    if given.out and given.out.exists():
        record = json.loads(given.out.read_text())
    readers: dict[str, Any] = record["readers"]
    due, stuck = list(given.readers), set[str]()
    while due:
        for name in due:
            found = fuzz(name, given.folder, given.seconds, given.largest)
            if not found["executions"]:
                stuck.add(name)
            readers[name] = _add(readers.get(name, {}), found)
            print(f"{name:12} {_describe(readers[name])}", flush=True)
            if given.out:
                _write(record, given.out)
        due = [name for name in due if name not in stuck and readers[name]["executions"] < given.executions]
    for name in sorted(stuck):
        print(f"{name}: not one execution in {given.seconds:g} s", file=sys.stderr)
    return int(bool(stuck) or any(readers[name]["findings"] or readers[name]["ended_by"] for name in given.readers))


def _add(before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the facts with the executions and the seconds of earlier rounds."""
    sums = {field: round(found[field] + before.get(field, 0), 1) for field in ("executions", "seconds")}
    return {**found, **sums, "ended_by": [*before.get("ended_by", []), *found["ended_by"]]}


def _describe(facts: dict[str, Any]) -> str:
    wrong = len(facts["findings"]) + len(facts["ended_by"])
    return f"{facts['executions']:>10,} executions  {facts['seconds']:>7.0f} s  {wrong} findings"


def _write(record: dict[str, Any], path: Path) -> None:
    record |= asdict(describe_measurement("tests/fuzz/campaign.py", *PACKAGES))
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    os.nice(10)
    sys.exit(main())
