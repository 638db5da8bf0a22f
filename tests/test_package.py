"""What holds for the package as a whole: who imports what, and what is missing where."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgead
import edgead.bundle
from edgead import doctor, machine

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "onnx", "sklearn", "accelerate", "safetensors", "PIL", "scipy")

BAN = """
import sys
class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BANNED:
            raise ImportError(f"{name} is banned here")
sys.meta_path.insert(0, Ban())
"""


def run_banned(code: str, banned: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process where the banned packages cannot be imported, as if they were not installed."""
    program = f"BANNED = {banned!r}\n{BAN}\n{code}"
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)


def test_the_runtime_runs_where_only_the_cpu_extra_is_installed(bundle: edgead.bundle.Bundle, parts: Path) -> None:
    """Load, inspect, stream and the verbs of the line, with everything else banned."""
    code = (
        "import sys, edgead\n"
        "from edgead.images import read_frame\n"
        "inspector = edgead.load(sys.argv[1])\n"
        "print(inspector.inspect(read_frame(sys.argv[2] + '/good/000.png')).verdict.value)\n"
        "print(sum(1 for _ in inspector.stream(sys.argv[2])))\n"
        "from edgead.cli import main\n"
        "main(['inspect', sys.argv[1]])\n"
    )
    done = run_banned(code, HEAVY, str(bundle.path), str(parts / "test"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "12"
    assert "golden" in done.stdout


def test_onnx_models_are_imported_where_only_the_import_extra_is_installed(parts: Path, tmp_path: Path) -> None:
    from onnx import parser, save_model

    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        main (float[N, 3, 16, 16] image) => (float[N, 1, 16, 16] heat) <float[1, 3, 1, 1] w = {0.2, 0.3, 0.5}>
        { heat = Conv (image, w) }""")
    save_model(model, tmp_path / "m.onnx")
    banned = tuple(name for name in HEAVY if name != "onnx")
    code = "import sys\nfrom edgead.cli import main\nmain(sys.argv[1:])"
    out = str(tmp_path / "b.edgead")
    done = run_banned(
        code, banned, "import", str(tmp_path / "m.onnx"), "--threshold-data", str(parts), "--out", out, "--json"
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)["manifest"]
    assert (manifest["method"], manifest["input"]["height"]) == ("onnx", 16)
    lowered = run_banned(
        *(code, banned, "import", str(tmp_path / "m.onnx"), "--threshold-data", str(parts), "--precision", "int8"),
        *("--max-flips", "1", "--max-auroc-drop", "1", "--out", str(tmp_path / "int8.edgead"), "--json"),
    )
    assert lowered.returncode == 0, lowered.stderr
    assert json.loads(lowered.stdout)["manifest"]["precision"] == "int8"
    shown = run_banned(code, (*banned, "onnx"), "inspect", out, "--engine", "onnxruntime")
    assert "origin     an ONNX model: m.onnx (SHA-256" in shown.stdout
    missing = run_banned(code, ("torch", "onnx"), "import", "m.onnx")
    assert "pip install 'edgead[import]'" in missing.stderr


def test_help_is_light() -> None:
    code = (
        "from edgead.cli import cli, main\n"
        "for arguments in (['--help'], ['--version'], *([verb, '--help'] for verb in cli.commands)):\n"
        "    try:\n"
        "        main(arguments)\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0, arguments\n"
    )
    done = run_banned(code, (*HEAVY, "cv2", "onnxruntime", "numpy"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: ") > 10


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("cv2", ["predict", "BUNDLE", "IMAGES"], "cpu"),
        ("onnxruntime", ["predict", "BUNDLE", "IMAGES", "--engine", "onnxruntime"], "cpu"),
        ("jinja2", ["benchmark", "BUNDLE", "--data", "DATA"], "benchmark"),
        ("torch", ["train", "--data", "DATA"], "train"),
        ("torch", ["methods"], "train"),
        ("onnx", ["export"], "train"),
        ("PIL", ["train", "--data", "DATA"], "train"),
        ("ray", ["predict", "BUNDLE", "IMAGES", "--ray", "local", "--out", "absent.parquet"], "ray"),
        ("starlette", ["run", "BUNDLE", "--source", "IMAGES", "--view", "0"], "view"),
        ("pyarrow", ["predict", "BUNDLE", "IMAGES", "--ray", "local", "--out", "absent.parquet"], "ray"),
    ],
)
def test_a_missing_package_is_named_with_its_cure(
    bundle: edgead.bundle.Bundle, parts: Path, missing: str, arguments: list[str], extra: str
) -> None:
    places = {"BUNDLE": str(bundle.path), "IMAGES": str(parts / "test"), "DATA": str(parts)}
    code = "import sys\nfrom edgead.cli import main\nmain(sys.argv[1:])"
    done = run_banned(code, (missing,), *[places.get(argument, argument) for argument in arguments])
    assert done.returncode == 2, done.stderr
    assert f"'{missing}'" in done.stderr
    assert f"pip install 'edgead[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_names_what_is_missing() -> None:
    code = "from edgead.cli import main\nmain(['doctor'])"
    done = run_banned(code, (*HEAVY, "torchvision", "openvino", "harvesters"))
    assert done.returncode == 0, done.stderr
    assert "--  torch        missing, needed for training and export: pip install 'edgead[train]'" in done.stdout


def test_doctor_imports_what_it_reports_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is there and does not work is not "ok"; a crash, a hang and a page of text become one line."""
    monkeypatch.setattr(doctor, "IMPORT_SECONDS", 5.0)
    bodies = {
        "crashes": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
        "ends": "import os\nos._exit(3)",
        "hangs": "import time\ntime.sleep(600)",
        "old": "import numpy, sys\nprint('a page')\nsys.stderr.write('a page\\n' * 60)\n"
        "raise ImportError('numpy.core.multiarray failed to import')",
        "odd": "raise RuntimeError('two\\nlines')",
        "works": "print('hello')\n__version__ = '7'",
    }
    for name, body in bodies.items():
        (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = doctor.try_imports(list(bodies))
    assert found.pop("works") == doctor.Imported("7")
    assert {name: each.error for name, each in found.items() if name != "old"} == {
        "crashes": "its import ended the process with signal SIGSEGV",
        "ends": "its import ended the process with code 3",
        "hangs": "its import takes longer than 5 s",
        "odd": "RuntimeError: two lines",
    }
    assert re.fullmatch(r".*'old' is installed but .* built for NumPy 1, .* pip install 'numpy<2'", found["old"].error)
    monkeypatch.setattr(doctor, "PURPOSES", {"ends": ("an example", "cpu"), "works": ("an example", "cpu")})
    lines = {finding.name: finding for finding in doctor.diagnose()}
    assert lines["ends"] == doctor.Finding("ends", False, "ends: its import ended the process with code 3")
    assert lines["works"] == doctor.Finding("works", True, "works 7, an example")


def test_doctor_says_what_an_engine_is_for_and_not_its_less_exact_variant() -> None:
    assert doctor.PURPOSES["openvino"] == ("the faster engine on many x86 CPUs", "cpu")
    assert doctor.PURPOSES["onnxruntime"] == ("the CPU engine", "cpu")


@pytest.mark.parametrize(
    ("flags", "named"),
    [("sse2 avx2 avx512f", True), ("sse2 avx512_vnni", False), ("sse2 avx_vnni", False), ("asimd asimddp", False)],
)
def test_doctor_names_a_processor_that_int8_is_not_for(
    flags: str, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    monkeypatch.setattr(machine, "PROCESSOR", tmp_path / "cpuinfo")
    monkeypatch.setattr(doctor, "PURPOSES", {})
    assert named == any(finding.name == "int8" and "no VNNI" in finding.text for finding in doctor.diagnose())


def test_the_links_show_the_rooms() -> None:
    for name in ("train", "export", "runtime"):
        assert (ROOT / name).resolve() == ROOT / "edgead" / name


def test_every_source_file_is_linted() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--show-files", str(ROOT)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    seen = {Path(line) for line in listed}
    assert {path for folder in ("edgead", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")} <= seen
