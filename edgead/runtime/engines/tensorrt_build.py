"""From a bundle's graph to a TensorRT plan, built on the device it runs on and cached outside the bundle."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from edgead.bundle import MODEL, Bundle
from edgead.errors import BundleError, DeviceError
from edgead.files import atomic_file
from edgead.runtime.engines.auto import cache_folder

WORKSPACE_BYTES = 1 << 30
"""Scratch memory of the builder: a Jetson with 4 to 8 GB must not be filled by it."""


def version_of(trt: Any) -> tuple[int, int]:
    """Return TensorRT's (major, minor) version."""
    major, minor = str(trt.__version__).split(".")[:2]
    return int(major), int(minor)


def plan_path(bundle: Bundle, trt: Any, gpu: str, capability: str, driver: str) -> Path:
    """Return where a plan is cached. Whatever a plan depends on is in its name."""
    facts = [bundle.manifest.files[MODEL], bundle.manifest.precision, str(trt.__version__), gpu, capability, driver]
    return cache_folder() / "tensorrt" / f"{hashlib.sha256('|'.join(facts).encode()).hexdigest()[:32]}.plan"


def build_plan(bundle: Bundle, trt: Any, logger: Any) -> bytes:
    """Build a plan for one frame at a time.

    Args:
        bundle: the graph and its precision.
        trt: the module tensorrt (or tensorrt_rtx, which builds without a GPU).
        logger: TensorRT's logger.

    Raises:
        BundleError: the parser does not take the graph.
        DeviceError: the builder fails.
    """
    builder = trt.Builder(logger)
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(bundle.model.read_bytes()):
        problems = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise BundleError(f"TensorRT {trt.__version__} cannot read {bundle.model}: {'; '.join(problems[:2])}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    for flag in precision_flags(trt, bundle.manifest.precision):
        config.set_flag(flag)
    profile = builder.create_optimization_profile()
    shape = (1, *bundle.manifest.size, 3)
    profile.set_shape("frames", shape, shape, shape)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise DeviceError(f"TensorRT {trt.__version__} could not build an engine of {bundle.model}.")
    return bytes(memoryview(plan))


def network_flags(trt: Any) -> int:
    """Return the flags of a network: explicit batch before 10.0, strongly typed from 10.12 on."""
    flags = trt.NetworkDefinitionCreationFlag
    if version_of(trt) < (10, 0) and hasattr(flags, "EXPLICIT_BATCH"):  # TensorRT-RTX 1.x is not TensorRT 1.x
        return 1 << int(flags.EXPLICIT_BATCH)
    if version_of(trt) >= (10, 12):
        return 1 << int(flags.STRONGLY_TYPED)
    return 0


def precision_flags(trt: Any, precision: str) -> list[Any]:
    """Return the builder flags of a precision: none where the graph's types say it, from 10.12 on."""
    if version_of(trt) >= (10, 12) or not hasattr(trt.BuilderFlag, "FP16"):
        return []
    flags = [trt.BuilderFlag.FP16] if precision in ("fp16", "int8") else []
    return flags + ([trt.BuilderFlag.INT8] if precision == "int8" else [])


def cached_plan(bundle: Bundle, trt: Any, logger: Any, path: Path) -> bytes:
    """Return the plan in the cache, built first where it is not there."""
    if path.is_file():
        return path.read_bytes()
    plan = build_plan(bundle, trt, logger)
    with atomic_file(path) as stream:
        stream.write(plan)
    return plan
