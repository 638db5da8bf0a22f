"""Names from outside cannot forge lines, terminal codes, metrics or files: file names, sources, topics, ids."""

from __future__ import annotations

import json
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import inside
from level_bundle import frame_of, make_level_bundle

from edgead.bundle import Bundle
from edgead.cli.output import result_line
from edgead.decision import Verdict
from edgead.images import encode_png
from edgead.line.triggers.http import HttpTrigger
from edgead.pull.watch import _LABEL, _SAMPLE
from edgead.runtime.ledger import Ledger
from edgead.runtime.result import Result
from edgead.runtime.sinks.rejects import stem_of

NAMES = [
    "a\nPASS    0.1         forged.png",
    "a\r\x1b[2K\x1b[1APASS",
    "a\u202egnp.lana",
    '"><img src=x onerror=alert(1)>',
    'a\\\n"} 1\nedgead_forged 1',
    "'); DROP TABLE results; --",
    "%s%n{0}${HOME}",
    "a\x00b\x85c\u2028d",
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_level_bundle(tmp_path_factory.mktemp("bundle") / "tiny.edgead")


def is_plain(text: str) -> bool:
    return all(character == "\n" or character.isprintable() for character in text)


def test_file_names(bundle: Bundle, tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out.sqlite"
    images.mkdir()
    names = [name.replace("/", "").replace("\0", "") + ".png" for name in NAMES]
    for name in names:
        (images / name).write_bytes(encode_png(frame_of(50)))
    (images / "b\nError: forged\x1b[31m.png").write_bytes(b"no image")
    done = inside("predict", bundle.path, images, "--engine", "onnxruntime")
    assert len(done.stdout.splitlines()) == len(names) + 1
    assert all(re.match(r"PASS +\S|UNKNOWN +-", line) for line in done.stdout.splitlines())
    assert is_plain(done.stdout)
    assert is_plain(done.stderr)
    assert not [line for line in done.stderr.splitlines() if line.startswith("Error: forged")]
    lines = tmp_path / "out.jsonl"
    sinks = ["--sink", f"jsonl:{lines}", "--sink", f"sqlite:{out}", "--sink", f"rejects:{tmp_path / 'rejects'}"]
    assert inside("predict", bundle.path, images, "--engine", "onnxruntime", *sinks).returncode == 0
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {Path(each["path"]).name for each in found} >= set(names)
    with closing(sqlite3.connect(out)) as opened:
        assert opened.execute("SELECT count(*) FROM results").fetchone() == (len(names) + 1,)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_sources_parts_and_recipes(name: str, tmp_path: Path) -> None:
    result = Result(
        verdict=Verdict.UNKNOWN, score=np.nan, threshold=1.0, source_id=name, part_id=name, reason=f"no: {name}"
    )
    assert result_line(result).isprintable()
    assert "(no: " in result_line(replace(result, score=0.5))  # late: it was inferred, and is UNKNOWN all the same
    assert re.fullmatch(r"[\w-]+", stem_of(result))
    ledger = Ledger()
    ledger.enter(name)
    ledger.count(result)
    text = ledger.to_prometheus()
    assert all(line.startswith(("# ", "edgead_")) for line in text.split("\n") if line)
    assert "\nedgead_forged" not in text
    labels = [dict(_LABEL.findall(found)) for _, found, _ in _SAMPLE.findall(text)]
    assert {re.sub(r"\\(.)", lambda each: {"n": "\n"}.get(each[1], each[1]), each["source"]) for each in labels} == {
        name
    }


@pytest.fixture
def trigger() -> Iterator[HttpTrigger]:
    opened = HttpTrigger("127.0.0.1", 0, "/part")
    yield opened
    opened.close()


@pytest.mark.parametrize("name", [*NAMES, "x" * 257, "\ud800"])
def test_ids_of_parts_over_http(trigger: HttpTrigger, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """An id is data of the line: it is kept as it is, or refused, and comes back as JSON."""
    taken: list[str] = []

    def take(part_id: str = "", at: float | None = None, doubt: str = "") -> str:
        taken.append(part_id)
        return part_id

    trigger.begin(take)
    body, headers = json.dumps({"part_id": name}).encode(), {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"http://127.0.0.1:{trigger.port}/part", body, headers)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert answer.headers.get_content_type() == "application/json"
            said, status = json.load(answer), 202
    except urllib.error.HTTPError as error:
        said, status = {}, error.code
        error.close()
    kept = len(name) <= 256
    assert (status, said) == ((202, {"part_id": name}) if kept else (400, {}))
    assert taken == [name] * kept
    assert "".join(capfd.readouterr()) == ""
