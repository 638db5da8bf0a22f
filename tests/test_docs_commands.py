"""Every command and program of the documentation runs, page by page; what cannot is listed with its reason."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from command_line import inside
from level_bundle import frame_of, make_level_bundle
from page_steps import PAGES, ROOT, Page, absent, check_unrun, follow, free_port, name_of, steps
from page_ways import ELSEWHERE, TRAINING, WAYS
from tiny import TINY

from edgead import doctor
from edgead.console import Console
from edgead.images import encode_png, read_image

TEXTS = {str(path.relative_to(ROOT)).removeprefix("docs/"): path.read_text(encoding="utf-8") for path in PAGES}
WITH_STEPS = [name for name, text in TEXTS.items() if any(kind != "shown" for kind, _ in steps(text))]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, parts: Path) -> Path:
    """A folder with what readers have, under the names of the pages: bundles, pictures and rejects."""
    folder = tmp_path_factory.mktemp("shelf")
    for name in ("bottle", "bottle-int8", "other", "new", "bundles/bottle", "bundles/cap"):
        make_level_bundle(folder / f"{name}.edgead")
    for name, grey in (("a", 100), ("b", 200), ("c", 120), ("d", 240)):
        (folder / "images").mkdir(exist_ok=True)
        (folder / "images" / f"{name}.png").write_bytes(encode_png(frame_of(grey)))
    shutil.copytree(parts, folder / "labelled")
    for name in ("photos", "good-parts", "dtd"):
        shutil.copytree(parts / "train" / "good", folder / name)
    for name in ("data/screw", "data/tiles"):
        shutil.copytree(parts, folder / name)
    for number, name in enumerate(("TARGET", "TILES", "LEATHER", "OTHER")):
        shutil.copytree(parts, folder / name)
        for path in [*(folder / name / "train").rglob("*.png"), *(folder / name / "test").rglob("*.png")]:
            path.write_bytes(encode_png(np.roll(read_image(path), number, axis=1)))
    shutil.copy(folder / "images" / "b.png", folder / "part.png")
    (folder / "current.edgead").symlink_to("bottle.edgead")
    monkeymodels(folder)
    done = inside("run", "bottle.edgead", "--source", "images", "--sink", "rejects:rejects", folder=folder)
    assert done.returncode == 0, done.stderr
    [defect] = (each for each in (folder / "rejects").glob("*-00000003.png"))
    assert inside("review", defect, "--as", "real-defect").returncode == 0
    return folder


def monkeymodels(folder: Path) -> None:
    """Write ``export/weights/onnx/model.onnx`` and ``model.onnx``, in the form of those that anomalib exports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tests" / "export" / "imports")
        from third_party_models import anomalib_model
    for place in (folder / "export" / "weights" / "onnx", folder):
        place.mkdir(parents=True, exist_ok=True)
        onnx.save(anomalib_model(), place / "model.onnx")
    other = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        main (float[N, 3, H, W] image) => (float[N, 1] score, float[N, 1, H, W] heat)
        <float[1, 3, 1, 1] w = {0.2, 0.3, 0.5}>
        { heat = Conv (image, w)
          score = ReduceMax <axes = [2, 3], keepdims = 0> (heat) }""")
    onnx.save(other, folder / "other.onnx")


@pytest.fixture(autouse=True)
def _doctor_looks_at_one_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PURPOSES", dict(list(doctor.PURPOSES.items())[:1]))


@pytest.mark.parametrize("name", [name for name in WITH_STEPS if name not in {*ELSEWHERE, *TRAINING}])
def test_a_page_says_what_works(name: str, shelf: Path, tmp_path: Path) -> None:
    shutil.copytree(shelf, tmp_path / "work", symlinks=True)
    follow(TEXTS[name], tmp_path / "work", WAYS.get(name, Page()))


@pytest.mark.long
@pytest.mark.parametrize("name", TRAINING)
def test_a_page_that_trains_says_what_works(
    name: str, shelf: Path, trained: Path, rgbd_parts: Path, tmp_path: Path
) -> None:
    from torch import save

    from edgead.train.backbones import torchvision

    folder = tmp_path / "work"
    shutil.copytree(shelf, folder, symlinks=True)
    shutil.copytree(trained, folder / "runs" / "train" / "draem-washer")
    shutil.copytree(rgbd_parts, folder / "mvtec3d" / "bagel")
    save(torchvision().models.get_model("squeezenet1_1", weights=None).state_dict(), folder / "squeezenet1_1.pth")
    if name == "training.md":
        for number in range(2):
            stop_a_training(folder, number)
    follow(TEXTS[name], folder, WAYS.get(name, Page()))


class CtrlC(Console):
    """Presses Ctrl-C in the second step of a training."""

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        steps = iter(range(total))
        yield lambda text: signal.raise_signal(signal.SIGINT) if (label, next(steps)) == ("train", 1) else None


def stop_a_training(folder: Path, number: int) -> None:
    """Leave a run that ``--resume`` goes on with."""
    from edgead.train import train

    out = folder / "runs" / "train" / f"draem-photos-{number}"
    with pytest.raises(KeyboardInterrupt):
        train("draem", folder / "photos", preset="nano", settings=TINY, out=out, console=CtrlC())
    assert out.is_dir()


def start(command: str, folder: Path, said: Path) -> subprocess.Popen[bytes]:
    """Start a command of a page in a terminal of its own; `said` gets what it prints."""
    words = [sys.executable, "-m", "edgead", *shlex.split(command, comments=True)[1:]]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with said.open("wb") as out:
        return subprocess.Popen(words, cwd=folder, env=variables, stdout=out, stderr=subprocess.STDOUT)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["line.md", "plc.md"])
def test_the_path_at_a_desk(name: str, shelf: Path, tmp_path: Path) -> None:
    """Two terminals, with `curl` three: the simulated PLC prints what the line decides."""
    pytest.importorskip("pymodbus", reason="no pymodbus (pip install 'edgead[modbus]')")
    found = [step.replace("5020", str(port)) for port in [free_port()] for _, step in steps(TEXTS[name])]
    found = [step.replace("8090", str(port)) for port in [free_port()] for step in found]
    [line] = [step for step in found if "synthetic:" in step]
    [plc] = [step for step in found if step.startswith("edgead plc simulate")]
    curls = [step for step in found if step.startswith("curl")]
    started = [start(command, shelf, tmp_path / name) for command, name in ((line, "line"), (plc, "plc"))]
    try:
        until = time.monotonic() + 60
        while not re.search(r"(FAIL|UNKNOWN).*A-17" if curls else "PASS|FAIL", (tmp_path / "plc").read_text()):
            for curl in curls[-1:]:
                subprocess.run(shlex.split(curl), capture_output=True, check=False)
            assert time.monotonic() < until, [(tmp_path / each).read_text() for each in ("line", "plc")]
            time.sleep(0.2)
    finally:
        for process in started:
            process.terminate()
            process.wait(20)


def test_every_page_with_something_to_type_is_followed() -> None:
    assert {*ELSEWHERE, *TRAINING, *WAYS} <= set(WITH_STEPS)
    assert not {*ELSEWHERE} & {*TRAINING, *WAYS}
    for name, file in ELSEWHERE.items():
        assert name in (ROOT / "tests" / file).read_text(encoding="utf-8"), name


def test_the_steps_of_a_page_are_found() -> None:
    text = "Text.\n\n    edgead a \\\n      --b c    # d\n    pip e\n\n    a formula\n"
    text += "\n1. A list:\n\n       edgead f\n\n```sh\nA=1 x/python g\n```\n\n```python\nf()\n\n    edgead h\n```\n"
    text += "\n```ini\nA=b\nExecStart=/x/edgead run $${C}\n```\n\n```text\nshown\n```\n"
    assert [(kind, " ".join(step.split())) for kind, step in steps(text)] == [
        ("sh", "edgead a --b c # d"),
        ("sh", "pip e"),
        ("sh", "a formula"),
        ("sh", "edgead f"),
        ("sh", "A=1 x/python g"),
        ("python", "f() edgead h"),
        ("sh", "/x/edgead run ${C}"),
        ("shown", "shown"),
    ]
    assert name_of("A=1 x/python g") == "python"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("wget x", "neither run nor in OUTSIDE"),
        ("edgead inspect none.edgead", "none.edgead is not a bundle"),
        ("make nothing", "make nothing"),
        ("pip install 'edgead[nothing]'", "edgead.nothing."),
    ],
)
def test_a_page_that_says_what_does_not_work_is_noticed(step: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=message):
        follow(f"```sh\n{step}\n```\n", tmp_path, Page())
    with pytest.raises(AssertionError, match="rust"):
        follow("```rust\nx\n```\n", tmp_path, Page())
    with pytest.raises(click.BadParameter):
        check_unrun("sh", "edgead run bottle.edgead --source 0 --batch 0")
    with pytest.raises(AssertionError):
        follow("```sh\nmake test\n```\n", tmp_path, Page(not_run={"edgead": "is not there"}))


def test_what_is_shown_is_compared_but_for_numbers() -> None:
    said = "Warning: 3 of 10 pictures\n  at 2.5 ms"
    assert not absent("Warning: 1 of 25 … at 0.3 ms", said)
    assert absent("Warning: 1 of 25 images", said) == ["Warning: # of # images"]
