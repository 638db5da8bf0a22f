"""A Ray cluster of two machines for tests: two nodes on the loopback interface of this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Start the first node; yield the cluster. `add_second` adds the other one."""
    pytest.importorskip("ray", reason="Ray is not installed")
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # read when ray is imported: it listens on loopback alone
    os.environ.setdefault("RAY_worker_niceness", "0")  # else the tests beside them starve the workers
    from ray.cluster_utils import Cluster

    quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 3, "health_check_initial_delay_ms": 0}
    head = {**NODE, "include_dashboard": False, "_system_config": quick}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def add_second(cluster: Any) -> None:
    """Start the second node, unless there is one."""
    if len(cluster.list_all_nodes()) < 2:
        cluster.add_node(**NODE)


def kill_second(cluster: Any) -> None:
    """Kill a node as a power cut does."""
    cluster.remove_node(cluster.list_all_nodes()[1], allow_graceful=False)
