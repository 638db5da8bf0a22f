"""Nothing needs a package that its extra does not bring, and what is missing is reported in one way."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from every_verb import calls

from edgead.bundle import Bundle
from edgead.cli import cli

ROOT = Path(__file__).parents[1]
MODULES = {
    "Pillow": "PIL",
    "onnxruntime-gpu": "onnxruntime",
    "opencv-python-headless": "cv2",
    "paho-mqtt": "paho",
}
"""Distribution ↦ module, where the names differ."""
ANYWHERE = {"doctor", "plc", "review"}
TORCHLESS = ANYWHERE | {"predict", "run", "inspect", "plan"}
WORKING = {
    "cpu": TORCHLESS,
    "gpu": TORCHLESS,  # its package is the same module, with an engine for the CPU too
    "import": TORCHLESS | {"import", "benchmark", "report"},
    "benchmark": ANYWHERE | {"report"},
    "train": set(cli.commands) - {"demo", "keys", "pull", "sign"},
    "sign": ANYWHERE | {"keys", "sign"},
}
"""Extra ↦ verbs whose call below ends well with it alone. With any other extra, `ANYWHERE` do."""

PROGRAM = '''
import importlib.machinery, io, json, os, pkgutil, sys, traceback
import click, numpy, edgead, edgead.cli
from edgead import doctor
from edgead.errors import MissingDependencyError
from edgead.plan import measure

doctor.PURPOSES = dict(list(doctor.PURPOSES.items())[:2])  # it imports them in processes that know nothing of the ban
measure.FRAMES = 10

banned = set()
finders = list(sys.meta_path)

class Finder:
    """Finds what is installed, except what is banned."""

    find_distributions = staticmethod(importlib.machinery.PathFinder.find_distributions)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in banned:
            return None
        return next((spec for finder in finders if (spec := finder.find_spec(name, path, target))), None)

sys.meta_path[:] = [Finder()]

def try_import(name):
    try:
        importlib.import_module(name)
    except MissingDependencyError as error:
        return str(error)
    except BaseException:
        return traceback.format_exc()
    return ""

def call(arguments):
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err = io.StringIO(), io.StringIO()
    try:
        edgead.cli.main(arguments)
    except SystemExit as end:
        return [end.code, out.getvalue(), err.getvalue()]
    finally:
        sys.stdout, sys.stderr = streams

def in_child(job):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, json.dumps(job()).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as stream:
        return json.load(stream)

asked = json.load(sys.stdin)
found = {}
for name, (bans, jobs) in asked.items():
    banned = set(bans)
    if jobs == "import":
        names = [each.name for each in pkgutil.walk_packages(edgead.__path__, "edgead.", onerror=lambda name: None)]
        found[name] = in_child(lambda: {each: try_import(each) for each in names})
    else:
        found[name] = in_child(lambda: {verb: [call(arguments) for arguments in calls] for verb, calls in jobs.items()})
print(json.dumps(found))
'''


def extras() -> dict[str, set[str]]:
    """Extra ↦ modules that it brings, from setup.py."""
    values: dict[str, Any] = {"__file__": str(ROOT / "setup.py")}
    with mock.patch("setuptools.setup"):
        exec((ROOT / "setup.py").read_text(), values)
    found = {}
    for extra, requirements in values["EXTRAS"].items():
        names = [re.match(r"[\w.-]+", requirement) for requirement in requirements]
        found[extra] = {MODULES.get(name[0], name[0]) for name in names if name}
    return found


def ask(jobs: dict[str, Any], folder: Path) -> Any:
    """Do each job in a process where the packages that it bans cannot be imported, as if they were not installed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(jobs), capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_module_is_imported_with_nothing_optional_installed(tmp_path: Path) -> None:
    """Or says in one line what is missing. Whatever a device needs is imported."""
    optional = sorted(set().union(*extras().values()) | {"scipy", "sklearn"})
    found = ask({"nothing": [optional, "import"]}, tmp_path)["nothing"]
    assert len(found) > 100
    needing = {name for name, error in found.items() if error}
    for name in needing:
        assert re.fullmatch(r"The Python package '\w+' is needed .*\nInstall it with:  pip install .*", found[name])
    rooms = {".".join(name.split(".")[:2]) for name in needing}
    assert rooms <= {"edgead.train", "edgead.export", "edgead.distil", "edgead.sweep", "edgead.view"}


@pytest.mark.long
def test_every_verb_under_every_extra(bundle: Bundle, parts: Path, trained: Path, tmp_path: Path) -> None:
    """`--help` and one call, with the packages of all other extras banned: it works, or names the extra to install."""
    verb_calls = calls(bundle, parts, trained, tmp_path)
    known = {extra: modules for extra, modules in extras().items() if extra != "dev"}
    everything = set().union(*known.values())
    jobs = {}
    for extra, modules in known.items():
        verbs = {verb: [[verb, "--help"], [verb, *arguments]] for verb, arguments in verb_calls.items()}
        jobs[extra] = [sorted(everything - modules), verbs]
    for extra, verbs in ask(jobs, tmp_path).items():
        for verb, ((help_code, _, _), (code, _, errors)) in verbs.items():
            assert help_code == 0, (extra, verb)
            assert (code == 0) == (verb in WORKING.get(extra, ANYWHERE)), (extra, verb, errors)
            assert "Traceback" not in errors, (extra, verb, errors)
            if code and verb not in ("demo", "pull"):  # the key of pull is not there
                message = errors[errors.index("Error:") :]
                assert len(message.splitlines()) <= 3, (extra, verb, errors)
                assert code == 4 or "pip install 'edgead[" in message, (
                    extra,
                    verb,
                    errors,
                )  # 4: TensorRT without a GPU
