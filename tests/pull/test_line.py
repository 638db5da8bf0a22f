"""`edgead pull` beside a real run: the line takes the bundle by its hot reload, and gets the one before if it fails."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from https_folder import HttpsFolder, make_certificate
from level_bundle import make_level_bundle
from listener import Listener
from ports import free_port
from test_pull import change

import edgead
from edgead.errors import PullError, RolledBackError
from edgead.pull import Pulled, on_the_line, pull, watch
from edgead.pull.place import find_failure
from edgead.pull.watch import Counts, judge
from edgead.signatures.keys import new_key


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signed bundles that pass everything, fail everything, and read other images than the first."""
    folder = tmp_path_factory.mktemp("shared")
    new_key(folder / "ours")
    make_certificate(folder, "server")
    thresholds = {"first": 1e4, "good": 1e4, "bad": -1e4, "other": 1e4}
    for year, (name, value) in enumerate(thresholds.items(), 2025):
        opened = make_level_bundle(folder / f"{name}.edgead", bit_depth=12 if name == "other" else 16)
        threshold = {**opened.manifest.to_dict()["threshold"], "value": value}
        created = f"{year}-01-01T00:00:00+00:00"
        change(opened.path, folder / "ours", threshold=threshold, mask_threshold=value, created=created)
    return folder


TOKEN = "token-of-the-line"


class Cell:
    """A line with its link, and a server."""

    def __init__(self, shared: Path, folder: Path) -> None:
        self.shared, self.link = shared, folder / "current.edgead"
        versions = folder / "current.edgead.versions"
        shutil.copytree(shared / "first.edgead", versions / "first.edgead")
        self.link.symlink_to("current.edgead.versions/first.edgead")
        self.server = HttpsFolder(shared / "good.edgead", (shared / "server.pem", shared / "server.key"))

        command = [sys.executable, "-m", "edgead", "run", self.link, "--source", "synthetic:?fps=50&width=64&height=64"]
        command += ["--engine", "onnxruntime", "--health", "off", "--sink", f"jsonl:{folder / 'out.jsonl'}"]
        self.out, self.pid_file = folder / "out.jsonl", folder / "pid"
        self.port = free_port()
        command += ["--metrics", str(self.port), "--metrics-token", "${METRICS}", "--trust", shared / "ours.pub"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(edgead.__file__).parents[1]),
            "METRICS": TOKEN,
        }
        self.process = subprocess.Popen(
            list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.pid_file.write_text(f"{self.process.pid}\n")
        command_line = Path(f"/proc/{self.process.pid}/cmdline")
        self.wait(lambda: command_line.read_bytes())  # empty for a moment after the start
        self.line = watch.RunningLine(str(self.pid_file), str(self.port), TOKEN)
        self.wait(lambda: self.line.look() and self.line.look().counts.all > 30)  # type: ignore[union-attr]

    def wait(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.process.stdout and self.process.stdout.read()
            assert time.monotonic() < until
            time.sleep(0.02)

    def pull(self, name: str, **options: Any) -> Pulled:
        self.server.folder = self.shared / f"{name}.edgead"
        given: dict[str, Any] = {"trust": [self.shared / "ours.pub"], "ca": self.shared / "server.pem"}
        given |= {"pid": str(self.pid_file), "metrics": str(self.port), "metrics_token": TOKEN}
        given |= {"engine": "onnxruntime", "watch_minutes": 1.5 / 60, **options}
        return pull(self.server.url, to=self.link, **given)

    def deciding(self) -> str:
        seen = self.line.look()
        assert seen
        return seen.digest

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.server.close()


@pytest.fixture
def cell(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cell]:
    monkeypatch.setattr(watch, "POLL", 0.1)
    opened = Cell(shared, tmp_path / "line 3")
    with contextlib.closing(opened):
        yield opened


def digest_of(path: Path) -> str:
    return str(json.loads((path / "manifest.json").read_text())["digest"])


@pytest.mark.slow
def test_a_line_takes_good_bundles_and_goes_back_from_bad_ones(cell: Cell) -> None:
    first = cell.deciding()
    assert first == digest_of(cell.shared / "first.edgead")
    done = cell.pull("good")
    assert done.line
    assert (done.line.failed, done.line.after.failed, done.line.after.unknown) == ("", 0, 0)
    assert done.line.after.passed > 20
    good = cell.deciding()
    assert good == done.digest == digest_of(cell.link) != first

    console = Listener()
    with pytest.raises(RolledBackError, match=r"(?s)bad failed on the line: \d+ of \d+ results are FAIL.*in its place"):
        cell.pull("bad", watch_minutes=10.0, console=console)
    assert cell.deciding() == good == digest_of(cell.link)
    assert any("Going back" in text for text in console.said)
    assert not any("Warning" in text for text in console.said)

    with pytest.raises(RolledBackError, match="the line refused it; its log says why"):
        cell.pull("other")
    assert cell.deciding() == good == digest_of(cell.link)

    pulls = cell.link.with_name("current.edgead.versions") / "pulls.jsonl"
    log = pulls.read_text().splitlines()
    assert [bool(json.loads(line)["line"]["failed"]) for line in log] == [False, True, True]
    with pytest.raises(PullError, match="No line answers"):
        cell.pull("bad", metrics=str(free_port()))
    for name, why in {"bad": "results are FAIL", "other": "the line refused it"}.items():  # as a timer does
        with pytest.raises(RolledBackError, match=rf"(?s){name} failed on the line, 20\d\d-.*{why}.*--force"):
            cell.pull(name)
    assert pulls.read_text().splitlines() == log
    with pytest.raises(RolledBackError, match=r"(?s)results are FAIL.*in its place"):
        cell.pull("bad", watch_minutes=10.0, force=True)
    assert cell.deciding() == good == digest_of(cell.link)
    cell.process.send_signal(signal.SIGTERM)
    output, _ = cell.process.communicate(timeout=60)
    assert cell.process.returncode == 0, output
    lines = [json.loads(line) for line in cell.out.read_text().splitlines()]
    numbers = [line["frame_id"] for line in lines]
    assert numbers == sorted(set(numbers))
    assert {line["bundle"] for line in lines} == {"first", "good", "bad"}
    assert not [line for line in lines if line["verdict"] == "UNKNOWN"]


def test_the_last_report_of_a_bundle_says_whether_it_failed(tmp_path: Path) -> None:
    def report(digest: str, failed: str | None) -> str:
        line = None if failed is None else {"failed": failed}
        return json.dumps({"at": "2026-01-02T03:04:05Z", "digest": digest, "line": line})

    def found(*lines: str) -> str:
        (tmp_path / "pulls.jsonl").write_text("\n".join(lines))
        return find_failure(tmp_path, "aa")

    assert find_failure(tmp_path, "aa") == ""
    failed = report("aa", "it was late")
    assert found(failed) == "2026-01-02T03:04:05Z: it was late"
    assert found(failed, report("bb", ""), report("aa", None), '{"digest": "aa", "li').endswith("it was late")
    assert found(failed, report("aa", "")) == found(report("aa", "interrupted")) == found(report("bb", "late")) == ""
    assert found(failed, report("aa", "interrupted")).endswith("it was late")  # forced, and not watched to the end
    assert found('{"digest": "aa"}', '{"digest": "aa", "line": 3}', "[]", '"aa"') == ""


@pytest.mark.slow
def test_a_bundle_that_is_in_place_and_not_on_the_line_is_handed_over(cell: Cell) -> None:
    """An earlier pull was killed after it had changed the link, or did not know of the line."""
    first, console = cell.deciding(), Listener()
    cell.pull("good", pid="", metrics="", metrics_token="")
    assert cell.deciding() == first != digest_of(cell.link)
    done = cell.pull("good", console=console)
    assert (done.switched, cell.deciding()) == (True, digest_of(cell.link))
    assert "The line does not decide by good yet." in console.said
    good = cell.deciding()
    assert not cell.pull("good").switched
    cell.pull("bad", pid="", metrics="", metrics_token="")
    assert digest_of(cell.link) != good
    with pytest.raises(RolledBackError, match=r"(?s)results are FAIL.*in its place"):
        cell.pull("bad", watch_minutes=10.0)
    assert cell.deciding() == good == digest_of(cell.link)


@pytest.mark.slow
def test_a_line_that_reads_another_path_is_told_apart(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its live page can let it decide by a bundle at another path."""
    monkeypatch.setattr(watch, "DECIDES_WITHIN", 0.5)
    first, elsewhere = digest_of(cell.link), cell.link.with_name("elsewhere.edgead")
    elsewhere.symlink_to("current.edgead.versions/first.edgead")
    cell.link = elsewhere
    with pytest.raises(RolledBackError, match="the line has loaded a bundle from another path"):
        cell.pull("good")
    assert cell.deciding() == first == digest_of(elsewhere)


@pytest.mark.slow
def test_a_link_that_cannot_be_set_back_is_told(cell: Cell) -> None:
    """The error named a file, and not that the bad bundle went on deciding."""

    def block(text: str) -> None:
        if "decides. Watching" in text:
            cell.link.with_name(".current.edgead.new").mkdir()  # where the new link is made

    console = Listener()
    console.say = block  # type: ignore[method-assign]
    before = cell.link.resolve()
    with pytest.raises(PullError, match=r"(?s)bad failed on the line: .* are FAIL.*still points to it") as caught:
        cell.pull("bad", watch_minutes=10.0, console=console)
    subprocess.run(str(caught.value).rpartition("the line:")[2], shell=True, check=True)
    assert cell.link.resolve() == before
    log = cell.link.with_name("current.edgead.versions") / "pulls.jsonl"
    assert json.loads(log.read_text())["line"]["failed"]


@pytest.mark.slow
def test_a_line_that_ends_under_the_new_bundle(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link is back before a service manager starts the line again."""
    monkeypatch.setattr(watch, "GONE", 0.5)
    monkeypatch.setattr(on_the_line, "BACK_WITHIN", 0.5)
    first = digest_of(cell.link)

    def kill(text: str) -> None:
        if "decides. Watching" in text:
            cell.process.kill()
            cell.process.wait()

    console = Listener()
    monkeypatch.setattr(console, "say", kill)
    with pytest.raises(RolledBackError, match="does not answer any more"):
        cell.pull("good", watch_minutes=1.0, console=console)
    assert digest_of(cell.link) == first


def test_a_bundle_that_decides_as_before_is_hardly_ever_taken_back() -> None:
    """It is looked at each second, and one that was taken back is not taken again."""
    rng, old = np.random.default_rng(0), 20

    def is_taken_back() -> bool:
        failed = int(rng.binomial(old, 0.3))
        seen = np.cumsum(rng.random(600) < 0.3)
        before = Counts(old - failed, failed, 0)
        return any(judge(before, Counts(n - int(seen[n - 1]), int(seen[n - 1]), 0), 0.1) for n in range(5, 301, 5))

    assert sum(is_taken_back() for _ in range(60)) <= 1


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (Counts(1000, 10, 0), Counts(500, 6, 0), ""),
        (Counts(1000, 10, 0), Counts(400, 100, 0), "100 of 500 results are FAIL, before 10 of 1010"),
        (Counts(1000, 10, 0), Counts(400, 0, 100), "100 of 500 results are UNKNOWN"),
        (Counts(1000, 10, 0), Counts(2, 1, 0), ""),  # too few to tell
        (Counts(500, 500, 0), Counts(450, 550, 0), ""),
        (Counts(), Counts(0, 100, 0), ""),  # nobody knows how many fail here
        (Counts(), Counts(0, 0, 100), "100 of 100 results are UNKNOWN, before 0 of 0"),
        (Counts(1000, 10, 0), Counts(), ""),
        (Counts(900_000_000, 100_000_000, 0), Counts(700, 300, 0), "300 of 1000 results are FAIL"),  # at once, too
        (Counts(14, 6, 0), Counts(30, 30, 0), ""),  # 6 of 20 may be a half
    ],
)
def test_what_counts_as_a_failure(before: Counts, after: Counts, said: str) -> None:
    assert judge(before, after, 0.1).startswith(said)
    assert bool(judge(before, after, 0.1)) is bool(said)


def test_a_line_that_was_restarted_counts_from_zero() -> None:
    assert Counts(5, 1, 0).since(Counts(100, 0, 0)) == Counts(5, 1, 0)
    assert Counts(105, 1, 2).since(Counts(100, 0, 1)) == Counts(5, 1, 1)
