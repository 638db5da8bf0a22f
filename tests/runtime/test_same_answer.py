"""A bundle's scores agree to its tolerance: batch sizes, threads, processes, cores, and processors with fewer
instructions. A bundle of each released format is kept and still gives the scores that it was written with.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from aligned_parts import lying, part_frame
from level_bundle import LEVELS, frame_of, needs_openvino, open_any
from numpy.typing import NDArray
from running import start_process

import edgead
from edgead.bundle import FORMAT, Bundle, manifest_digest, read_bundle
from edgead.errors import BundleError
from edgead.files import sha256
from edgead.geometry.pose import Pose
from edgead.runtime.engines.opening import open_engine
from edgead.runtime.golden import check_golden

TESTS = Path(__file__).parents[1]
KEPT = {number: TESTS / f"format_{number}" / "bundles" / "level.edgead" for number in range(1, FORMAT + 1)}
DIGESTS = {
    1: "98cae24c0ac2556fe28bd86dfe4fc55c745f36027f8b8416224be0f26e8e12f5",
    2: "a338f05551886b2f06ed71f8fa68c627941d156aa591924cdcc7a3c60afe742e",
    3: "49274d151d4c344b28abb21ac927db8551f1adfd49f8ef8043c65724aeb4dfb0",
}
"""SHA-256 of the kept bundles' manifests, as edgead 0.1.0 wrote them."""
ENGINES = ["onnxruntime", pytest.param("openvino", marks=needs_openvino)]
SCORE = """
import json, os, sys
import numpy as np
import edgead
if cores := json.loads(sys.argv[4]):
    os.sched_setaffinity(0, cores)
frames = np.load(sys.argv[2])
with edgead.load(sys.argv[1], engine=sys.argv[3]) as inspector:
    outputs = [inspector.engine.infer(frames[i : i + 1]) for i in range(len(frames))]
print(json.dumps([[float(scores[0]), float(maps.max())] for scores, maps in outputs]))
"""


@pytest.fixture(scope="module")
def frames(bundle: Bundle) -> NDArray[np.uint8]:
    """Noise of several kinds, and the golden frames: ``[N, h, w, 3]``."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, high, bundle.manifest.shape, dtype=np.uint8) for high in (2, 64, 256)]
    return np.concatenate([noise, bundle.golden().frames])


@pytest.mark.parametrize("name", ENGINES)
def test_batches_of_any_size_and_threads_score_alike(bundle: Bundle, frames: NDArray[np.uint8], name: str) -> None:
    engine, parity = open_engine(name, bundle, batch=len(frames)), bundle.manifest.parity
    single = [engine.infer(frame[None]) for frame in frames]
    for size in (2, 3, len(frames)):
        for start in range(0, len(frames), size):
            scores, maps = engine.infer(frames[start : start + size])
            for place, (score, anomaly_map) in enumerate(zip(scores, maps), start):
                assert abs(score - single[place][0][0]) <= parity.tolerance
                assert np.abs(anomaly_map - single[place][1][0]).max() <= (parity.map_tolerance or parity.tolerance)
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda frame: engine.infer(frame[None]), [*frames] * 3))
    for number, (scores, maps) in enumerate(again):
        wanted = single[number % len(frames)]
        assert abs(scores[0] - wanted[0][0]) <= parity.tolerance
        assert np.abs(maps - wanted[1]).max() <= (parity.map_tolerance or parity.tolerance)
    engine.close()


@pytest.mark.slow
def test_processes_cores_and_older_processors_score_alike(
    bundle: Bundle, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    """OpenVINO takes the instructions that ``ONEDNN_MAX_CPU_ISA`` allows; ONNX Runtime has no such switch.

    With SSE4.1 alone OpenVINO 2026.4 returns nothing for a graph, which the engine refuses.
    """
    np.save(tmp_path / "frames.npy", frames)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    kinds = [("onnxruntime", "", []), ("onnxruntime", "", cores[:1])]
    if edgead.errors.is_installed("openvino"):
        kinds += [("openvino", isa, []) for isa in ("AVX2", "AVX512_CORE")]
    started = {}
    for engine, isa, pinned in kinds:
        environment = {**os.environ, "PYTHONPATH": str(Path(edgead.__file__).parents[1])}
        if isa:
            environment["ONEDNN_MAX_CPU_ISA"] = isa
        command = [
            sys.executable,
            "-c",
            SCORE,
            str(bundle.path),
            str(tmp_path / "frames.npy"),
            engine,
            json.dumps(pinned),
        ]
        started[engine, isa, len(pinned)] = start_process(command, env=environment)
    found = {}
    for kind, process in started.items():
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, (kind, errors)
        found[kind] = np.array(json.loads(out))
    reference = open_engine("onnxruntime", bundle)
    here = np.array([[scores[0], maps.max()] for scores, maps in (reference.infer(frame[None]) for frame in frames)])
    allowed = [
        bundle.manifest.parity.tolerance,
        bundle.manifest.parity.map_tolerance or bundle.manifest.parity.tolerance,
    ]
    assert not {
        kind: np.abs(each - here).max(axis=0) for kind, each in found.items() if (np.abs(each - here) > allowed).any()
    }


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("number", KEPT)
def test_a_bundle_of_each_released_format_gives_the_scores_it_was_written_with(name: str, number: int) -> None:
    kept = read_bundle(KEPT[number])
    assert (kept.manifest.format, kept.manifest.digest) == (number, DIGESTS[number])
    others = [path for path in kept.path.iterdir() if not path.name.startswith("manifest.")]
    assert {path.name: sha256(path) for path in others} == kept.manifest.files
    engine = open_any(name, kept)
    assert check_golden(kept, engine).good
    for level in LEVELS:
        scores, maps = engine.infer(frame_of(level)[None])
        assert scores[0] == pytest.approx(level, abs=0.01)
        assert np.allclose(maps, level, atol=0.01)
    engine.close()


def test_a_kept_bundle_aligns_frames() -> None:
    """Its reference picture is a `part_frame`: a part that lies elsewhere is found, a grey frame shows none."""
    moved = lying(part_frame(defect=True), Pose(90.0, 0.05, -0.1))
    with edgead.load(KEPT[3], engine="onnxruntime") as inspector:
        seen = inspector.inspect(moved)
        assert (str(seen.verdict), round(seen.score)) == ("FAIL", 250)
        assert moved[seen.mask].mean() > 170  # the plate has 120
        assert inspector.inspect(np.full_like(moved, 60)).cause == "misplaced"


def test_a_kept_bundle_has_its_geometry_and_its_signature() -> None:
    """Of the middle of a frame two tiles, which overlap; what is beside them is not seen."""
    frame = np.full((60, 160, 3), 40, np.uint8)
    frame[10:20, 5:25] = 250
    trusted = {"trust": KEPT[2].with_name("signer.pub"), "engine": "onnxruntime"}
    with edgead.load(KEPT[2], **trusted) as inspector:
        assert inspector.inspect(frame).score == pytest.approx(40, abs=0.01)
        frame[50:58, 70:90] = 200  # in the lower tile
        seen = inspector.inspect(frame)
        assert seen.score == pytest.approx(200, abs=0.01)
        assert seen.mask[50:58, 72:88].all()
        assert not seen.mask[:, :40].any()
    with pytest.raises(BundleError, match="signed"):
        edgead.load(KEPT[1], **trusted)


@pytest.mark.parametrize("number", KEPT)
@pytest.mark.parametrize(
    ("writer", "said"),
    [
        ("2.3.1", r"written by edgead 2\.3\.1; this edgead reads up to 3\.\n.*pip install --upgrade 'edgead>=2\.3\.1'"),
        ("'; rm -rf /", r"reads up to 3\.\n.*pip install --upgrade edgead$"),
        (7, r"pip install --upgrade edgead$"),
    ],
)
def test_a_newer_format_is_refused_with_the_version_that_reads_it(
    writer: object, said: str, number: int, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(KEPT[number], tmp_path / "new.edgead"))
    values = {**json.loads((copy / "manifest.json").read_text()), "format": FORMAT + 1, "edgead": writer}
    values["digest"] = manifest_digest(values)
    (copy / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match=said):
        edgead.load(copy)
