"""Ray: on this machine, or a cluster that is running."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edgead.errors import ConfigError, DeviceError, first_line, require
from edgead.machine import usable_cores

LOCAL = "local"
STARTS = 3
"""Times that Ray is started on this machine: 30 s for its node and 15 s for a process of it, which cannot be set, are
short for a busy one."""
_log = logging.getLogger("edgead")


@contextmanager
def connected(address: str = LOCAL) -> Iterator[Any]:
    """Start Ray on this machine, or connect to a cluster; yield the module `ray`.

    On this machine it listens on the loopback interface alone.

    Args:
        address: ``"local"``, or the cluster's ``HOST:PORT``.

    Raises:
        MissingDependencyError: Ray is not installed.
        DeviceError: there is no cluster at that address, or Ray does not start.
    """
    if address == LOCAL:
        # Ray's switch for machines that are no cluster; without it its servers listen on every interface.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        # Ray's own is 15: whatever else the machine does would starve trainings, and disturb the timings of a cell.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # The one limit of its start that can be set; 30 by default.
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")
    ray = require("ray", "ray")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    stops = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    init = functools.partial(ray.init, log_to_driver=False, logging_level="ERROR", configure_logging=True)
    try:
        if address == LOCAL:
            _start(ray, functools.partial(init, address=LOCAL, num_cpus=usable_cores(), include_dashboard=False))
        else:
            init(address=address)
    except Exception as error:  # also Ray's own errors have no common base
        why = first_line(error)
        if address == LOCAL:
            raise DeviceError(
                f"Ray did not start on this machine: {why}\nTry again when the machine is less busy."
            ) from error
        raise DeviceError(f"No Ray cluster answers at {address}: {why}") from error
    if threading.current_thread() is threading.main_thread():
        for number, handler in stops.items():  # Ray has put its own in their place, which end the process at once
            signal.signal(number, handler)
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints what happens to its machines, some of it at the end
        try:
            yield ray
        finally:
            ray.shutdown()


def _start(ray: Any, init: Callable[[], object]) -> None:
    """Start Ray on this machine, again where it was not ready in its time.

    What was started in vain is not at hand. Ray ends it with this process, the last of it two minutes later.
    """
    for further in reversed(range(STARTS)):
        try:
            init()
            return
        except Exception as error:
            ray.shutdown()
            if further == 0 or "timed out" not in str(error).lower():
                raise
            _log.warning("Ray was not ready in time; it is started again")


def resources(ray: Any, cpus: int | None, gpus: float | None) -> dict[str, float]:
    """Return what a process asks Ray for.

    Args:
        ray: connected.
        cpus: all CPUs of the smallest machine if None.
        gpus: one, where there are any, if None.

    Raises:
        ConfigError: no machine of the cluster has as much.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    most_gpus = max(node.get("GPU", 0.0) for node in nodes)
    wanted = {
        "num_cpus": float(cpus) if cpus is not None else min(node["CPU"] for node in nodes),
        "num_gpus": gpus if gpus is not None else min(1.0, most_gpus),
    }
    if not any(node["CPU"] >= wanted["num_cpus"] and node.get("GPU", 0.0) >= wanted["num_gpus"] for node in nodes):
        raise ConfigError(
            f"No machine has {wanted['num_cpus']:g} CPUs and {wanted['num_gpus']:g} GPUs.\nLower cpus or gpus."
        )
    return wanted
