"""TensorRT that builds and runs where there is no GPU: tensorrt-rtx, with ONNX Runtime in the place of its kernels.

A plan is what the real builder made, with its graph behind it; the graph is what is run. With EDGEAD_TEST_NO_INT8 set
the builder fails on whatever is quantised, as it does on some devices (NVIDIA/TensorRT#4832). With
EDGEAD_TEST_NO_MEMORY set nothing is loaded, and the message is the one that TensorRT gives when memory is short.
"""

from __future__ import annotations

import os
from typing import Any

import tensorrt_rtx

MARK = b"\0the graph of this plan\0"
NO_MEMORY = (
    "[defaultAllocator.cpp::allocate::19] Error Code 1: Cuda Runtime (out of memory)",
    "[safeDeserialize.cpp::load::269] Error Code 2: OutOfMemory (no further information)",
    "[runtime.cpp::deserializeCudaEngine::65] Error Code 4: Internal Error (Engine deserialization failed.)",
)
_graphs: list[bytes] = []


def __getattr__(name: str) -> Any:
    return getattr(tensorrt_rtx, name)


class OnnxParser(tensorrt_rtx.OnnxParser):  # type: ignore[misc]
    """Remembers what it read last."""

    def parse(self, graph: bytes) -> bool:
        _graphs.append(graph)
        return bool(super().parse(graph))


class Builder(tensorrt_rtx.Builder):  # type: ignore[misc]
    """Puts the graph behind the plan."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logger)
        self.said_by = logger

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        kinds = {network.get_layer(index).type for index in range(network.num_layers)}
        if "EDGEAD_TEST_NO_INT8" in os.environ and tensorrt_rtx.LayerType.QUANTIZE in kinds:
            self.said_by.log(tensorrt_rtx.ILogger.Severity.ERROR, "Error Code 10: Could not find any implementation")
            return None
        plan = super().build_serialized_network(network, config)
        return None if plan is None else bytes(memoryview(plan)) + MARK + _graphs[-1]


class Runtime:
    """Loads such plans."""

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        from tensorrt_by_onnxruntime import Model, Resize

        if "EDGEAD_TEST_NO_MEMORY" in os.environ:
            for text in NO_MEMORY:
                self.logger.log(tensorrt_rtx.ILogger.Severity.ERROR, text)
            return None
        graph = plan.partition(MARK)[2]
        resize = Resize(graph)
        if resize.session.get_outputs()[0].name == "fitted":
            return resize
        trt = tensorrt_rtx
        model = Model(graph, (0, 0), (1,), kinds={"frames": trt.uint8, "scores": trt.float32, "maps": trt.float32})
        model.size = tuple(model.session.get_inputs()[0].shape[1:3])
        return model
