"""The table of engines. It imports nothing, because the command line's help reads it."""

from __future__ import annotations

ENGINES = {
    "auto": "edgead.runtime.engines.auto:SPEC",
    "onnxruntime": "edgead.runtime.engines.onnxruntime_engine:SPEC",
    "onnxruntime-cuda": "edgead.runtime.engines.onnxruntime_cuda:SPEC",
    "openvino": "edgead.runtime.engines.openvino_engine:SPEC",
    "openvino-bf16": "edgead.runtime.engines.openvino_engine:BF16_SPEC",
    "tensorrt": "edgead.runtime.engines.tensorrt_engine:SPEC",
}
"""Name ↦ `edgead.runtime.engines.EngineSpec`. An engine is one file, one line here and its extra in setup.py."""
PLUGINS = "edgead.engines"
"""Group of entry points for further engines: ``name = module:SPEC``."""
