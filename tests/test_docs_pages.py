"""Pages that tell what to type: every command and program on them runs, in their order, in one folder."""

from __future__ import annotations

import json
import re
import shutil
import sys
import webbrowser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import inside
from level_bundle import SIDE, frame_of, make_level_bundle
from page_steps import Page, follow, steps

from edgead.bundle import Bundle
from edgead.images import encode_png, read_image
from edgead.plan import measure
from edgead.runtime.engines import Opening

ROOT = Path(__file__).parents[1]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.fixture
def level(tmp_path: Path) -> Path:
    """The folder of a test, with a bundle that opens at once."""
    make_level_bundle(tmp_path / "bottle.edgead")
    return tmp_path


def test_plan(level: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "FRAMES", 20)
    shutil.copytree(level / "bottle.edgead", level / "bottle-int8.edgead")
    [said] = follow(page("plan.md"), level, Page(codes={"": {0, 5}}))
    head = next(line for line in page("plan.md").splitlines() if "engine in use" in line)
    assert said.splitlines()[0].split() == head.split()
    assert "4 cameras at 30 frames per second and a verdict within 20 ms" in said


def test_the_live_page(level: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is a folder of parts; one of them is marked, as an operator would, and is data afterwards."""
    monkeypatch.setenv("VIEW_TOKEN", "twelve-or-more-characters")
    (level / "bundles").mkdir()
    for name, grey in (("good", 100), ("bad", 200)):
        for folder in (level / "parts", level / "marks" / "images" / name):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.png").write_bytes(encode_png(frame_of(grey)))
    replaced = {"front=images": "front=parts", "0.0.0.0:8080": "127.0.0.1:0", "--view  ": "--view 0  "}
    first, second, _, _, third = follow(page("live-page.md"), level, Page(replaced))
    assert "Live page: http://127.0.0.1:" in first
    assert "captured 2 = passed 1 + failed 1" in second
    assert len(list((level / "rejects").glob("*.png"))) > 0
    assert "bottle" in third
    [row] = json.loads((level / "marked-report" / "results.json").read_text())["rows"]
    assert row["images"] == {"good": 1, "defective": 1, "with_mask": 0, "skipped": 0}


@pytest.mark.slow
def test_reports(level: Path, trained: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    shutil.copytree(trained, level / "runs" / "train" / "RUN")
    shutil.rmtree(level / "bottle.edgead")
    shutil.copytree(bundle.path, level / "bottle.edgead")
    recorded = ROOT / "tests" / "benchmark" / "recorded"
    for name in ("runs/benchmark/TIME", "runs/sweep/NAME", "a", "b"):
        (level / name).mkdir(parents=True)
        shutil.copy(recorded / "results.json", level / name)
    said = follow(page("reports.md"), level, Page())
    pages = [level / each.strip() for each in said]
    assert [each.name for each in pages] == ["report.html"] * 4 + ["all.html"]
    assert all("<html" in each.read_text(encoding="utf-8") for each in pages)
    assert opened == [pages[1].resolve().as_uri()]
    assert (level / "pareto.svg").is_file()


def write_lookout(folder: Path, parts: Path) -> None:
    """Write a data set as Lookout for Vision exports it: manifests, pictures below, masks in colour."""
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for place, kind, part in (
        ("train/good", "normal", "train"),
        ("test/good", "normal", "test"),
        ("test/chip", "anomaly", "test"),
    ):
        for path in sorted((parts / place).iterdir()):
            name = f"images/{place.replace('/', '-')}-{path.name}"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / name)
            row: dict[str, Any] = {"source-ref": f"s3://bucket/datasets/{name}", "anomaly-label": 0}
            row["anomaly-label-metadata"] = {"class-name": kind, "type": "groundtruth/image-classification"}
            if kind == "anomaly":
                mask = read_image(parts / "ground_truth" / "chip" / f"{path.stem}_mask.png")
                coloured = np.where(
                    mask.reshape(*mask.shape[:2], -1)[..., :1] > 0, np.uint8([0x2C, 0xA0, 0x2C]), np.uint8(255)
                )
                (folder / "masks").mkdir(exist_ok=True)
                (folder / "masks" / path.name).write_bytes(encode_png(np.ascontiguousarray(coloured)))
                row["anomaly-mask-ref"] = f"s3://bucket/datasets/masks/{path.name}"
                row["anomaly-mask-ref-metadata"] = {
                    "internal-color-map": {
                        "0": {"class-name": "BACKGROUND", "hex-color": "#ffffff", "confidence": 0.0},
                        "1": {"class-name": "chip", "hex-color": "#2ca02c", "confidence": 0.0},
                    },
                    "type": "groundtruth/semantic-segmentation",
                }
            rows[part].append(row)
    for part, lines in rows.items():
        (folder / f"{part}.manifest").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.slow
def test_from_lookout(parts: Path, tmp_path: Path) -> None:
    write_lookout(tmp_path / "lookout", parts)
    said = follow(page("lookout.md"), tmp_path, Page())
    assert "lookout: lookout layout, 10 good images to train on, 2 held out" in said[0]
    results = json.loads((tmp_path / "lookout-report" / "results.json").read_text())
    [row] = results["rows"]
    assert row["images"] == {"good": 4, "defective": 2, "with_mask": 2, "skipped": 0}


@pytest.mark.long
def test_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "FRAMES", 20)
    said = follow(
        page("tutorial.md"),
        tmp_path,
        Page(
            {
                "draw_parts.py washer/": "draw_parts.py washer/ 12 4 2",
                "--engine onnxruntime --engine openvino": "",
                "?existing=1&subfolders=1' --view": "?existing=1&subfolders=1' --view 0 --max-frames 3",
            },
            codes={"edgead plan": {0, 5}},
            printed=("threshold 0.255631", "captured 80"),
        ),
    )
    assert "12 good parts to train on, 4 good and 8 defective ones" in said[0]
    assert sum("captured 12 = passed" in each for each in said) == 1
    assert sum("captured 3 = " in each and "Live page: http://127" in each for each in said) == 1
    # So brief a training gives every picture one score, that of the threshold: two engines may decide differently.
    [counts] = [re.findall(r"\d+", each) for each in said if "passed," in each]
    assert sum(map(int, counts)) == 12
    verdicts = [json.loads(line)["verdict"] for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    assert f"{12 - verdicts.count('PASS')} of 12 parts are not PASS" in said[-1]
    assert (tmp_path / "pin").read_text() == "0"
    assert len(list((tmp_path / "overlays").rglob("*.overlay.png"))) == 12
    assert len(json.loads((tmp_path / "both" / "results.json").read_text())["rows"]) == 2


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """docs/contribute.md as an installed package `my_package`, with the entry points that the page names."""
    text = page("contribute.md")
    blocks = [block for kind, block in steps(text) if kind == "python"]
    assert len(blocks) == 4
    site = tmp_path / "site"
    (site / "my_package-1.dist-info").mkdir(parents=True)
    (site / "my_package.py").write_text("\n".join(block for block in blocks if "entry_points" not in block))
    points: dict[str, Any] = {}
    exec(next(block for block in blocks if "entry_points" in block), points)
    groups = dict(points["entry_points"])
    for group, point in re.findall(
        r"group(?: is|'s name is)? `(edgead\.\w+)`(?:, its value `(my_package:\w+)`)?", text
    ):
        groups.setdefault(group, [f"one-thread = {point}" if point else "lamp = my_package:open_lamp"])
    assert groups.keys() == {"edgead.sources", "edgead.sinks", "edgead.engines"}
    lines = [line for group, entries in groups.items() for line in (f"[{group}]", *entries)]
    (site / "my_package-1.dist-info" / "METADATA").write_text("Name: my-package\nVersion: 1\n")
    (site / "my_package-1.dist-info" / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "my_package", raising=False)
    return site


@pytest.mark.usefixtures("package")
def test_the_parts_that_contributors_add(level: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source, a sink and an engine of the page, on the command line, by their entry points."""
    import edgead

    frames = np.stack([frame_of(grey) for grey in (10, 100, 200)])
    assert frames.shape[1:] == (SIDE, SIDE, 3)
    frames.tofile(level / "line.raw")
    monkeypatch.chdir(level)
    done = inside(
        "run",
        "bottle.edgead",
        "--source",
        "raw:line.raw",
        "--sink",
        "lamp:any",
        "--sink",
        "jsonl:out.jsonl",
        "--engine",
        "one-thread",
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [(line["score"], line["verdict"]) for line in lines] == [
        (pytest.approx(10, abs=0.01), "PASS"),
        (pytest.approx(100, abs=0.01), "PASS"),
        (pytest.approx(200, abs=0.01), "FAIL"),
    ]
    assert {line["engine"] for line in lines} == {"one-thread"}
    import my_package  # type: ignore[import-not-found]

    with edgead.load("bottle.edgead", engine="one-thread") as inspector:
        results = list(inspector.stream(my_package.RawFrames(Path("line.raw"))))
        lamp = my_package.open_lamp("lamp:any")
        for result in results[:2]:
            lamp.write(result)
        assert not lamp.on
        lamp.write(results[2])
        assert lamp.on
        opened = my_package.SPEC.open(inspector.bundle, Opening(1, None, None))  # type: ignore[arg-type]
        scores, maps = opened.infer(frames)
        assert scores == pytest.approx([10, 100, 200], abs=0.01)
        assert maps.shape == (3, SIDE, SIDE)
