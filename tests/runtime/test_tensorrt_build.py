"""Building engines, for real, with NVIDIA's tensorrt-rtx on the CPU: graphs, errors, cancellation, the cache."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from running import Listener
from tensorrt_on_cpu import environment, make_shim, needs_rtx
from test_engines import odd_graph
from waiting import wait_until

from edgead.bundle import Bundle, read_bundle
from edgead.errors import BundleError, ConfigError, DeviceError
from edgead.files import file_lock
from edgead.home import config_folder
from edgead.machine import Gpu
from edgead.runtime.engines import Opening, tensorrt_engine
from edgead.runtime.engines.tensorrt_build import BuildRequest, BuildSettings, _read_timing_cache
from edgead.runtime.engines.tensorrt_cache import CachedPlan, find_plan
from edgead.runtime.engines.tensorrt_process import build_in_process
from edgead.runtime.engines.tensorrt_trtexec import trtexec_line
from edgead.signatures.seal import KEY, NotOursError, private_folder, read_sealed

pytestmark = needs_rtx
GPU = Gpu("Host", "8.7", "12.6 (none)")


@pytest.fixture
def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Processes that are started find tensorrt-rtx under TensorRT's name."""
    folder = make_shim(tmp_path / "shim")
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def opened(line_bundle: Path) -> Bundle:
    return read_bundle(line_bundle)


@pytest.fixture
def request_for(shim: Path, tmp_path: Path) -> Callable[..., BuildRequest]:
    def make(model: Path, size: tuple[int, int] = (64, 64), **changes: Any) -> BuildRequest:
        plan, timing = str(tmp_path / "engine.part"), str(tmp_path / "engine.timing")
        request = BuildRequest(str(model), size, (1,), plan, timing, BuildSettings())
        return dataclasses.replace(request, **changes)

    return make


def plan_of(bundle: Bundle, settings: BuildSettings | None = None, batches: tuple[int, ...] = (1,)) -> CachedPlan:
    import tensorrt_rtx

    return find_plan(bundle, tensorrt_rtx, GPU, settings or BuildSettings(), batches)


def test_progress_and_profiles(opened: Bundle, request_for: Callable[..., BuildRequest]) -> None:
    console = Listener()
    one = build_in_process(request_for(opened.model), console)
    assert one.strong is True
    assert one.precision == []
    steps = [match for text in console.shown if (match := re.fullmatch(r"Building engine (\d+)/(\d+)", text))]
    assert [int(match[1]) for match in steps] == list(range(int(steps[0][2])))
    request = request_for(opened.model, batches=(1, 4))
    two = build_in_process(request, Listener())
    assert two.bytes == Path(request.plan).stat().st_size > one.bytes


@pytest.mark.parametrize(("operator", "domain"), [("Swizzle", "com.acme"), ("StringNormalizer", "")])
def test_a_parser_error_names_operator_node_and_part(
    request_for: Callable[..., BuildRequest], tmp_path: Path, operator: str, domain: str
) -> None:
    odd_graph(tmp_path / "odd.onnx", operator, domain)
    with pytest.raises(BundleError) as caught:
        build_in_process(request_for(tmp_path / "odd.onnx"), Listener())
    where = f"operator {operator} (node '/gates.0/match/Odd', in gates.0.match): "
    assert where in str(caught.value)
    assert str(caught.value).startswith("TensorRT 1.")
    assert not (tmp_path / "engine.part").exists()


def test_what_the_builder_does_not_take_is_said(opened: Bundle, request_for: Callable[..., BuildRequest]) -> None:
    with pytest.raises(DeviceError, match=r"does not accept frames of shape|could not build"):
        build_in_process(request_for(opened.model, size=(32, 32)), Listener())
    with pytest.raises(ConfigError, match="supports only strongly typed networks"):
        build_in_process(request_for(opened.model, settings=BuildSettings(typing="weak")), Listener())
    with pytest.raises(ConfigError, match=r"finds 0 DLA cores here"):
        build_in_process(request_for(opened.model, settings=BuildSettings(dla=1)), Listener())


UNUSED = """
import json, sys, threading
out = sys.stdout
import edgead.runtime.engines.tensorrt_build as build

def build_plan(request, trt, report):
    report({"strong": False, "precision": ["int8", "fp16"]})
    report({"unused": ["fp16"]})
    return b"plan"

build.build_plan = build_plan
"""


def test_a_type_that_the_plan_does_not_use_is_said(
    opened: Bundle, request_for: Callable[..., BuildRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No TensorRT here is weakly typed, so its answer is given; the bindings' tests show how it is read."""
    program = "import runpy, sys\n" + UNUSED + "sys.argv[0] = 'x'\nbuild.main()\n"
    real = subprocess.Popen
    monkeypatch.setattr(
        "edgead.runtime.engines.tensorrt_process.subprocess.Popen",
        lambda command, **options: real([command[0], "-c", program, command[-1]], **options),
    )
    console = Listener()
    built = build_in_process(request_for(opened.model), console)
    assert (built.precision, built.unused) == (["int8", "fp16"], ["fp16"])
    assert console.said == ["TensorRT uses no fp16 in this engine: it found float32 faster everywhere."]


CRASHES = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"


def test_a_crash_of_the_builder_is_an_error(
    opened: Bundle, shim: Path, request_for: Callable[..., BuildRequest], tmp_path: Path
) -> None:
    (shim / "tensorrt.py").write_text(CRASHES)
    with pytest.raises(DeviceError, match="was ended by signal SIGSEGV without a plan"):
        build_in_process(request_for(opened.model), Listener())


def test_what_no_one_expected_of_the_builder_is_an_error_that_names_it(
    opened: Bundle, shim: Path, request_for: Callable[..., BuildRequest], capfd: pytest.CaptureFixture[str]
) -> None:
    (shim / "tensorrt.py").write_text("raise RuntimeError('the libraries\\n  are of two versions')")
    with pytest.raises(DeviceError) as caught:
        build_in_process(request_for(opened.model), Listener())
    assert str(caught.value) == "TensorRT's builder failed: RuntimeError: the libraries are of two versions."
    assert "Traceback" not in capfd.readouterr().err


def test_built_once_and_kept_with_what_it_depends_on(opened: Bundle, shim: Path, tmp_path: Path) -> None:
    console, plan = Listener(), plan_of(opened)
    first = plan.read(console)
    assert console.said[0].startswith("Building the TensorRT engine")
    assert re.fullmatch(rf"Built in \S+ s: {plan.path}", console.said[1])
    console = Listener()
    assert plan.read(console) == first
    assert console.said == []
    folder = tmp_path / "cache" / "edgead" / "tensorrt"
    kinds = sorted(path.suffix for path in folder.iterdir())
    assert kinds == [".json", ".lock", ".plan", ".timing"]
    note = json.loads(plan.note.read_text())
    assert note["model"] == opened.manifest.files["model.onnx"]
    assert (note["gpu"], note["capability"], note["driver"], note["batches"]) == ("Host", "8.7", "12.6 (none)", [1])
    assert note["trtexec"] == plan.build_command().replace(f"{opened.path}/", "")
    assert note["trtexec"].startswith("trtexec --onnx=model.onnx --saveEngine=model.plan ")


def test_a_plan_from_the_cache_is_built_by_trtexec_from_the_bundle_that_asks(opened: Bundle, shim: Path) -> None:
    before = Bundle(opened.path.with_name("gone"), opened.manifest)
    assert plan_of(before).path == plan_of(opened).path
    assert plan_of(opened).build_command() == ""
    plan_of(opened).read(Listener())
    assert shlex.split(plan_of(before).build_command())[1] == f"--onnx={before.path}/model.onnx"
    assert shlex.split(plan_of(opened).build_command())[1] == f"--onnx={opened.path}/model.onnx"
    plan_of(opened).note.write_text("{}")
    assert plan_of(opened).build_command() == ""


def test_a_damaged_entry_is_built_again(opened: Bundle, shim: Path) -> None:
    plan = plan_of(opened)
    first = plan.read(Listener())

    def folders() -> None:
        for path in (plan.path, plan.note, Path(plan.request.plan)):
            path.unlink(missing_ok=True)
            (path / "inside").mkdir(parents=True)

    damages: list[Callable[[], object]] = [
        lambda: plan.path.write_bytes(first[:-1]),
        lambda: plan.note.write_text("["),
        lambda: plan.path.unlink(),
        folders,
    ]
    for damage in damages:
        damage()
        console = Listener()
        assert len(plan.read(console)) == len(first)
        assert len(console.said) == 2
    assert plan.read(Listener()) == plan.path.read_bytes()


def test_whatever_a_plan_depends_on_gives_it_another_name(opened: Bundle) -> None:
    import tensorrt_rtx

    other = dataclasses.replace(opened.manifest, files={**opened.manifest.files, "model.onnx": "0" * 64})
    plans = [
        plan_of(opened),
        plan_of(Bundle(opened.path, other)),
        plan_of(opened, batches=(1, 4)),
        *(plan_of(opened, BuildSettings(**{k: v})) for k, v in {"opt_level": 5, "workspace": 64, "tf32": True}.items()),
        *(
            find_plan(opened, tensorrt_rtx, dataclasses.replace(GPU, **{field: "other"}), BuildSettings())
            for field in ("name", "capability", "driver")
        ),
    ]
    assert len({plan.path for plan in plans}) == len(plans)
    assert plan_of(opened).path == plan_of(opened, BuildSettings(typing="strong")).path  # what auto means here
    assert len({plan.request.timing_cache for plan in plans}) == 4


READS = """
import sys
import tensorrt as trt
from edgead.bundle import read_bundle
from edgead.console import Console
from edgead.machine import Gpu
from edgead.runtime.engines.tensorrt_build import BuildSettings
from edgead.runtime.engines.tensorrt_cache import find_plan
from contextlib import contextmanager

class Printer(Console):
    def say(self, text):
        print(text, flush=True)

    @contextmanager
    def clock(self, label):
        yield lambda text: print(text, flush=True)

plan = find_plan(read_bundle(sys.argv[1]), trt, Gpu("Host", "8.7", "12.6 (none)"), BuildSettings())
try:
    print("read", len(plan.read(Printer())), flush=True)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def start(line_bundle: Path, shim: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", READS, str(line_bundle)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(shim),
        **options,
    )


def left(tmp_path: Path) -> list[str]:
    """What lies in the cache beside locks."""
    folder = tmp_path / "cache" / "edgead" / "tensorrt"
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_of_two_processes_one_builds_and_the_other_waits(line_bundle: Path, shim: Path) -> None:
    processes = [start(line_bundle, shim) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    texts = sorted((output for output, _ in outputs), key=lambda text: "Waiting" in text)
    assert "Building the TensorRT engine" in texts[0]
    assert texts[1].startswith("Another process is building this engine. Waiting for it.\nread ")
    assert texts[1].splitlines()[-1] == texts[0].splitlines()[-1]


def test_a_plan_that_does_not_load_is_left_to_the_process_that_builds(
    opened: Bundle, shim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process found out the same and is at it; what it makes loads."""
    import tensorrt_rtx

    plan = plan_of(opened)
    old, part = plan.read(Listener()), Path(plan.request.plan)
    part.write_bytes(b"half of the new one")
    other = contextlib.ExitStack()
    other.enter_context(file_lock(plan.path.with_suffix(".lock"), lambda: None))

    class Other(Listener):
        """Hears that it is waited for, and ends."""

        def say(self, text: str) -> None:
            super().say(text)
            if "Waiting" in text:
                assert part.read_bytes() == b"half of the new one"
                assert plan.path.read_bytes() == old
                part.unlink()
                plan.path.write_bytes(b"new")
                plan.write_note({})
                other.close()

    def start(loaded: bytes, *_: Any) -> SimpleNamespace:
        if loaded == old:
            raise tensorrt_engine._UnloadableError("It does not load.")
        return SimpleNamespace(plan=loaded)

    monkeypatch.setattr(tensorrt_engine, "find_tensorrt", lambda: (GPU, tensorrt_rtx))
    monkeypatch.setattr(tensorrt_engine, "_start", start)
    console = Other()
    engine: Any = tensorrt_engine.open_tensorrt(opened, Opening(1, tensorrt_engine.TensorRtSettings(), console))
    assert engine.plan == b"new"
    assert console.said == [
        "The cached engine cannot be loaded. It is built again.",
        "Another process is building this engine. Waiting for it.",
    ]


def first_phase(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Building engine"):
            return
    raise AssertionError("no phase was reported")


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_process_takes_its_builder_along_and_blocks_no_one(
    opened: Bundle, line_bundle: Path, shim: Path, tmp_path: Path
) -> None:
    process = start(line_bundle, shim)
    first_phase(process)
    builders = children(process)
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: not any(is_running(pid) for pid in builders))
    plan = plan_of(opened)
    Path(plan.request.plan).write_bytes(b"what a killed builder may leave")
    plan.read(Listener())
    assert sorted(Path(name).suffix for name in left(tmp_path)) == [".json", ".plan", ".timing"]


def test_a_full_disk_is_said_and_leaves_nothing(line_bundle: Path, shim: Path, tmp_path: Path) -> None:
    """No file may grow beyond a few kilobytes: the system's own refusal, as on a full disk or quota."""
    process = start(line_bundle, shim, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.match(r"DeviceError: The engine could not be written to \S+: File too large\.\nFree some space", errors)
    assert [name for name in left(tmp_path) if not name.endswith(".timing")] == []


def test_a_plan_is_good_without_the_timing_cache(opened: Bundle, shim: Path) -> None:
    plan, console = plan_of(opened), Listener()
    timing = Path(plan.request.timing_cache)
    timing.mkdir(parents=True)
    assert plan.read(console) == plan.path.read_bytes()
    assert f"The timing cache {timing} could not be written: Is a directory. Continuing." in console.said
    assert json.loads(plan.note.read_text()).keys() & {"unkept", "error"} == set()
    assert sorted(path.suffix for path in timing.parent.iterdir()) == [".json", ".lock", ".plan", ".timing"]


def test_a_whole_plan_needs_no_lock(opened: Bundle, shim: Path) -> None:
    """As in a folder that is read-only. A folder in the lock's place refuses root too, who writes everywhere."""
    plan = plan_of(opened)
    first = plan.read(Listener())
    lock = plan.path.with_suffix(".lock")
    lock.unlink()
    lock.mkdir()
    console = Listener()
    assert plan.read(console) == first
    assert console.said == []


def test_what_is_in_the_way_of_the_cache_is_named(opened: Bundle, shim: Path) -> None:
    lock = plan_of(opened).path.with_suffix(".lock")
    lock.mkdir(parents=True)
    with pytest.raises(DeviceError) as caught:
        plan_of(opened).read(Listener())
    assert str(caught.value) == (
        f"The engine could not be written to {lock.parent}: Is a directory.\n"
        f"Check {lock}, or choose another folder with the environment variable XDG_CACHE_HOME."
    )


def test_a_cache_that_cannot_be_made_is_said(opened: Bundle, shim: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DeviceError, match=r"(?s)could not be written.*XDG_CACHE_HOME"):
        plan_of(opened).read(Listener())


def test_the_trtexec_line_of_each_version() -> None:
    request = BuildRequest("m.onnx", (64, 96), (1,), "k.part", "t", BuildSettings(opt_level=4, workspace=256))
    shapes = " ".join(f"--{which}Shapes=frames:1x64x96x3" for which in ("min", "opt", "max"))
    common = f"trtexec --onnx=m.onnx --saveEngine=m.plan {shapes} --memPoolSize=workspace:256"
    common += " --builderOptimizationLevel=4"
    assert trtexec_line(request, "11.4.0", True) == f"{common} --noTF32 --skipInference"
    assert trtexec_line(request, "10.16.1", True) == f"{common} --stronglyTyped --noTF32 --skipInference"
    weak = trtexec_line(request, "8.6.2", False, ["int8", "fp16"])
    assert weak == f"{common} --int8 --fp16 --noTF32 --skipInference  # float32 layers may become float16"
    assert trtexec_line(request, "8.6.2", False, ["int8"]) == f"{common} --int8 --noTF32 --skipInference"
    dla = dataclasses.replace(request, batches=(1, 4), settings=BuildSettings(dla=0, tf32=True))
    line = trtexec_line(dla, "10.3.0", False, ["fp16"])
    assert "--profile=1 --minShapes=frames:4x64x96x3" in line
    assert "--useDLACore=0 --allowGPUFallback --skipInference" in line
    assert "--noTF32" not in line
    assert "--useDLACore=0 --allowGPUFallback --adjustForDLA --skipInference" in trtexec_line(dla, "11.4.1", True)
    assert trtexec_line(dla, "8.6.2", False, ["fp16"]) == ""  # its trtexec makes one profile
    spaced = trtexec_line(dataclasses.replace(request, model="/data/line 2/$m.onnx"), "11.4.0", True)
    assert spaced.startswith(
        "trtexec '--onnx=/data/line 2/$m.onnx' '--saveEngine=$m.plan' --minShapes=frames:1x64x96x3 "
    )
    assert shlex.split(spaced)[1] == "--onnx=/data/line 2/$m.onnx"


def folder_for_all(plan: CachedPlan) -> None:
    plan.path.parent.chmod(0o777)


def by_another_key(plan: CachedPlan) -> None:
    """A whole plan, with a whole note, that somebody else has built: what a cache's thief would leave."""
    (config_folder() / KEY).unlink()  # type: ignore[operator]
    plan.path.write_bytes(b"machine code")
    plan.write_note({"strong": True, "precision": []})
    (config_folder() / KEY).unlink()  # type: ignore[operator]


def of_another_bundle(plan: CachedPlan) -> None:
    """This user's own, under the name of another plan."""
    other = dataclasses.replace(plan, path=plan.path.with_name("0" * 32 + ".plan"))
    other.path.write_bytes(b"machine code")
    other.write_note({"strong": True, "precision": []})
    plan.path.write_bytes(other.path.read_bytes())
    plan.note.write_bytes(other.note.read_bytes())


def unsealed(plan: CachedPlan) -> None:
    """As older versions wrote them."""
    note = json.loads(plan.note.read_text())
    del note["seal"]
    plan.note.write_text(json.dumps(note))


def linked(plan: CachedPlan) -> None:
    elsewhere = plan.path.parents[2] / "elsewhere"
    plan.path.rename(elsewhere)
    plan.path.symlink_to(elsewhere)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: plan.path.chmod(0o602), "can be changed by others: it has the mode 602"),
        (lambda plan: plan.note.chmod(0o620), "can be changed by others: it has the mode 620"),
        (folder_for_all, "can be changed by others: its folder has the mode 777"),
        (by_another_key, "has no seal of this user"),
        (of_another_bundle, "has no seal of this user"),
        (unsealed, "has no seal of this user"),
        (linked, "is a link"),
        pytest.param(
            lambda plan: os.chown(plan.path, 12345, 12345),
            "is not this user's: it belongs to another one",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"),
        ),
    ],
)
def test_a_plan_that_is_not_ours_is_not_loaded(
    opened: Bundle, tmp_path: Path, change: Callable[[CachedPlan], object], said: str
) -> None:
    plan = plan_of(opened)
    private_folder(plan.path.parent)
    plan.path.write_bytes(b"built here")
    plan.write_note({"strong": True, "precision": []})
    assert plan._load(b"") == b"built here"
    change(plan)
    with pytest.raises(NotOursError) as refused:
        plan._load(b"")
    assert str(refused.value) == said


def test_a_plan_that_is_not_ours_is_built_again(opened: Bundle, shim: Path) -> None:
    """An engine in a folder that others can write is not loaded; the new one is private, and loads without a word."""
    plan, console = plan_of(opened), Listener()
    plan.path.parent.mkdir(parents=True)
    plan.path.write_bytes(b"machine code")
    plan.write_note({"strong": True, "precision": []})
    plan.path.parent.chmod(0o777)
    assert len(plan.read(console)) > 1000
    shown = f"The cached engine {plan.path} can be changed by others: its folder has the mode 777."
    assert console.said[0] == f"{shown} edgead ignores it and builds the engine again."
    assert console.said[1].startswith("Building the TensorRT engine")
    console = Listener()
    assert plan.read(console) == plan.path.read_bytes()
    assert console.said == []
    assert (plan.path.parent.stat().st_mode & 0o777, plan.path.stat().st_mode & 0o777) == (0o700, 0o600)
    timing = Path(plan.request.timing_cache)
    assert read_sealed(timing) != b""
    taken: list[bytes] = []
    config: Any = SimpleNamespace(
        create_timing_cache=lambda data: taken.append(data) or "cache", set_timing_cache=lambda *_: True
    )
    for change in (
        lambda: timing.write_bytes(timing.read_bytes()[:-1] + b"x"),
        lambda: timing.chmod(0o666),
        lambda: timing.write_bytes(b"timings as older versions wrote them"),
    ):
        change()
        _read_timing_cache(config, timing)
        assert taken.pop() == b""


def test_a_plan_of_ones_own_is_not_loaded_beside_signed_bundles(
    opened: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_engine, "find_tensorrt", lambda: (GPU, None))
    signed = dataclasses.replace(opened, signer="0123456789abcdef")
    settings = tensorrt_engine.TensorRtSettings(plan=str(tmp_path / "x.plan"))
    with pytest.raises(ConfigError, match=r"x\.plan has no signature"):
        tensorrt_engine.open_tensorrt(signed, Opening(1, settings, Listener()))
