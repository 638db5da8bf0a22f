"""Marks from the command line, thresholds that follow from them, and versions of a bundle."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import inside
from level_bundle import frame_of, make_level_bundle

import edgead.marks
from edgead.bundle import Bundle, read_bundle, write_manifest
from edgead.bundle.manifest import StoredThreshold
from edgead.decision import conformal_threshold
from edgead.errors import ConfigError
from edgead.images import encode_png
from edgead.marks import Mark, Marks, marks_folder, of_one_product
from edgead.review.proposal import Scored, moved, propose
from edgead.review.saved import mark_files, saved_rejects
from edgead.review.version import write_version
from edgead.runtime.engines.opening import open_engine
from edgead.runtime.golden import check_golden
from edgead.runtime.run import run

HELD_OUT = tuple(float(level) for level in range(90, 139))
"""49 scores, whose highest is below the threshold of 140."""
GOOD, BAD = (150, 152, 160, 200), (180, 190, 220)
"""Grey levels, which are scores, of parts that the threshold rejects."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The level bundle with held-out scores and a threshold of 140."""
    made = make_level_bundle(tmp_path_factory.mktemp("review") / "line.edgead")
    rule = dataclasses.replace(conformal_threshold(HELD_OUT, 0.02), value=140.0)
    manifest = dataclasses.replace(made.manifest, threshold=StoredThreshold.of(rule, HELD_OUT, HELD_OUT))
    (made.path / "manifest.json").unlink()
    write_manifest(made.path, manifest)
    return read_bundle(made.path)


@pytest.fixture(scope="module")
def rejected(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a ``rejects:`` sink after a run over good and defective parts."""
    folder = tmp_path_factory.mktemp("rejected")
    parts = folder / "parts"
    parts.mkdir()
    for level in (100, 120, *GOOD, *BAD, 170):
        (parts / f"{level}.png").write_bytes(encode_png(frame_of(level)))
    sinks = [f"rejects:{folder / 'rejects'}", f"jsonl:{folder / 'all.jsonl'}"]
    run(bundle.path, sources=[str(parts)], sinks=sinks, engine="onnxruntime")
    return folder / "rejects"


@pytest.fixture
def rejects(rejected: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rejected, tmp_path / "rejects"))


def picture_of(rejects: Path, level: int) -> Path:
    """Return the saved picture of a part."""
    [found] = [one for one in saved_rejects(rejects, Marks(rejects / "none")) if one.result["score"] == level]
    return found.picture


def mark_all(rejects: Path) -> None:
    for mark, levels in (("false-reject", GOOD), ("real-defect", BAD), ("unsure", (170,))):
        done = inside("review", *(picture_of(rejects, level) for level in levels), "--as", mark, "--by", "Ada")
        assert done.returncode == 0, done.stderr


def scored(good: tuple[float, ...], bad: tuple[float, ...]) -> list[Scored]:
    def one(mark: str, score: float) -> Scored:
        return Scored(Mark(f"{score}", mark, "", "", "", {}), score)

    return [one("false reject", score) for score in good] + [one("real defect", score) for score in bad]


def test_rejects_are_marked_listed_and_marked_again(rejects: Path) -> None:
    picture = picture_of(rejects, 150)
    done = inside("review", picture, "--as", "false-reject", "--by", "Ada", "--why", "dust", "--json")
    assert json.loads(done.stdout) == {"marked": [str(picture)], "mark": "false-reject", "by": "Ada"}
    marks = Marks(rejects / "marks")
    [kept] = marks.all().values()
    assert (kept.mark, kept.by, kept.why, kept.result["score"]) == ("false reject", "Ada", "dust", 150.0)
    good = rejects / "marks" / kept.picture
    assert good.read_bytes() == picture.read_bytes()
    for form in (".json", ".overlay.png"):
        again = picture.with_name(picture.name.replace(".png", form))
        assert inside("review", again, "--as", "unsure").returncode == 0
    assert marks.of(kept.id) == "unsure"
    assert not good.exists()
    moved_to = rejects / "marks" / marks.all()[kept.id].picture
    assert inside("review", moved_to, "--as", "real-defect", "--by", "Bob").returncode == 0  # a picture of the marks
    listed = json.loads(inside("review", rejects, "--json").stdout)
    assert listed["counts"] == {"false reject": 0, "real defect": 1, "unsure": 0}
    assert len(listed["unmarked"]) == len(GOOD) + len(BAD)
    assert f"{len(GOOD) + len(BAD)} rejects are not marked" in inside("review", rejects).stdout
    lines = [json.loads(line) for line in (rejects / "marks" / "audit.jsonl").read_text().splitlines()]
    assert [(line["action"], line["who"], line["mark"]) for line in lines[::3]] == [
        ("mark", "Ada", "false reject"),
        ("mark", "Bob", "real defect"),
    ]
    assert lines[0]["why"] == "dust"


def test_many_marks_are_not_read_again_for_each(rejects: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marking 2,000 rejects took six minutes: each mark read those before it. The live page did so, too."""
    read, times = edgead.marks._read, []
    monkeypatch.setattr(edgead.marks, "_read", lambda path: times.append(path) or read(path))
    found = saved_rejects(rejects, Marks(rejects / "none"))
    pictures = [one.picture for one in found]
    mark_files(pictures[:2], "unsure")
    page = Marks(rejects / "marks")
    assert len(page.all()) == 2
    times.clear()
    mark_files(pictures[2:], "false reject")
    assert len(times) == 1
    assert len(page.all()) == len(pictures) == 8  # it sees marks of another process
    times.clear()
    page.set(found[0].stem, found[0].result, "real defect", "", found[0].picture.read_bytes)
    assert page.all() == Marks(rejects / "marks").all()
    assert [page.of(one.result["id"]) for one in found[:2]] == ["real defect", "unsure"]
    assert len(times) == 1  # by the new one of the line before
    again = [rejects / "marks" / mark.picture for mark in page.all().values()]
    times.clear()
    mark_files(again, "real defect")
    assert len(times) == 1
    assert set(mark.mark for mark in page.all().values()) == {"real defect"}


def test_a_threshold_far_above_all_good_images_is_warned_of(rejects: Path, bundle: Bundle) -> None:
    """1400 where 140 was meant lets every part pass. No real defect is marked that would show it."""
    assert inside("review", picture_of(rejects, 150), "--as", "false-reject").returncode == 0
    out = rejects / "new.edgead"
    for threshold, far in (("150", False), ("1400", True)):
        done = inside("review", rejects, "--bundle", bundle.path, "--threshold", threshold, "--write", out, "--force")
        assert done.returncode == 0, done.stderr
        assert ("far above their scores, 90 to 138" in done.stderr) == far


def test_a_share_given_for_the_run_in_place_of_a_reviewed_threshold_is_warned_of(
    rejects: Path, bundle: Bundle, tmp_path: Path
) -> None:
    """The version then decides like the bundle, as a shadow and after it took over."""
    mark_all(rejects)
    write = ("--threshold", "100", "--write", tmp_path / "new.edgead")
    assert inside("review", rejects, "--bundle", bundle.path, *write).returncode == 0
    frame = tmp_path / "120.png"
    frame.write_bytes(encode_png(frame_of(120)))
    line = ("run", bundle.path, "--source", frame, "--shadow", tmp_path / "new.edgead", "--json")
    warning = "Warning: new decides by --threshold 137 instead of its own threshold, 100. People have chosen"
    for options, counts, warned in ((), [0, 1], False), (("--threshold", "fpr:0.05"), [1, 0], True):
        done = inside(*line, *options)
        assert [*json.loads(done.stdout.splitlines()[-1])["shadow"].values()] == counts
        assert (warning in done.stderr) == warned, done.stderr


def pictures_in(rejects: Path) -> list[str]:
    return sorted(path.parent.name for path in (rejects / "marks").rglob("*.png"))


@pytest.mark.parametrize("before", [None, "unsure"])
def test_a_picture_lies_in_the_folder_of_its_last_mark_alone(rejects: Path, before: str | None) -> None:
    """``images`` is a data set: a defect that is left among the good ones is trained on."""
    picture = picture_of(rejects, 180)
    if before:
        mark_files([picture], before)
    log, kept = rejects / "marks" / "marks.jsonl", rejects / "kept"
    if before:
        log.rename(kept)
    log.mkdir(parents=True)  # nothing can be written to it
    with pytest.raises(OSError, match=r"marks\.jsonl"):
        mark_files([picture], "false reject")
    assert pictures_in(rejects) == ([before] if before else [])
    log.rmdir()
    left = rejects / "marks" / "images" / "good" / picture.name  # by a process that was killed before its line
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(picture.read_bytes())
    if before:
        kept.rename(log)
    mark_files([picture], "real defect")
    assert pictures_in(rejects) == ["bad"]


def test_the_page_sees_a_mark_of_the_command_line(rejects: Path) -> None:
    page = Marks(rejects / "marks")
    [result] = [one.result for one in saved_rejects(rejects, page) if one.result["score"] == 180]
    assert page.of(result["id"]) == ""
    mark_files([picture_of(rejects, 180)], "real defect", by="Ada")
    assert page.of(result["id"]) == "real defect"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nothing.png", "--as", "unsure"], "nothing.png does not exist"),
        (["rejects/other.png", "--as", "unsure"], "belongs to no FAIL"),
        (["nowhere"], "nowhere is not a folder"),
        (["nowhere", "--marks", "rejects"], "nowhere is not a folder"),
        (["rejects", "--marks", "nowhere"], "--marks nowhere is not a folder"),
        (["rejects", "--marks", "nowhere", "--bundle", "BUNDLE"], "--marks nowhere is not a folder"),
        (["rejects", "--bundle", "BUNDLE"], "Nothing is marked"),
        (["rejects", "--write", "new.edgead"], "--write has no effect without --bundle"),
        (["rejects", "rejects"], "several PATHS"),
        (["rejects", "--as", "good"], "'good' is not one of"),
    ],
)
def test_bad_input_is_named(arguments: list[str], error: str, rejects: Path, bundle: Bundle) -> None:
    (rejects / "other.png").write_bytes(b"")
    done = inside("review", *(a.replace("BUNDLE", str(bundle.path)) for a in arguments), folder=rejects.parent)
    assert done.returncode == 2
    assert error in done.stderr


def test_a_threshold_is_proposed_and_written_as_a_version(rejects: Path, bundle: Bundle, tmp_path: Path) -> None:
    mark_all(rejects)
    new = tmp_path / "line-2.edgead"
    asked = ["review", rejects, "--bundle", bundle.path, "--engine", "onnxruntime"]
    value = json.loads(inside(*asked, "--json").stdout)
    assert value["proposed"] == pytest.approx(160.01)  # the highest false reject below 180, and the tolerance
    by_name = {effect["name"]: effect for effect in value["effects"]}
    assert [by_name["present"][key] for key in ("false_rejects", "real_defects", "unsure", "held_out")] == [4, 3, 1, 0]
    assert [by_name["proposed"][key] for key in ("false_rejects", "real_defects", "unsure", "held_out")] == [1, 3, 1, 0]
    assert by_name["fpr:0.1"]["held_out"] == 4
    said = inside(*asked, "--write", new, "--by", "Ada", "--why", "dust", "--force")
    assert said.returncode == 0, said.stderr
    for text in ("Proposed: 160.01, lets 3 of 4", "biased sample", "nothing about parts that passed", "0 of 3 marked"):
        assert text in " ".join(said.stdout.split())
    made = read_bundle(new)
    assert (made.manifest.name, made.manifest.threshold.value) == ("line-2", value["proposed"])
    assert made.manifest.threshold.false_reject_bound == bundle.manifest.threshold.false_reject_bound
    assert made.manifest.files == bundle.manifest.files  # graphs and golden frames, byte for byte
    assert made.manifest.digest != bundle.manifest.digest
    engine = open_engine("onnxruntime", made)
    assert check_golden(made, engine).good
    engine.close()
    [change] = made.manifest.changes or ()
    assert (change.before, change.base, change.by, change.why) == (140.0, bundle.manifest.digest, "Ada", "dust")
    assert change.marked == {"false reject": 4, "real defect": 3, "unsure": 1}
    assert "140 to 160.01 by Ada" in inside("inspect", new, "--engine", "onnxruntime").stdout
    line = json.loads((rejects / "marks" / "audit.jsonl").read_text().splitlines()[-1])
    assert (line["action"], line["who"], line["to"], line["out"]) == ("version", "Ada", value["proposed"], str(new))


def test_marks_of_another_product_decide_nothing(rejects: Path, bundle: Bundle, tmp_path: Path) -> None:
    """A line with products saves the rejects of all in one folder: a cap's defect is none of a bottle."""
    mark_all(rejects)
    file = rejects / "marks" / "marks.jsonl"
    file.write_text(file.read_text().replace('"recipe": null', '"recipe": "bottle 1"'))
    asked = ["review", rejects, "--engine", "onnxruntime", "--json", "--bundle"]
    alone = json.loads(inside(*asked, bundle.path).stdout)
    result = {"id": "of-a-cap", "recipe": "cap 1", "bundle": "cap"}
    Marks(rejects / "marks").set("of-a-cap", result, "real defect", "Ada", lambda: encode_png(frame_of(155)))
    beside = json.loads(inside(*asked, bundle.path).stdout)
    assert beside["unread"] == ["1 marks of other products"]
    assert (beside["proposed"], beside["marked"]) == (alone["proposed"], alone["marked"])
    unknown = make_level_bundle(tmp_path / "unknown.edgead")
    said = inside(*asked, unknown.path)
    assert (said.returncode, "of several products: bottle, cap." in said.stderr) == (2, True)


@pytest.mark.parametrize(
    ("recipes", "several"),
    [
        ([("bottle 1", "b-1"), ("bottle 2", "b-2"), (None, "cap")], False),
        ([("red 1", "both"), ("blue 1", "both"), ("red 2", "newer"), ("blue 2", "newest")], False),
        ([("bottle 1", "b-1"), ("cap 1", "c-1")], True),
        ([("red 1", "one"), ("blue 1", "other"), ("red 2", "both"), ("blue 2", "both"), ("cap 1", "cap")], True),
    ],
)
def test_products_that_share_a_bundle_count_as_one(
    recipes: list[tuple[str | None, str]], several: bool, tmp_path: Path
) -> None:
    marks = [
        Mark(str(n), "unsure", "", "", "", {"recipe": recipe, "bundle": name})
        for n, (recipe, name) in enumerate(recipes)
    ]
    if several:
        with pytest.raises(ConfigError, match="of several products"):
            of_one_product(marks, tmp_path)
    else:
        assert of_one_product(marks, tmp_path) == marks


def test_no_threshold_is_proposed_without_all_marked_defects(rejects: Path, bundle: Bundle) -> None:
    """A picture was moved away, or a line was damaged: the defect may be the one that the threshold lets pass."""
    mark_all(rejects)
    asked = ["review", rejects, "--bundle", bundle.path, "--engine", "onnxruntime"]
    kept = Marks(rejects / "marks")
    lowest = next(one for one in kept.all().values() if one.mark == "real defect")
    unsure = next(one for one in kept.all().values() if one.mark == "unsure")
    (kept.folder / unsure.picture).unlink()
    value = json.loads(inside(*asked, "--json").stdout)
    assert value["unread"] == [f"{unsure.picture} is not there any more"]
    assert value["proposed"] is not None
    (kept.folder / lowest.picture).unlink()
    said = inside(*asked, "--write", rejects / "new.edgead")
    assert said.returncode == 2
    assert "There is no proposal to write. 1 marked real defects cannot be scored" in said.stderr
    assert "proposed" in inside(*asked, "--threshold", "150").stdout
    for one in kept.all().values():
        (kept.folder / one.picture).unlink(missing_ok=True)
    assert "None of the 8 marked pictures is in" in inside(*asked).stderr


def test_a_damaged_mark_may_be_that_of_a_defect(rejects: Path, bundle: Bundle) -> None:
    mark_all(rejects)
    file = rejects / "marks" / "marks.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"real defect"', b'"real d\xff\xffect"', 1))
    value = json.loads(inside("review", rejects, "--bundle", bundle.path, "--engine", "onnxruntime", "--json").stdout)
    assert "1 damaged lines of marks.jsonl" in value["unread"]
    assert (value["proposed"], value["reason"].split(",")[0]) == (None, "damaged marks cannot be scored")


def test_a_version_replaces_only_another_bundle(bundle: Bundle, tmp_path: Path) -> None:
    def write(out: Path, force: bool = False) -> None:
        write_version(bundle, out, 150.0, marks=tmp_path, marked={}, force=force)

    with pytest.raises(ConfigError, match="under review"):
        write(bundle.path, force=True)
    write(tmp_path / "new.edgead")
    with pytest.raises(ConfigError, match="--force"):
        write(tmp_path / "new.edgead")
    write(tmp_path / "new.edgead", force=True)
    (tmp_path / "new.edgead" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        write(tmp_path / "new.edgead", force=True)


def test_a_version_that_cannot_be_written_leaves_nothing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgead.review.version.write_manifest", refuse)
    with pytest.raises(OSError, match="No space"):
        write_version(bundle, tmp_path / "new.edgead", 150.0, marks=tmp_path, marked={})
    assert not (tmp_path / "new.edgead").exists()
    assert "No space" in json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[-1])["failed"]


@pytest.mark.parametrize(
    ("good", "bad", "value", "reason"),
    [
        ((1.2, 1.4), (2.0,), 1.41, "lets 2 of 2"),
        ((1.2, 1.4), (1.41,), 1.405, "lets 2 of 2"),
        ((1.2, 2.5), (2.0,), 1.21, "lets 1 of 2"),
        ((), (2.0,), None, "no false reject is marked"),
        ((1.2,), (), None, "no real defect is marked"),
        ((1.2,), (0.8, 2.0), None, "1 of 2 marked real defects already pass"),
        ((0.8,), (2.0,), None, "already passes"),
        ((2.5,), (2.0,), None, "Train again"),
    ],
)
def test_a_proposal_loses_no_marked_defect(
    good: tuple[float, ...], bad: tuple[float, ...], value: float | None, reason: str
) -> None:
    proposed, why = propose(scored(good, bad), 1.0, 0.01)
    assert proposed == (None if value is None else pytest.approx(value))
    assert reason in why


def test_the_promise_of_a_moved_threshold_holds() -> None:
    """The share of good parts above it, on average over many lines: at most what is stated."""
    rng = np.random.default_rng(7)
    failing: dict[str, list[float]] = {"higher": [], "lower": []}
    stated: dict[str, list[float]] = {"higher": [], "lower": []}
    for _ in range(400):
        scores = np.sort(rng.uniform(size=60))
        stored = StoredThreshold.of(conformal_threshold(scores, 0.05), scores.tolist(), scores.tolist())
        for name, value in (("higher", stored.value + 0.002), ("lower", 0.8)):
            failing[name].append(1 - min(value, 1.0))  # a new part's score is uniform too
            stated[name].append(moved(stored, value).false_reject_bound)
    for name in failing:
        assert np.mean(failing[name]) <= np.mean(stated[name])
    assert np.mean(stated["lower"]) == pytest.approx(0.2, abs=0.03)
    assert moved(StoredThreshold(1.0, 0, 1.0, 1.0), 2.0).describe().endswith("--threshold-data")


def test_marks_of_a_folder_are_found(rejects: Path) -> None:
    assert marks_folder(rejects) == rejects / "marks"
    mark_files([picture_of(rejects, 150)], "unsure")
    assert marks_folder(rejects / "marks") == rejects / "marks"


@pytest.mark.parametrize(
    "change",
    [{"picture": 5}, {"picture": "../../secret.png"}, {"picture": "/etc/hosts"}, {"by": None}, {"id": 3}, {"at": []}],
    ids=str,
)
def test_damaged_marks_are_left_out(change: dict[str, object], tmp_path: Path) -> None:
    good = {"id": "a", "mark": "unsure", "by": "Ada", "at": "2026", "picture": "unsure/a.png", "result": {}}
    lines = [json.dumps(each) for each in (good, {**good, "id": "b", **change})]
    (tmp_path / "marks.jsonl").write_text("\n".join(lines) + "\n")
    assert list(Marks(tmp_path).all()) == ["a"]
