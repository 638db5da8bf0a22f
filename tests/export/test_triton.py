"""`edgead export --format triton`: a model that NVIDIA's Triton server reads, loads and serves."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import inside, program
from level_bundle import frame_of, make_level_bundle
from triton_server import needs_triton, serve

from edgead.bundle import MODEL, Bundle, read_bundle, write_bundle
from edgead.errors import DataError
from edgead.export.triton import CONFIG, LARGEST_BATCH, VERSION, triton_config, write_triton_model
from edgead.images import encode_png
from edgead.runtime.golden import compare

KINDS = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.FLOAT: "TYPE_FP32"}
EXAMPLE = Path(__file__).parents[2] / "examples" / "triton_client.py"


def schema() -> Any:
    """Return NVIDIA's schema of a configuration, model_config.proto."""
    reason = "no tritonclient (pip install 'edgead[triton]')"
    return pytest.importorskip("tritonclient.grpc.model_config_pb2", reason=reason)


def parsed(text: str) -> Any:
    """Read a configuration by that schema."""
    from google.protobuf import text_format

    return text_format.Parse(text, schema().ModelConfig())


def for_one_frame(bundle: Bundle, folder: Path) -> Bundle:
    """Return a copy of a bundle whose graph takes one frame at a time, as some imported models."""
    shutil.copytree(bundle.path, folder)
    model = onnx.load(folder / MODEL)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, folder / MODEL)
    for name in ("manifest.json", "golden.npz"):
        (folder / name).unlink()
    made = dataclasses.replace(bundle.manifest, input=dataclasses.replace(bundle.manifest.input, batch=1), name="one")
    write_bundle(folder, made, bundle.golden())
    return read_bundle(folder)


@pytest.fixture(scope="module")
def level(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_level_bundle(tmp_path_factory.mktemp("level") / "level.edgead")


@pytest.fixture(scope="module")
def single(level: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return for_one_frame(level, tmp_path_factory.mktemp("single") / "one.edgead")


@pytest.fixture(scope="module")
def server(level: Bundle, single: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Triton server with both; its address."""
    repository = tmp_path_factory.mktemp("repository")
    for bundle in (level, single):
        write_triton_model(bundle, repository)
    with serve(repository, tmp_path_factory.mktemp("server")) as address:
        yield address


def test_the_configuration_is_of_tritons_schema(level: Bundle, single: Bundle) -> None:
    model_config_pb2 = schema()
    for bundle in (level, single):
        config = parsed(triton_config(bundle))
        graph = onnx.load(bundle.model).graph
        one = bundle is single
        assert (config.platform, config.max_batch_size) == ("onnxruntime_onnx", 0 if one else LARGEST_BATCH)
        assert config.HasField("dynamic_batching") is not one
        # As Triton's ONNX Runtime backend compares them: a reshape counts in place of the dimensions.
        for written, values in ((config.input, graph.input), (config.output, graph.output)):
            assert [each.name for each in written] == [each.name for each in values]
            for each, value in zip(written, values):
                tensor = value.type.tensor_type
                dims = [dim.dim_value for dim in tensor.shape.dim]
                found = each.reshape.shape if each.HasField("reshape") else each.dims
                assert [*found] == (dims if one else dims[1:])
                assert model_config_pb2.DataType.Name(each.data_type) == KINDS[tensor.elem_type]
        warm = [each.batch_size for each in config.model_warmup]
        assert warm == ([1] if one else [*range(1, LARGEST_BATCH + 1)])
        assert all([*each.inputs["frames"].dims] == [*config.input[0].dims] for each in config.model_warmup)
        limit = float(config.parameters["threshold"].string_value)
        assert limit == bundle.manifest.threshold.value
        assert config.parameters["bundle"].string_value == bundle.manifest.digest


def test_a_model_is_replaced_and_nothing_else(level: Bundle, tmp_path: Path) -> None:
    folder = write_triton_model(level, tmp_path)
    assert folder == tmp_path / "level"
    assert (folder / VERSION / MODEL).read_bytes() == level.model.read_bytes()
    (folder / "2").mkdir()
    write_triton_model(level, tmp_path)
    assert sorted(each.name for each in folder.iterdir()) == [VERSION, CONFIG]
    (folder / CONFIG).unlink()
    with pytest.raises(DataError, match=r"level exists and holds no config\.pbtxt"):
        write_triton_model(level, tmp_path)
    assert (folder / VERSION / MODEL).is_file()


def test_export_writes_a_model_beside_the_bundle(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "washer.edgead"
    done = inside("export", "--checkpoint", trained, "--out", out, "--format", "triton", "--json")
    assert done.returncode == 0, done.stderr
    [made] = json.loads(done.stdout)["bundles"]
    model = Path(made["triton"])
    assert model == tmp_path / "triton_models" / "washer"
    assert (model / VERSION / MODEL).read_bytes() == (out / MODEL).read_bytes()
    assert parsed((model / CONFIG).read_text()).max_batch_size == LARGEST_BATCH
    said = inside("export", "--checkpoint", trained, "--out", out, "--format", "triton").stdout
    assert f"tritonserver --model-repository={tmp_path / 'triton'}" in said


@needs_triton
def test_triton_gives_the_reference_outputs(server: str, level: Bundle, single: Bundle) -> None:
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(server)
    for bundle in (level, single):
        config = client.get_model_config(bundle.manifest.name).config
        assert config.backend == "onnxruntime"
        assert config.parameters["bundle"].string_value == bundle.manifest.digest
        golden = bundle.golden()
        step = 1 if bundle is single else len(golden.frames)
        outputs = []
        for start in range(0, len(golden.frames), step):
            request = triton.InferInput("frames", golden.frames[start : start + step].shape, "UINT8")
            request.set_data_from_numpy(golden.frames[start : start + step])
            answer = client.infer(bundle.manifest.name, [request])
            outputs.append((answer.as_numpy("scores").reshape(-1), answer.as_numpy("maps")))
        scores, maps = (np.concatenate(parts) for parts in zip(*outputs))
        assert compare(golden, scores, maps, 0.01).good
    client.close()


@needs_triton
def test_the_client_decides(server: str, level: Bundle, single: Bundle, tmp_path: Path) -> None:
    levels = (20, 120, 140, 240)  # the threshold is 130
    for number, value in enumerate(levels):
        (tmp_path / f"{number}.png").write_bytes(encode_png(frame_of(value)))
    for bundle in (level, single):
        lines = [line.split(maxsplit=3) for line in program(EXAMPLE, server, bundle.path, tmp_path).splitlines()]
        assert [line[1] for line in lines] == ["PASS", "PASS", "FAIL", "FAIL"]
        assert [float(line[2]) for line in lines] == pytest.approx(levels, abs=0.01)


@needs_triton
def test_lines_that_ask_at_once_get_their_own_answers(server: str, level: Bundle) -> None:
    import tritonclient.grpc as triton

    def ask(line: int) -> list[float]:
        client, found = triton.InferenceServerClient(server), []
        for number in range(10):
            frame = frame_of(10 * line + number)[None]
            request = triton.InferInput("frames", frame.shape, "UINT8")
            request.set_data_from_numpy(frame)
            found.append(client.infer(level.manifest.name, [request]).as_numpy("scores").item())
        client.close()
        return found

    with ThreadPoolExecutor(8) as lines:
        for line, scores in enumerate(lines.map(ask, range(8))):
            assert scores == pytest.approx([10 * line + number for number in range(10)], abs=0.01)


@needs_triton
def test_another_lines_model_is_refused(server: str, tmp_path: Path) -> None:
    other = make_level_bundle(tmp_path / "level.edgead", offset=500.0)
    with pytest.raises(Exception, match=r"the model on .* differs from the reference outputs"):
        program(EXAMPLE, server, other.path, "synthetic:?frames=2")
