"""Use a float32 and an INT8 bundle of every method on emulated 64-bit Arm machines: ``make aarch64``.

Each bundle is inspected, and decides on pictures; scores may differ from this machine's by the bundle's tolerance. Then
tests of the runtime that need no PyTorch run there. Ends with an error if something differs or fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT.parent), str(ROOT)]

import emulation  # noqa: E402
from small_bundles import make_bundles  # noqa: E402

from edgead.files import write_json  # noqa: E402
from edgead.machine import describe_measurement  # noqa: E402
from edgead.train.methods import METHODS  # noqa: E402

ON_ARM = Path(__file__).with_name("on_arm.py")
THERE = "/repository/tests"
TESTS = (
    "runtime/test_golden.py",
    "runtime/test_result.py",
    "runtime/test_rules.py",
    "runtime/test_inspector.py",
    "runtime/test_tiles.py",
    "runtime/test_device_resize.py",
    "test_decision.py",
    "geometry/test_geometry.py",
    "test_images.py",
)
"""The runtime's tests that need no PyTorch, but for those marked slow."""
GIVEN = "draem-fp32.edgead"
"""The bundle that they use, because they cannot train one there."""


def use_here(bundle: Path) -> dict[str, Any]:
    """Use a bundle on this machine."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    command = [sys.executable, str(ON_ARM), bundle.name]
    done = subprocess.run(command, cwd=bundle.parent, env=environment, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def use_there(bundle: Path, here: dict[str, Any], python: str, cpu: str) -> dict[str, Any]:
    """Use a bundle on an emulated machine and compare; ``good`` tells whether it agrees, ``why`` what failed."""
    started = time.monotonic()
    done = emulation.run(python, f"{THERE}/aarch64/on_arm.py", bundle.name, work=bundle.parent, cpu=cpu, timeout=3600)
    found: dict[str, Any] = {"seconds": round(time.monotonic() - started, 1)}
    if done.returncode:
        return {"good": False, "why": done.stderr.strip()[-1000:], **found}
    there = json.loads(done.stdout)
    golden, scores = there["golden"], there.pop("scores")
    difference = max(abs(one - other) for one, other in zip(scores, here["scores"]))
    good = (
        there["machine"] == "aarch64"
        and golden["good"]
        and len(scores) == len(here["scores"])
        and difference <= golden["tolerance"]
        and there["run"] == there["predict"]
        and not there["run"]["unknown"]
    )
    return {"good": good, "score_difference": difference, "spread": max(scores) - min(scores), **there, **found}


def run_tests(work: Path, python: str, cpu: str) -> dict[str, Any]:
    """Run the runtime's tests on an emulated machine."""
    started, files = time.monotonic(), [f"{THERE}/{name}" for name in TESTS]
    options = ("-p", "no:cacheprovider", "--tb=short", "-m", "not slow and not long")
    given = {"EDGEAD_TEST_BUNDLE": f"/work/{GIVEN}"}
    done = emulation.run(python, "-m", "pytest", *options, *files, work=work, cpu=cpu, timeout=7200, more=given)
    counts = {
        word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout[-300:])
    }
    found = {"good": done.returncode == 0, **counts, "seconds": round(time.monotonic() - started, 1)}
    return found if done.returncode == 0 else {**found, "why": (done.stdout + done.stderr)[-2000:]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", nargs="*", default=[*emulation.PYTHONS], help="versions")
    parser.add_argument("--cpu", nargs="*", default=[*emulation.CPUS], help="processors, as qemu names them")
    parser.add_argument("--method", nargs="*", default=[*METHODS], help="methods whose bundles are used")
    parser.add_argument("--folder", type=Path, default=ROOT.parent / "build" / "aarch64", help="for the bundles")
    parser.add_argument("--out", type=Path, help="results file; what was found before and is not repeated stays")
    given = parser.parse_args()
    try:
        for python in given.python:
            emulation.prepare(python)
    except emulation.NotHereError as error:
        print(f"skipped: {error}")
        return 0
    record: dict[str, Any] = {"bundles": {}, "tests": {}}
    if given.out and given.out.exists():
        record = json.loads(given.out.read_text())
    given.folder.mkdir(parents=True, exist_ok=True)
    emulation.install(given.folder)
    machines = [(python, cpu) for python in given.python for cpu in given.cpu]
    for bundle in make_bundles(given.folder, given.method):
        here = use_here(bundle)
        for python, cpu in machines:
            found = use_there(bundle, here, python, cpu)
            keep(record, given.out, "bundles", f"{bundle.stem}, Python {python}, {cpu}", found)
    if not (given.folder / GIVEN).exists():
        list(make_bundles(given.folder, [GIVEN.partition("-")[0]]))
    for python, cpu in machines:
        found = run_tests(given.folder, python, cpu)
        keep(record, given.out, "tests", f"Python {python}, {cpu}", found)
    return int(not all(each["good"] for kind in ("bundles", "tests") for each in record[kind].values()))


def keep(record: dict[str, Any], out: Path | None, kind: str, name: str, found: dict[str, Any]) -> None:
    """Print one result and write the results file."""
    print(f"{'ok  ' if found['good'] else 'FAIL'} {name}  {found['seconds']} s  {found.get('why', '')}", flush=True)
    record[kind][name] = found
    if out:
        write_json(out, {**record, **asdict(describe_measurement("tests/aarch64/every_method.py"))})


if __name__ == "__main__":
    os.nice(10)
    sys.exit(main())
