"""The file of a line, on the command line: what wins, what is wrong, what is kept, and the check."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from level_bundle import frame_of, make_level_bundle
from line_bench import BAD, GOOD
from ports import free_port

from edgead.cli.line import NOT_KEPT
from edgead.cli.running import run
from edgead.errors import ConfigError
from edgead.line.line_file import read_line_file
from edgead.toml import line_of

pytest.importorskip("onnxruntime")
TEXT = """\
product = "cap"
triggers = ["camera:"]
sinks = ["jsonl:results.jsonl", "sqlite:results.sqlite", "rejects:rejects"]

[cameras.front]
source = "pictures"

[products.bottle]
bundle = "bottle.edgead"
version = "3"

[products.cap]
bundle = "cap.edgead"
threshold = 1130

[part]
within = 500

[run]
engine = "onnxruntime"
health = "off"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_level_bundle(tmp_path / "bottle.edgead")
    make_level_bundle(tmp_path / "cap.edgead", 1000.0)
    (tmp_path / "pictures").mkdir()
    for number, shown in enumerate((GOOD, BAD)):
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), frame_of(shown))
    (tmp_path / "line.toml").write_text(TEXT)
    return tmp_path


def edgead(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgead", "run", "--config", "line.toml", *map(str, arguments)]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def results_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_a_file_runs_a_line_and_its_configuration_is_kept_with_the_results(folder: Path) -> None:
    done = edgead(folder)
    assert done.returncode == 0, done.stderr
    results = results_of(folder)
    assert [(one["verdict"], one["bundle"], one["source_id"]) for one in results] == [
        ("PASS", "cap", "front"),
        ("FAIL", "cap", "front"),
    ]
    recipe = results[0]["recipe"]
    kept = json.loads((folder / "results.jsonl.configurations").read_text())["configuration"]
    assert kept["recipes"][recipe]["threshold_value"] == 1130
    assert (kept["part"]["within"], kept["health"], kept["silence"]) == (500, "off", 5.0)
    assert (kept["product"], kept["triggers"], kept["drift_window"]) == ("cap", ["camera:"], 200)
    with sqlite3.connect(folder / "results.sqlite") as database:
        [(text,)] = database.execute("SELECT configuration FROM configurations").fetchall()
    database.close()
    assert json.loads(text) == kept
    assert json.loads((folder / "rejects" / "configurations.jsonl").read_text())["configuration"] == kept
    assert "parts 2 = passed 1 + failed 1" in done.stderr


def test_options_win_over_the_file(folder: Path) -> None:
    done = edgead(
        folder, "--product", "bottle", "--threshold", 10, "--part", "within=700", "--sink", "jsonl:other.jsonl"
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in (folder / "other.jsonl").read_text().splitlines()]
    assert [(one["verdict"], one["recipe"], one["threshold"]) for one in results] == [("FAIL", "bottle 3", 10.0)] * 2
    assert not (folder / "results.jsonl").exists()
    kept = json.loads((folder / "other.jsonl.configurations").read_text())["configuration"]
    assert kept["part"]["within"] == 700
    done = edgead(folder, "bottle.edgead", "--product", "cap")
    assert done.returncode == 2
    assert "--product selects" in done.stderr


def test_a_rule_on_the_command_line_leaves_the_others_of_the_file(folder: Path) -> None:
    (folder / "line.toml").write_text(
        TEXT.replace("within = 500", 'within = 500\nframes = 2\nfails = "all"') + "contours = true\n"
    )
    done = edgead(folder, "--part", "within=5000", "--part", "fails=2", "--boxes")
    assert done.returncode == 0, done.stderr
    kept = json.loads((folder / "results.jsonl.configurations").read_text())["configuration"]
    assert (kept["part"]["within"], kept["part"]["frames"], kept["part"]["fails"]) == (5000, 2, "2")
    assert sorted(kept["shapes"]) == ["boxes", "contours"]


def test_the_configuration_is_json_also_without_a_limit(folder: Path) -> None:
    """Databases refuse Infinity as malformed."""
    done = edgead(folder, "--max-staleness", "inf")
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(folder / "results.sqlite") as database:
        query = "SELECT json_extract(configuration, '$.max_staleness') FROM configurations"
        assert database.execute(query).fetchall() == [("inf",)]
    database.close()


def test_the_configuration_is_complete_also_with_a_bundle_on_the_command_line(folder: Path) -> None:
    (folder / "line.toml").write_text(TEXT.replace('product = "cap"\n', ""))
    done = edgead(folder, "bottle.edgead", "--drift-window", 0)
    assert done.returncode == 0, done.stderr
    kept = json.loads((folder / "results.jsonl.configurations").read_text())["configuration"]
    assert (kept["bundle"], kept["triggers"], kept["drift_window"]) == ("bottle.edgead", ["camera:"], 0)
    options = {str(option.name) for option in run.params if option.expose_value}
    assert kept.keys() >= options - {*NOT_KEPT, "metrics_token", "view_token"}


def test_a_bundle_on_the_command_line_says_which_rules_it_replaces(folder: Path) -> None:
    said = "bottle.edgead replaces the products of --config. Their rules do not apply: threshold"
    assert said in edgead(folder, "bottle.edgead").stderr
    assert said in edgead(folder, "bottle.edgead", "--check").stderr
    assert "replaces" not in edgead(folder, "bottle.edgead", "--threshold", 5).stderr
    (folder / "line.toml").write_text(TEXT.replace("threshold = 1130", "threshold = 0"))
    assert said in edgead(folder, "bottle.edgead", "--check").stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("within = 500", "withn = 500", r"line.toml, line 17: .*'withn' of \[part\]. Did you mean 'within'"),
        ("[run]", "[runn]", r"line 19: Unknown field 'runn'. Did you mean 'run'"),
        ("threshold = 1130", "treshold = 1130", r"line 14: .*\[products.cap\]. Did you mean 'threshold'"),
        ("within = 500", "within = -5", "line 17: part.within is -5"),
        ("within = 500", "within = 500\ndelay = 900", "line 16: within, 500 ms, must be longer"),
        ('source = "pictures"', "delay = 5", "line 5: it has no cameras.front.source"),
        ('health = "off"', 'health = "of"', "line 21: run.health is .*one of live, all, off"),
        ('product = "cap"', 'product = "cup"', "line 1: Unknown product 'cup'. Did you mean 'cap'"),
        ("cap.edgead", "cup.edgead", "line 13: the bundle .*cup.edgead does not exist"),
        ("cap.edgead", "c" * 300, "line 13: products.cap.bundle is .*it must be a path"),
        ("cap.edgead", "cap\\u0000", "line 13: products.cap.bundle is .*it must be a path"),
        ('version = "3"', 'version = "rev B"', "line 10: the version 'rev B' may hold no spaces"),
        ("[run]", "[run", "is not valid TOML"),
        ("[cameras.front]", '[cameras."fr=ont"]', "line 5: the camera's name 'fr=ont' may hold letters"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(folder: Path, old: str, new: str, message: str) -> None:
    path = folder / "line.toml"
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        read_line_file(path)
    with pytest.raises(ConfigError, match="does not exist"):
        read_line_file(folder / "none.toml")


def test_a_file_may_begin_with_the_mark_of_utf_8(folder: Path) -> None:
    """As Windows' Notepad writes it."""
    path = folder / "line.toml"
    plain = read_line_file(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_line_file(path) == plain


def test_the_file_in_the_guide_is_right(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "line.md").read_text(encoding="utf-8")
    [text] = re.findall(r"^```toml\n(.*?)^```", guide, re.M | re.S)
    for name in ("bottle", "cap"):
        (tmp_path / "bundles" / f"{name}.edgead").mkdir(parents=True)
    (tmp_path / "line.toml").write_text(text, encoding="utf-8")
    line = read_line_file(tmp_path / "line.toml")
    assert (list(line.cameras), line.delays, line.part.within) == (["front", "side"], {"side": 40}, 200)
    fields = set(re.findall(r"`(\w+)`", next(row for row in guide.splitlines() if row.startswith("| `[run]`"))))
    assert fields == set(vars(line.run))


def test_lines_are_found_in_every_notation() -> None:
    text = 'a = 1\n[b."c.d"]  # a table\n  e.f = 2\n[[g]]\nh = { i = 1 }\n'
    places = [("a",), ("b", "c.d"), ("b", "c.d", "e", "f"), ("g",), ("g", "h", "i"), ("z",)]
    assert [line_of(text, place) for place in places] == [1, 2, 3, 4, 5, 0]


def test_a_check_opens_everything_and_names_what_fails(folder: Path) -> None:
    port = free_port()
    path = folder / "line.toml"
    path.write_text(TEXT.replace('"camera:"', f'"http://127.0.0.1:{port}/part"'))
    done = edgead(folder, "--check")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", "product"], ["ok", "product"], ["ok", "source"], ["ok", "trigger"], *[["ok", "sink"]] * 3
    ]  # fmt: skip
    assert "64×64 pixels" in lines[2]
    assert not (folder / "results.jsonl.configurations").exists()
    wrong = ["--source", "none.png", "--source", "front=pictures", "--trigger", "bell:", "--sink", "csv:x"]
    done = edgead(folder, "--check", "--json", *wrong)
    assert done.returncode == 2
    found = {(one["kind"], one["name"]): one["ok"] for one in json.loads(done.stdout)}
    assert found == {
        ("product", "bottle"): True,
        ("product", "cap"): True,
        ("source", "none.png"): False,
        ("source", "front=pictures"): True,
        ("trigger", "bell:"): False,
        ("sink", "csv:x"): False,
    }
    done = edgead(folder, "--check", "--trigger", "http://0.0.0.0:8090/part")
    assert "needs a token.\n  Set one:  --trigger 'http://0.0.0.0:8090/part?token=${TRIGGER_TOKEN}'" in done.stdout


@pytest.mark.parametrize(
    "wrong",
    [
        ["--sink", "jsonl:r.jsonl", "--sink", "jsonl:./r.jsonl"],
        ["--trigger", "camera:", "--trigger", "camera:?tolerance=5"],
        ["--trigger", "modbus://127.0.0.1:9/coil/3", "--trigger", "modbus://127.0.0.1:9/coil/3?poll_ms=9"],
        ["--source", "pictures/0.png", "--source", "./pictures/0.png"],
        ["--source", "a=pictures", "--source", "a=pictures/0.png"],
        ["--source", "a=pictures", "--source", "b=pictures"],  # joined by when they are read: parts of two pictures
        ["--source", "front=watch:pictures?existing=1", "--sink", "rejects:pictures"],
        ["--part", "fails=3"],
        ["--product", "lid"],
        ["--config", "depths.toml"],
        ["--config", "far.toml", "--trigger", "http://127.0.0.1:0/part"],
    ],
    ids=lambda wrong: wrong[-1],
)
def test_a_check_refuses_what_a_run_refuses(folder: Path, wrong: list[str]) -> None:
    """Each thing alone could be opened: the check ended with success, and the run did not start."""
    make_level_bundle(folder / "twelve.edgead", bit_depth=12)
    text = TEXT.replace('bundle = "bottle.edgead"', 'bundle = "twelve.edgead"')
    (folder / "depths.toml").write_text(text)
    (folder / "far.toml").write_text(TEXT.replace('"pictures"', '"pictures"\ndelay = 500'))
    said = []
    for more in (["--check"], []):
        done = edgead(folder, *more, *wrong)
        assert done.returncode == 2
        said.append(done.stdout + done.stderr)
    if wrong[-1] != "depths.toml":
        reason = next(line for line in said[1].splitlines() if line.startswith("Error: ")).removeprefix("Error: ")
        assert reason in said[0]


def test_a_check_asks_the_plc(folder: Path) -> None:
    pytest.importorskip("pymodbus", reason="no pymodbus")
    from edgead.line.outputs.modbus_plc import ServingPlc

    plc, dead = ServingPlc("127.0.0.1", 0), f"modbus://127.0.0.1:{free_port()}?timeout_ms=100"
    try:
        sinks = ["--sink", f"modbus://127.0.0.1:{plc.port}", "--sink", dead]
        done = edgead(folder, "--check", "--json", "--trigger", "camera:", *sinks)
    finally:
        plc.close()
    assert done.returncode == 2
    found = [(one["ok"], one["text"]) for one in json.loads(done.stdout) if one["kind"] == "sink"]
    assert found[0] == (True, "the PLC has the registers 0 to 60")
    assert found[1][0] is False
    assert "no connection to 127.0.0.1" in found[1][1]


def test_one_dead_camera_ends_the_others_only_if_it_must(folder: Path) -> None:
    dead = f"dead=rtsp://127.0.0.1:{free_port()}/none"
    options = ["--source", "front=watch:pictures?existing=1", "--source", dead, "--max-frames", 3]
    done = edgead(folder, *options, "--need-all-cameras")
    assert done.returncode == 2
    assert not (folder / "results.jsonl").exists() or not results_of(folder)
    done = edgead(folder, *options)
    parts = [one for one in results_of(folder) if one["part_id"]]
    assert [one["verdict"] for one in parts] == ["UNKNOWN", "FAIL"]  # the other camera saw no defect, and one


def test_messages_are_json_lines_where_the_file_or_the_command_line_asks_for_it(folder: Path) -> None:
    (folder / "line.toml").write_text(TEXT + 'log = "json"\n')
    done = edgead(folder)
    assert done.returncode == 0, done.stderr
    messages = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert any(message.startswith("Product cap ") for message in messages)
    assert any(message.startswith("parts 2 = ") for message in messages)
    assert done.stdout == ""
    (folder / "line.toml").write_text(TEXT.replace("within", "withn"))
    done = edgead(folder, "--log", "json")
    [error] = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, error["level"]) == (2, "error")
    assert "withn" in error["message"]


def test_a_path_at_home_is_there(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell replaces ~ in a file or inside quotes; a bundle was not found, and a recording lay in a folder ~."""
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir()
    away.mkdir()
    (folder / "bottle.edgead").rename(home / "bottle.edgead")
    cv2.imwrite(str(home / "mask.png"), np.full((64, 64), 255, np.uint8))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(away)
    file = away / "line.toml"
    file.write_text(
        f"[cameras.front]\nsource = '{folder / 'pictures'}'\n\n"
        "[products.bottle]\nbundle = '~/bottle.edgead'\nroi = ['~/mask.png']\n\n"
        "[run]\nengine = 'onnxruntime'\nhealth = 'off'\nrecord = '~/recorded'\n"
    )
    product = read_line_file(file).products["bottle"]
    assert (product.bundle, product.roi) == (str(home / "bottle.edgead"), (str(home / "mask.png"),))
    done = CliRunner().invoke(run, ["--config", "line.toml", "--sink", "jsonl:~/results.jsonl"])
    assert done.exit_code == 0, done.output
    assert (home / "recorded").is_dir()
    assert [path.name for path in away.iterdir()] == ["line.toml"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("within = 500", "within = 500\ndelay = 40"), "delay of a part has no effect with the trigger camera:"),
        (("within = 500", "within = 500\nwindow = 90"), "window of a part has no effect with the trigger camera:"),
        (('"pictures"', '"pictures"\ndelay = 5'), "delay of the camera front has no effect with the trigger camera:"),
    ],
)
def test_times_that_the_pictures_themselves_decide_are_refused(folder: Path, wrong: tuple[str, str], said: str) -> None:
    """With camera:, a picture is the moment of its part: they had no effect, and nothing said so."""
    file = folder / "line.toml"
    file.write_text(file.read_text().replace(*wrong))
    for more in ([], ["--check"]):
        done = CliRunner().invoke(run, ["--config", str(file), *more])
        assert done.exit_code == 2, done.output
        assert said in done.stderr


def test_what_is_said_about_parts_needs_a_trigger(folder: Path) -> None:
    """It had no effect, and nothing said so."""
    file = folder / "line.toml"
    text = file.read_text().replace('triggers = ["camera:"]', "")
    for wrong, said in (
        (text, "[part] or --part has no effect without a trigger"),
        (
            text.replace("[part]\nwithin = 500\n", "").replace('"pictures"', '"pictures"\ndelay = 5'),
            "delay of the camera front has no effect without a trigger",
        ),
    ):
        file.write_text(wrong)
        for more in ([], ["--check"]):
            done = CliRunner().invoke(run, ["--config", str(file), *more])
            assert done.exit_code == 2
            assert said in done.stderr
