"""Write the table of what was measured on GPUs into benchmarks/README.md.

    python benchmarks/gpu_check/table.py

It reads ``benchmarks/results/gpu-check-*.json``, files that check.py wrote, and replaces what is between the page's two
markers. Each file is a column, under the device's name.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from check import STEPS
from common import ROOT
from graphs import GRAPHS

RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "benchmarks" / "README.md"
BEGIN, END = "<!-- begin: gpu_check/table.py -->", "<!-- end: gpu_check/table.py -->"
MISSING = "not measured"
ENGINES = {
    "ONNX Runtime": ("ort", "{name} fp16, CUDA graph"),
    "TensorRT-RTX": ("rtx", "{name} fp16, CUDA graph"),
    "torch": ("torch", "{name}, fp16"),
}
"""What ran a network ↦ step, and the result with its latency."""

Device = dict[str, Any]
"""What check.py wrote on one device."""


def read_devices(folder: Path) -> list[Device]:
    """Read all files, sorted by name."""
    devices: list[Device] = [json.loads(path.read_text()) for path in sorted(folder.glob("gpu-check-*.json"))]
    if any(device["cpu_test"] for device in devices):
        raise SystemExit(f"{folder} holds results of --cpu, which measure no GPU. Remove them.")
    return devices


def result(device: Device, step: str, what: str) -> dict[str, Any]:
    """Return one result of a step; an empty one where there is none."""
    results = device["steps"].get(step, {}).get("results", [])
    return next((each for each in results if each.get("what") == what), {})


def summary(device: Device, step: str) -> str:
    """Say how a step went: ``7 of 7 ok``."""
    if step not in device["steps"]:
        return MISSING
    entry = device["steps"][step]
    good = sum(each["ok"] for each in entry["results"])
    ended = "" if entry["ended"] == "by itself" else f", {entry['ended']}"
    return f"{good} of {len(entry['results'])} ok{ended}"


def latencies(device: Device, name: str) -> str:
    """Return a network's median on each engine in milliseconds: ``1.23 / 1.10 / failed``."""
    found = [result(device, step, what.format(name=name)) for step, what in ENGINES.values()]
    if not any(found):
        return MISSING
    return " / ".join((f"{each['ms']['p50']:.2f}" if each["ok"] else "failed") if each else "–" for each in found)


def trained(device: Device) -> str:
    """Return three metrics and the share of the published steps that they took."""
    training, found = result(device, "accuracy", "training"), result(device, "accuracy", "evaluation")
    if not found.get("ok"):
        return "failed" if training else MISSING
    names = ("image_auroc", "pixel_auroc", "aupro")
    figures = " / ".join("–" if found[name] is None else f"{100 * found[name]:.1f}" for name in names)
    return f"{figures} on {found['category']}, {training['share_of_published_steps']:.1%} of the steps"


def rows() -> Iterator[tuple[str, Callable[[Device], str]]]:
    """Yield the title of each row and what makes its cell."""
    for step in STEPS:
        yield f"step `{step}`", partial(summary, step=step)
    for name in GRAPHS:
        yield f"{name}, fp16: {' / '.join(ENGINES)}, ms", partial(latencies, name=name)
    yield "DRAEM `edge`: image AUROC / pixel AUROC / AUPRO, %", trained


def render(devices: list[Device]) -> str:
    """Return the table in Markdown. Without a device every cell says that it was not measured."""
    titles = [device["device"].replace("\n", "; ") for device in devices] or ["GPU"]
    columns: list[Device] = devices or [{"steps": {}}]
    lines = [["what", *titles], ["---"] * (1 + len(columns))]
    lines += [[title, *(cell(device) for device in columns)] for title, cell in rows()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of gpu-check-NAME.json")
    parser.add_argument("--page", type=Path, default=PAGE, help="page with the markers")
    given = parser.parse_args()
    before, _, rest = given.page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    table = render(read_devices(given.results))
    given.page.write_text(f"{before}{BEGIN}\n\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
