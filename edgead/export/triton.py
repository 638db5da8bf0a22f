"""Write a bundle's graph as a model of NVIDIA's Triton Inference Server, for a server that many lines share.

    triton_models/NAME/config.pbtxt      a `ModelConfig` of Triton's model_config.proto, in protobuf's text form
    triton_models/NAME/1/model.onnx      the bundle's graph, unchanged

Triton runs the graph with its ONNX Runtime backend. It returns scores and maps; whoever asks decides. See
docs/tensorrt.md.
"""

from __future__ import annotations

from pathlib import Path

from edgead.bundle import MODEL, Bundle
from edgead.errors import ConfigError, DataError
from edgead.files import atomic_folder
from edgead.geometry import Geometry

CONFIG, VERSION = "config.pbtxt", "1"
PLATFORM = "onnxruntime_onnx"
LARGEST_BATCH = 8
"""Requests that Triton may put together. Each size is run once when the model is loaded."""


def write_triton_model(bundle: Bundle, repository: str | Path) -> Path:
    """Write the model of a bundle into a model repository, under the bundle's name.

    A model of that name is replaced as a whole.

    Args:
        bundle: its `model.onnx` is copied.
        repository: the folder that the server is started with. It may hold other models.

    Returns:
        The folder of the model.

    Raises:
        DataError: a folder of that name exists and is not a Triton model.
        ConfigError: the bundle aligns frames, which no graph does.
    """
    refuse_alignment(bundle.path, bundle.manifest.geometry)
    folder = Path(repository) / bundle.path.name.removesuffix(".edgead")
    if folder.exists() and not (folder / CONFIG).is_file():
        raise DataError(f"{folder} exists and holds no {CONFIG}, so it is kept. Move it away, or choose another --out.")
    graph = bundle.content(MODEL)
    with atomic_folder(folder) as new:
        (new / VERSION).mkdir()
        (new / VERSION / MODEL).write_bytes(graph)
        (new / CONFIG).write_text(triton_config(bundle), encoding="utf-8")
    return folder


def refuse_alignment(what: Path, geometry: Geometry) -> None:
    """Refuse a run or bundle that aligns frames: Triton runs the graph alone, and its clients cannot find the part.

    Raises:
        ConfigError: it aligns frames.
    """
    if geometry.align is not None:
        raise ConfigError(
            f"{what} aligns frames to a reference picture, which Triton's clients would have to do.\n"
            "Run the bundle with edgead, or train without --align."
        )


def triton_config(bundle: Bundle) -> str:
    """Return the content of `config.pbtxt`.

    It leaves the name out, which is then the folder's. Dimensions do not count the batch, which Triton puts before
    them. A graph that takes one frame at a time has no batch for Triton, so all of its dimensions are written.
    """
    made = bundle.manifest
    batches = made.input.batch != 1
    height, width, channels = made.shape
    one = [] if batches else [1]
    frames, maps = _dims(*one, height, width, channels), _dims(*one, height, width)
    # Behind the batch, scores [N] have no dimension; Triton asks for one, and for the shape without it.
    scores = f"{_dims(1)} reshape {{ shape: [ ] }}" if batches else _dims(1)
    parameters = {
        "bundle": made.digest,
        "threshold": repr(made.threshold.value),
        "mask_threshold": repr(made.mask_threshold),
    }
    lines = [
        f'platform: "{PLATFORM}"',
        f"max_batch_size: {LARGEST_BATCH if batches else 0}",
        f'input [ {{ name: "frames" data_type: TYPE_UINT8 {frames} }} ]',
        "output [",
        f'  {{ name: "scores" data_type: TYPE_FP32 {scores} }},',
        f'  {{ name: "maps" data_type: TYPE_FP32 {maps} }}',
        "]",
        *(["dynamic_batching { }"] if batches else []),
        *(_warm_up(count, frames) for count in range(1, (LARGEST_BATCH if batches else 1) + 1)),
        *(f'parameters {{ key: "{name}" value {{ string_value: "{to}" }} }}' for name, to in parameters.items()),
    ]
    return "\n".join(lines) + "\n"


def _dims(*sides: int) -> str:
    return f"dims: [ {', '.join(map(str, sides))} ]"


def _warm_up(count: int, dims: str) -> str:
    """Return a request that the server runs at start: the first of each size is slow, as kernels are chosen for it."""
    value = f"{{ data_type: TYPE_UINT8 {dims} zero_data: true }}"
    return f'model_warmup {{ name: "{count}" batch_size: {count} inputs {{ key: "frames" value {value} }} }}'
