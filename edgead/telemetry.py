"""No library that edgead uses may report to its maker: the switches, all in one place.

They are off on every way in: the command line, `edgead.load`, and each process that either starts, because the
environment is inherited. A variable that the user has set stays as it is.
"""

from __future__ import annotations

import os
import sys

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime 1.32: a device id in the home folder, and uploads to its maker
    "HF_HUB_DISABLE_TELEMETRY": "1",  # the Hugging Face hub, which accelerate imports
    "MLFLOW_DISABLE_TELEMETRY": "true",  # MLflow: calls of its API, with versions and the system, to its maker
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray: a report to its maker every hour, from the first node of a cluster
}


def turn_off() -> None:
    """Turn telemetry off, before the libraries that have it are imported.

    OpenVINO has no variable for it. Its telemetry is a package of its own, which forks the process at the import to
    call a server; behind a firewall that drops packets this costs seconds and prints tracebacks. Without the package
    OpenVINO takes its own stub.
    """
    for variable, value in SWITCHES.items():
        os.environ.setdefault(variable, value)
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    imported = sys.modules.get("onnxruntime")
    if imported is not None and os.environ["ORT_DISABLE_TELEMETRY"] == "1":
        imported.disable_telemetry_events()  # too late for the variable; this stops all that is still to come
