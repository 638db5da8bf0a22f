"""The bundle on disk: what is refused, and with which words."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from level_bundle import OFFSETS, make_level_bundle

from edgead.bundle import FORMAT, Bundle, manifest_digest, read_bundle
from edgead.bundle.graph_file import GraphError, check_graph
from edgead.errors import BundleError
from edgead.files import sha256
from edgead.runtime.engines.opening import open_engine
from edgead.runtime.golden import check_golden


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.path, tmp_path / "copy.edgead"))


def change_manifest(path: Path, **values: Any) -> None:
    """Change fields (None removes one) and seal the manifest again."""
    manifest = json.loads((path / "manifest.json").read_text())
    manifest.update(values)
    manifest = {key: value for key, value in manifest.items() if value is not None}
    manifest["digest"] = manifest_digest(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def hash_again(path: Path, *others: str) -> None:
    """Put the hashes of changed files into the manifest."""
    change_manifest(path, files={name: sha256(path / name) for name in ("golden.npz", "model.onnx", *others)})


def test_what_was_written_is_read(bundle: Bundle) -> None:
    again = read_bundle(bundle.path)
    assert again.manifest.to_dict() == bundle.manifest.to_dict()
    golden = again.golden()
    assert golden.frames.shape == (4, 64, 64, 3)
    assert golden.maps.shape == (4, 64, 64)
    assert set(again.manifest.files) == {path.name for path in bundle.path.iterdir()} - {"manifest.json"}


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
def test_a_flipped_bit_is_found(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        read_bundle(copy)


def test_a_changed_threshold_is_found(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["threshold"]["value"] += 0.5
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="was changed after it was written"):
        read_bundle(copy)


def test_a_missing_file_is_found(copy: Path) -> None:
    (copy / "golden.npz").unlink()
    with pytest.raises(BundleError, match=r"incomplete: golden\.npz is missing"):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "", "..", "a/b"])
def test_a_name_that_no_file_can_have(copy: Path, name: str) -> None:
    files = json.loads((copy / "manifest.json").read_text())["files"]
    change_manifest(copy, files={name: "0", **files})
    with pytest.raises(BundleError, match=r"is incomplete: .* is missing"):
        read_bundle(copy)


def test_a_newer_format_says_upgrade(copy: Path) -> None:
    change_manifest(copy, format=FORMAT + 1)
    with pytest.raises(BundleError, match=r"(?s)has format 4, .*this edgead reads up to 3.*pip install --upgrade"):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": None}, "it has no threshold"),
        ({"format": "one"}, "no format version"),
        ({"input": {"height": 64}}, "width"),
        ({"input": {"height": 64, "width": 64}}, "bit_depth"),
        ({"parity": {}}, "damaged"),
        ({"parity": {"score_error": 0, "map_error": 0}}, "tolerance"),
        ({"threshold": {"value": "high"}}, "damaged"),
        ({"threshold": {"value": 1, "normals": 10**9, "false_reject_bound": 0.5}}, "normals is 1000000000"),
        ({"files": {"model.onnx": "0"}}, "damaged"),
        ({"files": {}}, "does not list"),
        ({"files": {"../outside": "0"}}, "missing"),
        ({"files": ["model.onnx"]}, "damaged"),
        ({"mask_threshold": "x"}, "damaged"),
    ],
)
def test_a_damaged_manifest_is_refused(copy: Path, values: dict[str, Any], message: str) -> None:
    change_manifest(copy, **values)
    with pytest.raises(BundleError, match=message):
        read_bundle(copy)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1'])
def test_a_manifest_that_is_no_manifest(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="damaged"):
        read_bundle(copy)


def test_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        read_bundle(tmp_path / "absent")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        read_bundle(tmp_path)


def test_pickles_are_never_loaded(copy: Path) -> None:
    np.savez(copy / "golden.npz", frames=np.array([object()]), scores=np.zeros(1), maps=np.zeros(1))
    hash_again(copy)
    with pytest.raises(BundleError, match="pickle"):
        read_bundle(copy)


def arrays(copy: Path) -> dict[str, np.ndarray]:
    with np.load(copy / "golden.npz") as stored:
        return dict(stored)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.pop("maps"), "'maps' is missing"),
        (lambda found: found.update(scores=found["scores"].astype(np.float64)), "'scores' is float64"),
        (lambda found: found.update(frames=found["frames"][:, :8]), "'frames' is uint8"),
        (lambda found: found.update(maps=found["maps"][:1]), "'maps' is float32"),
        (lambda found: found.update(other=np.zeros(3)), "unknown array 'other'"),
        (lambda found: found.update({name: each[:0] for name, each in found.items()}), "1 to 64 frames"),
        (lambda found: found.update({name: each.repeat(20, 0) for name, each in found.items()}), "1 to 64 frames"),
    ],
)
def test_golden_arrays_must_be_those_of_the_model(
    copy: Path, change: Callable[[dict[str, np.ndarray]], Any], said: str
) -> None:
    found = arrays(copy)
    change(found)
    np.savez_compressed(copy / "golden.npz", **found)
    hash_again(copy)
    with pytest.raises(BundleError, match=said):
        read_bundle(copy)


def test_a_small_archive_does_not_take_much_memory(copy: Path) -> None:
    """Three megabytes of zeros that would become three gigabytes; a part of them, and what a header merely claims."""
    small = arrays(copy)
    for name, shape in (("frames", (3 << 20, 32, 32, 1)), ("other", (3 << 30,))):
        with zipfile.ZipFile(copy / "golden.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for each, values in small.items():
                if each != name:
                    with archive.open(f"{each}.npy", "w") as stream:
                        np.lib.format.write_array(stream, values)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
                stream.write(bytes(1 << 20))  # of what the header claims
        hash_again(copy)
        with pytest.raises(BundleError, match=r"does not hold the number of bytes|more than 1024 MB"):
            read_bundle(copy)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_arrays_are_packed_as_numpy_packs_them(copy: Path, method: int) -> None:
    """The header of LZMA claims how much memory its decoder takes, and its errors are of a type of their own."""
    found = arrays(copy)
    with zipfile.ZipFile(copy / "golden.npz", "w", method) as archive:
        for name, values in found.items():
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, values)
    hash_again(copy)
    with pytest.raises(BundleError, match="compressed in a way that NumPy does not write"):
        read_bundle(copy)


def add_tensor(copy: Path, **place: str) -> None:
    """Move the graph's first weights out of it, to a file of this place."""
    model = onnx.load(copy / "model.onnx")
    tensor = next(each for each in model.graph.initializer if each.raw_data)
    (copy / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)
    onnx.save(model, copy / "model.onnx")


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/passwd"])
@pytest.mark.parametrize("listed", [False, True])
def test_a_graph_holds_all_of_its_weights(copy: Path, location: str, listed: bool) -> None:
    add_tensor(copy, location=location)
    hash_again(copy, *(["weights.bin"] if listed else []))
    with pytest.raises(BundleError, match=r"model\.onnx is refused: it reads weights from another file"):
        read_bundle(copy)


def test_weights_are_looked_for_in_every_corner(copy: Path) -> None:
    """In constants, in graphs inside nodes, and in sparse tensors."""
    outside = onnx.TensorProto(dims=[1], data_type=1, data_location=1)
    outside.external_data.add(key="location", value="weights.bin")
    constant = onnx.NodeProto(op_type="Constant", output=["c"])
    constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(outside)
    inner = onnx.NodeProto(op_type="If", input=["c"], output=["d"])
    inner.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.node.append(constant)
    sparse = onnx.SparseTensorProto(dims=[4])
    sparse.values.CopyFrom(outside)
    original = onnx.load(copy / "model.onnx")
    for node in (constant, inner, None):
        model = onnx.ModelProto()
        model.CopyFrom(original)
        if node:
            model.graph.node.append(node)
        else:
            model.graph.sparse_initializer.append(sparse)
        with pytest.raises(GraphError, match="another file"):
            check_graph(model.SerializeToString())
    check_graph(original.SerializeToString())


def test_a_graph_that_may_never_end_is_refused(copy: Path) -> None:
    body = onnx.helper.make_graph([], "body", [], [])
    original = onnx.load(copy / "model.onnx")
    for kind in ("Loop", "Scan"):
        model = onnx.ModelProto()
        model.CopyFrom(original)
        inner = onnx.helper.make_node(kind, [], [], body=body)
        model.graph.node.append(
            onnx.helper.make_node("If", ["c"], ["d"], then_branch=onnx.helper.make_graph([inner], "t", [], []))
        )
        onnx.save(model, copy / "model.onnx")
        hash_again(copy)
        with pytest.raises(BundleError, match=f"contains a {kind}, which may never end"):
            read_bundle(copy)


@pytest.mark.parametrize("data", [b"", b"\x00" * 50, b"\x3a\xff\xff\xff\xff\x7f", b"ORTM" * 9, b"\xff" * 99])
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    with pytest.raises(GraphError, match=r"contains no graph|is not an ONNX file, or it is cut short"):
        check_graph(data)


def test_graphs_inside_graphs_do_not_exhaust_the_stack() -> None:
    def message(number: int, content: bytes) -> bytes:
        length, encoded = len(content), b""
        while length > 127:
            encoded, length = encoded + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + encoded + bytes([length]) + content

    graph = b""
    for _ in range(3000):
        graph = message(1, message(5, message(6, graph)))  # a node's attribute's graph
    with pytest.raises(GraphError, match="16 deep"):
        check_graph(message(7, graph))


def test_an_archive_of_millions_of_members_does_not_take_much_memory(copy: Path) -> None:
    """Python's reader keeps an object for each member before anybody can count them: here 46 bytes become 500."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", *([0] * 18))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(entry) * 200_000, 0, 0)
    (copy / "golden.npz").write_bytes(entry * 200_000 + end)
    hash_again(copy)
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match="more than 32 arrays"):
            read_bundle(copy)
        assert tracemalloc.get_traced_memory()[1] < 30e6  # the file itself has 9 MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["manifest.json", "golden.npz", "model.onnx"])
def test_a_pipe_in_a_bundle_is_refused_at_once(copy: Path, name: str) -> None:
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(BundleError, match=r"is a pipe or a device|is missing"):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_links_out_of_the_bundle_are_refused(copy: Path, tmp_path: Path, name: str) -> None:
    (copy / name).rename(tmp_path / name)
    (copy / name).symlink_to(tmp_path / name)
    with pytest.raises(BundleError, match="a link to a file outside the bundle"):
        read_bundle(copy)
    (tmp_path / "linked.edgead").symlink_to(copy)
    (copy / name).unlink()
    (tmp_path / name).rename(copy / name)
    assert read_bundle(tmp_path / "linked.edgead").manifest.name  # the bundle itself may be a link


def test_what_the_manifest_does_not_list_is_never_read(copy: Path, bundle: Bundle) -> None:
    (copy / "model.cpu.onnx").write_bytes(b"not a graph")
    (copy / ".DS_Store").write_bytes(b"")
    assert check_golden(read_bundle(copy), open_engine("onnxruntime", read_bundle(copy))).good


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_gets_the_bytes_that_were_checked(copy: Path, engine: str) -> None:
    """A file that is replaced between the check and the opening is noticed."""
    pytest.importorskip(engine)
    opened = read_bundle(copy)
    data = bytearray((copy / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx").write_bytes(data)
    with pytest.raises(BundleError, match="damaged"):
        open_engine(engine, opened)
    (copy / "golden.npz").write_bytes(b"")
    with pytest.raises(BundleError, match="damaged"):
        opened.golden()


def test_the_golden_frames_prove_the_bundle(bundle: Bundle) -> None:
    check = check_golden(bundle, open_engine("onnxruntime", bundle))
    assert check.good
    assert check.frames == 4


def test_the_golden_frames_find_another_graph(bundle: Bundle) -> None:
    class Biased:
        name = "biased"

        def __init__(self) -> None:
            self.engine = open_engine("onnxruntime", bundle)

        def infer(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            scores, maps = self.engine.infer(frames)
            return scores + 0.01, maps

        def close(self) -> None: ...

    check = check_golden(bundle, Biased())
    assert not check.good
    assert check.score_error == pytest.approx(0.01, abs=1e-3)


def test_a_link_that_changes_while_its_bundle_is_opened(tmp_path: Path) -> None:
    """As after `edgead pull`: files of two bundles were read, and the bundle was called damaged."""
    for name in ("first", "second"):
        make_level_bundle(tmp_path / f"{name}.edgead", OFFSETS[name])
    link, new = tmp_path / "current.edgead", tmp_path / "new"
    link.symlink_to("first.edgead")
    opened = read_bundle(link)
    new.symlink_to("second.edgead")
    os.replace(new, link)
    with contextlib.closing(open_engine("onnxruntime", opened)) as engine:
        assert check_golden(opened, engine).good
    assert opened.path == link
    assert read_bundle(link).manifest.name == "second"
