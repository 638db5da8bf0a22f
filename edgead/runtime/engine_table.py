"""The engines. Nothing is imported here: the command line's help reads this table."""

from __future__ import annotations

ENGINES = {
    "auto": "edgead.runtime.engines.auto:SPEC",
    "onnxruntime": "edgead.runtime.engines.onnxruntime_engine:SPEC",
    "onnxruntime-cuda": "edgead.runtime.engines.onnxruntime_cuda:SPEC",
    "openvino": "edgead.runtime.engines.openvino_engine:SPEC",
    "openvino-bf16": "edgead.runtime.engines.openvino_engine:BF16_SPEC",
    "tensorrt": "edgead.runtime.engines.tensorrt_engine:SPEC",
}
"""Name ↦ its `edgead.runtime.engines.EngineSpec`. An engine is a file, a line here, and its extra in setup.py."""
PLUGINS = "edgead.engines"
"""Group of entry points that bring more engines: ``name = module:SPEC``."""
