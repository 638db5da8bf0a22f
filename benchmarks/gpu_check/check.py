"""Check edgead on a real GPU. Results as JSON.

    python benchmarks/gpu_check/check.py --out DIR [--data DIR] [--weights FILE] [--textures DIR] STEP …

Every step runs in a process of its own with a time limit, so that a crash or a hang costs one step only:

    machine    GPU, driver, packages, the output of `edgead doctor`
    ceilings   memory bandwidth and matrix products: what latencies are compared with
    cuda       edgead.runtime.engines.cuda: copies, CUDA graphs, failed recordings, threads, leaks, use beside torch
    graphs     makes graphs of all methods with random weights in every precision, on the CPU, for ort and rtx
    train      the first steps of every method: losses on the GPU against the CPU, then bf16 and fp16
    ort        OnnxRuntimeCudaEngine on the graphs: outputs against the CPU, CUDA graphs, threads, latency
    pipeline   edgead train, export in three precisions, doctor --build --engine onnxruntime-cuda
    rtx        the TensorRT builder and engine on the graphs, with tensorrt-rtx in place of TensorRT
    torch      the same networks in torch as a CUDA graph
    accuracy   trains DRAEM for --seconds, exports and benchmarks it, and keeps the weights

DIR/gpu_check.json holds the results with the name of the device, and DIR/gpu_check.log what the steps wrote to stderr.
A later call adds its steps to them.
With --cpu every step does what is possible without a GPU; this tests the scripts, not the GPU code.
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import importlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import HERE, ROOT, SITE, WORK, Options


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        function: ``module:function``, called with the `Options`.
        limit: seconds after which the step is ended.
        packed: whether it runs on the packages in `SITE` rather than on the machine's own.
    """

    function: str
    limit: int
    packed: bool = False


RESULTS = "gpu_check.json"
STEPS = {
    "machine": Step("hardware:machine", 15),
    "ceilings": Step("hardware:ceilings", 15),
    "cuda": Step("cuda_calls:cuda", 40),
    "graphs": Step("graphs:graphs", 100),
    "train": Step("training:first_steps", 80),
    "ort": Step("ort:ort", 110, packed=True),
    "pipeline": Step("training:pipeline", 70),
    "rtx": Step("rtx:rtx", 90, packed=True),
    "torch": Step("torch_baseline:torch_baseline", 50),
    "accuracy": Step("accuracy:accuracy", 150),  # and --seconds
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--data", type=Path, help="folder of one category (default: drawn sample parts)")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of squeezenet1_1, for train (default: download)")
    parser.add_argument("--textures", type=Path, help="folder of texture pictures, for accuracy (default: procedural)")
    parser.add_argument("--seconds", type=float, default=240, help="training time of accuracy (default: 240)")
    parser.add_argument("--batch", type=int, default=8, help="batch size of accuracy (default: 8, as published)")
    parser.add_argument("--limit", type=int, help="seconds for each step, in place of its own limit")
    parser.add_argument("--cpu", action="store_true", help="test the scripts on a machine without a GPU")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)  # in the step's own process
    given = vars(parser.parse_args())
    names, limit, step = given.pop("steps"), given.pop("limit"), given.pop("step")
    options = Options(**given)
    if step:
        module, _, function = STEPS[step].function.partition(":")
        getattr(importlib.import_module(module), function)(options)
        return 0
    if unknown := sorted(set(names) - set(STEPS)):
        parser.error(f"Unknown step: {', '.join(unknown)}. Available: {', '.join(STEPS)}")
    if not names:
        parser.error(f"Name at least one step. Available: {', '.join(STEPS)}")
    return run_all(names, options, limit)


def run_all(names: list[str], options: Options, limit: int | None) -> int:
    """Run the steps and write gpu_check.json after every result. Return 1 if a step did not end by itself."""
    sys.path.insert(0, str(ROOT))
    from edgead.machine import describe_machine, gpu_or_none, versions

    options.out.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    results: dict[str, Any] = {
        "device": machine.accelerator or gpu_or_none(),  # nvidia-smi does not know a Jetson
        "machine": dataclasses.asdict(machine),
        "versions": versions(),
        "cpu_test": options.cpu,
        "steps": {},
    }
    with suppress(FileNotFoundError):  # an earlier call on this device
        before = json.loads((options.out / RESULTS).read_text(encoding="utf-8"))
        if (before["device"], before["cpu_test"]) == (results["device"], options.cpu):
            results["steps"] = before["steps"]
    sound = True
    with (options.out / "gpu_check.log").open("a", encoding="utf-8") as log:
        for name in names:
            seconds = limit or round(STEPS[name].limit + (options.seconds if name == "accuracy" else 0))
            entry = {"seconds": 0.0, "ended": "running", "results": []}
            results["steps"][name] = entry
            run_step(name, options, seconds, results, entry, log)
            write(options.out, results)
            failed = [each for each in entry["results"] if not each["ok"]]  # type: ignore[attr-defined]
            counts = f"{len(entry['results'])} results, {len(failed)} not ok"  # type: ignore[arg-type]
            print(f"{name:9} {entry['seconds']:6} s  {entry['ended']}; {counts}", flush=True)
            for each in failed[:6]:
                print("          ", json.dumps(each)[:230])
            if entry["ended"] != "by itself":
                sound = False
                tail = Path(log.name).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
                print("          ", " / ".join(tail)[:400])
    return 0 if sound else 1


def run_step(name: str, options: Options, limit: int, results: dict[str, Any], entry: dict[str, Any], log: Any) -> None:
    """Run one step in a process and collect its result lines in `entry`."""
    command = [sys.executable, str(HERE / "check.py"), "--step", name]
    for option, value in vars(options).items():
        if option != "cpu" and value is not None:
            command += [f"--{option}", str(value)]
    command += ["--cpu"] if options.cpu else []
    print(f"--- {name}", file=log, flush=True)
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=step_environment(name, options),
        start_new_session=True,
    )
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit, stop)
    timer.start()
    assert process.stdout is not None
    for line in process.stdout:
        try:
            entry["results"].append({"ok": True, **json.loads(line)})
        except (ValueError, TypeError):  # a library's message
            print(line.rstrip(), file=log, flush=True)
            continue
        entry["seconds"] = round(time.monotonic() - started, 1)
        write(options.out, results)
    code = process.wait()
    timer.cancel()
    entry["seconds"] = round(time.monotonic() - started, 1)
    entry["ended"] = (
        f"stopped after {limit} s" if stopped.is_set() else f"with exit code {code}" if code else "by itself"
    )


def write(folder: Path, results: dict[str, Any]) -> None:
    (folder / RESULTS).write_text(json.dumps(results, indent=1), encoding="utf-8")


def step_environment(name: str, options: Options) -> dict[str, str]:
    """Return the environment of a step's process."""
    first, libraries = [], []
    if name == "rtx":
        from rtx import write_shim

        first.append(str(write_shim()))
    if options.cpu and name in ("machine", "cuda", "ort"):
        libraries.append(str(compile_host_cuda()))
    found = environment(STEPS[name].packed and SITE.is_dir(), first, libraries)
    return {**found, "EDGEAD_TEST_EAGER": "1"} if options.cpu else found  # the CPU's kernels use no streams


def environment(packed: bool, first: Sequence[str] = (), libraries: Sequence[str] = ()) -> dict[str, str]:
    """Return the environment of a process that imports edgead from this checkout.

    Args:
        packed: whether it takes the packages in `SITE` rather than the machine's own.
        first: folders of modules that come before the checkout.
        libraries: folders of libraries that come before CUDA's.
    """
    paths = [*([str(SITE)] if packed else []), *first, str(ROOT), *metadata_folder(), os.environ.get("PYTHONPATH", "")]
    folders = [*libraries, *cuda_folders(), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders)),
        "XDG_CACHE_HOME": str(WORK / "cache"),
        "PYTHONUNBUFFERED": "1",
        "EDGEAD_GPU_FOLDER": str(WORK),
    }


def cuda_folders() -> list[str]:
    """Return the folders of CUDA libraries that pip installed with torch; onnxruntime-gpu needs them too."""
    roots = [Path(path, "nvidia") for path in sys.path]
    return sorted({str(Path(file).parent) for root in roots for file in glob.glob(f"{root}/*/lib/*.so*")})


def metadata_folder() -> list[str]:
    """Return a folder with edgead's metadata where it is not installed: `edgead train` reads its version."""
    try:
        importlib.metadata.version("edgead")
        return []
    except importlib.metadata.PackageNotFoundError:
        source = (ROOT / "edgead" / "__init__.py").read_text(encoding="utf-8")
        version = re.findall(r'__version__ = "(.+)"', source)[0]
        folder = WORK / "metadata" / f"edgead-{version}.dist-info"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: edgead\nVersion: {version}\n", encoding="utf-8")
        return [str(folder.parent)]


def compile_host_cuda() -> Path:
    """Compile the tests' stand-in for the CUDA libraries, which runs on the CPU."""
    folder = WORK / "host_cuda"
    folder.mkdir(parents=True, exist_ok=True)
    driver, runtime = folder / "libcuda.so.1", folder / "libcudart.so.13"
    source = str(ROOT / "tests" / "cuda_on_host.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-pthread", "-o", str(driver), source], check=True)
    runtime.unlink(missing_ok=True)
    runtime.symlink_to(driver.name)  # driver and runtime share their state
    return folder


if __name__ == "__main__":
    sys.exit(main())
