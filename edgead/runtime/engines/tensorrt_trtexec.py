"""The command of NVIDIA's tool that builds the same plan."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from edgead.runtime.engines.tensorrt_build import BuildRequest


def trtexec_line(request: BuildRequest, trt_version: str, strong: bool, precision: Sequence[str] = ()) -> str:
    """Return the trtexec command that builds the same plan, quoted for a shell; empty if this trtexec cannot.

    Args:
        request: the plan.
        trt_version: such as ``"10.3.0"``.
        strong: whether the network is strongly typed.
        precision: ``fp16``, ``int8``: the flags of a weakly typed one.
    """
    settings = request.settings
    major, minor = (int(part) for part in trt_version.split(".")[:2])
    shapes = [f"frames:{'x'.join(map(str, shape))}" for shape in request.shapes()]
    if len(shapes) > 1 and major < 10:  # it has one profile
        return ""
    words = ["trtexec", f"--onnx={request.model}", f"--saveEngine={Path(request.model).with_suffix('.plan').name}"]
    for number, shape in enumerate(shapes):
        words += [f"--profile={number}"] if len(shapes) > 1 else []
        words += [f"--{which}Shapes={shape}" for which in ("min", "opt", "max")]
    words += [f"--memPoolSize=workspace:{settings.workspace}", f"--builderOptimizationLevel={settings.opt_level}"]
    words += ["--stronglyTyped"] if strong and major < 11 else []  # the default from 11 on
    words += [f"--{each}" for each in precision]
    words += [] if settings.tf32 else ["--noTF32"]
    words += [f"--useDLACore={settings.dla}", "--allowGPUFallback"] if settings.dla >= 0 else []
    words += ["--adjustForDLA"] if settings.dla >= 0 and (major, minor) >= (10, 16) else []
    line = shlex.join([*words, "--skipInference"])
    return f"{line}  # float32 layers may become float16" if "fp16" in precision else line
