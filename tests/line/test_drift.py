"""Drift: the test, its rate of false alarms, and a stream whose light fades."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import inside
from fading import Fading, make_watched_bundle, part
from level_bundle import frame_of, make_level_bundle

from edgead.bundle import Bundle, manifest_digest, read_bundle, write_manifest
from edgead.errors import BundleError, ConfigError
from edgead.files import write_json
from edgead.images import encode_png
from edgead.line.drift import MEASURES, Drift, DriftSettings, Windows
from edgead.line.two_samples import distance, probability_of_reaching, smallest_significant
from edgead.runtime.inspector import load
from edgead.runtime.run import run
from edgead.runtime.sources.source import FrameSource
from edgead.runtime.stream import Stream


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_watched_bundle(tmp_path_factory.mktemp("drift") / "line.edgead")


def watch_over(bundle: Bundle, source: FrameSource, drift: Drift) -> list[Any]:
    with load(bundle.path, engine="onnxruntime") as inspector:
        return list(Stream(inspector, [source], watch=drift, say=lambda text: None))


def test_the_probability_is_that_of_all_orders() -> None:
    """Against the known values of the two-sample test, and against simulation."""
    assert probability_of_reaching(25, 5, 5) == pytest.approx(2 / math.comb(10, 5))
    assert probability_of_reaching(1, 5, 5) == pytest.approx(1.0)
    assert smallest_significant(2, 200, 5e-5) is None
    rng = np.random.default_rng(3)
    limit = smallest_significant(30, 60, 0.02)
    assert limit is not None
    assert probability_of_reaching(limit, 30, 60) <= 0.02 < probability_of_reaching(limit - 30, 30, 60)
    draws = np.sort(rng.normal(size=(20_000, 30)), axis=1), np.sort(rng.normal(size=(20_000, 60)), axis=1)
    share = np.mean([distance(one, other) >= limit for one, other in zip(*draws)])
    assert share == pytest.approx(probability_of_reaching(limit, 30, 60), abs=0.003)


def test_the_exact_test_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(4)
    for n, m in ((5, 7), (20, 200), (50, 200), (200, 200)):
        one, other = np.sort(rng.normal(size=n)), np.sort(rng.normal(0.4, 1, size=m))
        found, known = distance(one, other), stats.ks_2samp(one, other, method="exact")
        assert found / (n * m) == pytest.approx(known.statistic)
        assert probability_of_reaching(found, n, m) == pytest.approx(known.pvalue, rel=1e-6)


def test_false_alarms_are_as_rare_as_stated() -> None:
    """A million frames without drift, of 250 lines with 40 held-out images each; 40 false alarms are allowed."""
    settings, rng = DriftSettings(window=200, alarms=40.0), np.random.default_rng(5)
    alarms = 0
    for _ in range(250):
        windows = Windows(rng.normal(size=(40, 4)), settings.window, settings.alpha)
        for values in rng.normal(size=(4000, 4)):
            alarms += len(windows.add(tuple(values)))
    assert 10 <= alarms <= 40 + 3 * math.sqrt(40)


def test_an_alarm_lasts_until_a_window_is_as_it_was() -> None:
    rng, settings = np.random.default_rng(6), DriftSettings(window=100)
    windows = Windows(rng.normal(size=(40, 4)), settings.window, settings.alpha)

    def feed(shift: float) -> list[str]:
        shifts = np.array([0, shift, 0, 0])
        return [text for values in rng.normal(size=(100, 4)) + shifts for text in windows.add(tuple(values))]

    assert feed(0.0) == []
    [text] = feed(-5.0)
    assert text.startswith("brightness is lower: median -")
    assert feed(-5.0) == []  # it is known
    assert list(windows.active) == ["brightness"]
    assert feed(0.0) == []
    assert windows.active == {}
    assert len(feed(5.0)) == 1


def test_fading_light_is_an_event_in_every_sink_and_no_verdict(watched: Bundle, tmp_path: Path) -> None:
    drift, said, seen = Drift(DriftSettings()), list[str](), list[str]()
    plain = [result.verdict for result in watch_over(watched, Fading(), Drift(DriftSettings(window=0)))]
    sinks = [f"jsonl:{tmp_path / 'all.jsonl'}", f"sqlite:{tmp_path / 'all.sqlite'}", f"rejects:{tmp_path / 'rejects'}"]
    ends: list[Any] = []
    sources: Any = [Fading()]
    run(
        watched.path,
        sources=sources,
        sinks=sinks,
        engine="onnxruntime",
        watch=drift,
        on_result=lambda result: seen.append(result.cause),
        on_end=ends.append,
    )
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    events = [line for line in lines if line["cause"] == "drift"]
    assert len(lines) - len(events) == 800 == ends[0]["captured"] == ends[0]["inferred"]
    assert [line["verdict"] for line in lines if line["frame_id"] is not None] == [verdict.value for verdict in plain]
    assert {(line["frame_id"], line["source_id"], line["verdict"]) for line in events} == {(None, "front", "UNKNOWN")}
    first = lines.index(events[0])
    assert 600 <= first <= 800  # not before the light fades, and in the first or second window after it began
    assert "brightness is lower" in events[0]["reason"]
    assert ends[0]["reported_by_cause"] == {"drift": len(events)} == {"drift": seen.count("drift")}
    assert len(list((tmp_path / "rejects").glob("*-report.json"))) == len(events)
    assert "brightness is lower" in drift.alarms()["front"][0] or "score is lower" in drift.alarms()["front"][0]
    text = drift.to_prometheus()
    assert 'edgead_drift_alarm{source="front",measure="brightness"} 1' in text
    assert 'edgead_drift_alarm{source="front",measure="aspect"} 0' in text
    assert 'edgead_drift_windows_total{source="front"} 4' in text
    assert said == []


def test_steady_light_is_no_event(watched: Bundle) -> None:
    drift = Drift(DriftSettings())
    assert {result.cause for result in watch_over(watched, Fading(fades=False), drift)} == {""}
    assert drift.alarms() == {}


def test_a_camera_is_compared_once_in_a_while(watched: Bundle) -> None:
    """Frames at 10 Hz: every tenth is compared, so that a window of 20 needs 200 of them."""
    drift = Drift(DriftSettings(window=20))
    with load(watched.path, engine="onnxruntime") as inspector:
        rng = np.random.default_rng(7)
        for number in range(410):
            frame = part(rng)
            result = inspector.inspect(frame, source_id="front", t_capture=float(number) / 10)
            while not drift._windows.get(("front", watched.manifest.digest, result.threshold)):
                assert drift.see(inspector, result, frame, live=True) == ""  # the limit is being computed
            assert drift.see(inspector, result, frame, live=True) == ""
    assert 'edgead_drift_windows_total{source="front"} 2' in drift.to_prometheus()


def test_products_that_come_in_turn_are_all_watched(watched: Bundle) -> None:
    """Two products, each with its threshold, take turns every half second: the second one was never compared."""
    drift, rng = Drift(DriftSettings(window=20)), np.random.default_rng(7)
    with load(watched.path, engine="onnxruntime") as inspector:
        for number in range(84):
            inspector.threshold = watched.manifest.threshold.value + number % 2
            frame = part(rng)
            result = inspector.inspect(frame, source_id="front", t_capture=number / 2)
            while not drift._windows.get(("front", watched.manifest.digest, result.threshold)):
                drift.see(inspector, result, frame, live=True)  # the limit is being computed
            drift.see(inspector, result, frame, live=True)
    assert [windows.compared for windows in drift._windows.values() if windows] == [2, 2]


def test_only_frames_that_pass_are_compared(watched: Bundle) -> None:
    drift = Drift(DriftSettings(window=5))
    with load(watched.path, engine="onnxruntime") as inspector:
        frame = frame_of(200)
        result = inspector.inspect(frame)
        for _ in range(20):
            assert drift.see(inspector, result, frame, live=False) == ""
    assert drift.alarms() == {}


def test_a_bundle_without_a_record_is_not_watched(tmp_path: Path) -> None:
    old = make_level_bundle(tmp_path / "old.edgead")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.png").write_bytes(encode_png(frame_of(50)))
    done = inside("run", old.path, "--source", tmp_path / "parts", "--engine", "onnxruntime")
    assert done.returncode == 0
    assert "old: drift is not watched, because the bundle has no record of its held-out images" in done.stderr
    done = inside("run", old.path, "--source", tmp_path / "parts", "--engine", "onnxruntime", "--drift-window", "0")
    assert "drift" not in done.stderr
    assert "drift      not watched" in inside("inspect", old.path, "--engine", "onnxruntime").stdout


def test_a_line_that_changes_for_months_is_still_watched(watched: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each threshold and each bundle has windows of its own; the oldest ones make room."""
    monkeypatch.setattr("edgead.line.drift.MOST_OF_A_SOURCE", 3)
    monkeypatch.setattr("edgead.line.drift.MOST_SOURCES", 2)
    said: list[str] = []
    drift, picture = Drift(DriftSettings(), said.append), part(np.random.default_rng(0))
    with load(watched.path, engine="onnxruntime") as inspector:
        for number in range(9):
            inspector.threshold = watched.manifest.threshold.value + number * 1e-3
            for source in ("front", "side", "third"):
                result = inspector.inspect(picture, source_id=source)
                drift.see(inspector, result, picture, live=False)
                key = source, watched.manifest.digest, result.threshold
                assert (drift._windows.get(key) is not None) == (source != "third")
    assert len(drift._windows) == 6
    assert said == ["Drift is watched for at most 2 sources; the others are not watched."]


def test_too_few_images_are_named(watched: Bundle) -> None:
    said: list[str] = []
    drift = Drift(DriftSettings(), said.append)
    with load(watched.path, engine="onnxruntime", threshold=min(watched.manifest.threshold.scores) + 1.5) as inspector:
        frame = part(np.random.default_rng(8), 0.5)
        drift.see(inspector, inspector.inspect(frame), frame, live=False)
    assert len(said) == 1
    assert re.search(r"only [12] held-out images are below the threshold, too few for --drift-alarms 1\.", said[0])


def test_the_watch_may_fail_and_the_line_goes_on(watched: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no")

    monkeypatch.setattr("edgead.line.drift.look_at", fail)
    results = watch_over(watched, Fading(count=30), Drift(DriftSettings()))
    assert [result.verdict.value for result in results] == ["PASS"] * 30


def test_metrics_show_the_alarms(watched: Bundle) -> None:
    from edgead.runtime import metrics_server

    found: list[str] = []
    real = metrics_server.MetricsServer.close

    def read(server: metrics_server.MetricsServer) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
            found.append(answer.read().decode())
        real(server)

    sources: Any = [Fading()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics_server.MetricsServer, "close", read)
        run(watched.path, sources=sources, engine="onnxruntime", watch=Drift(DriftSettings()), metrics="0")
    assert 'edgead_drift_alarm{source="front",measure="brightness"} 1' in found[0]
    assert 'edgead_source_reports_total{source="front",cause="drift"}' in found[0]


@pytest.mark.parametrize(("name", "value"), [("window", 2001), ("alarms", 0), ("alarms", math.nan), ("every", -1)])
def test_settings_that_make_no_sense_are_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"--drift-{name} must be"):
        DriftSettings(**{name: value})  # type: ignore[arg-type]


def test_an_export_records_its_held_out_images(bundle: Bundle, tmp_path: Path) -> None:
    manifest = bundle.manifest
    seen = manifest.held_out
    assert seen is not None
    assert {len(seen.brightness), len(seen.sharpness), len(seen.aspects)} == {len(manifest.threshold.scores)}
    assert min(seen.brightness) > 0
    assert not seen.dark
    assert len(MEASURES) == 4
    folder = tmp_path / "cut.edgead"
    folder.mkdir()
    for name in manifest.files:
        (folder / name).write_bytes(bundle.content(name))
    cut = dataclasses.replace(manifest, held_out=dataclasses.replace(seen, brightness=seen.brightness[1:]))
    with pytest.raises(ConfigError, match=r"no program could read it: held_out\.brightness has"):
        write_manifest(folder, cut)
    assert not (folder / "manifest.json").exists()
    write_json(folder / "manifest.json", {**cut.to_dict(), "digest": manifest_digest(cut.to_dict())})
    with pytest.raises(BundleError, match=r"held_out\.brightness has"):
        read_bundle(folder)
