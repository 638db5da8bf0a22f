"""Ray on a machine that is busy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgead import cluster


class Ray:
    """Says of each start that Ray was not ready, until `late` starts have failed."""

    def __init__(self, late: int, says: str) -> None:
        self.late, self.says, self.starts, self.ends = late, says, 0, 0

    def init(self) -> None:
        self.starts += 1
        if self.starts <= self.late:
            raise RuntimeError(self.says)

    def shutdown(self) -> None:
        self.ends += 1


LATE = "The current node timed out during startup."


@pytest.mark.parametrize(
    ("late", "says", "starts", "good"),
    [
        (0, LATE, 1, True),
        (2, LATE, 3, True),
        (3, LATE, 3, False),
        (1, "Timed out waiting for file gcs_server_port", 2, True),
        (1, "no", 1, False),
    ],
)
def test_it_is_started_again_where_it_was_not_ready(
    late: int, says: str, starts: int, good: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ray = Ray(late, says)
    if good:
        cluster._start(ray, ray.init)
    else:
        with pytest.raises(RuntimeError, match=says):
            cluster._start(ray, ray.init)
    assert (ray.starts, ray.ends) == (starts, min(late, starts))
    assert len(caplog.messages) == starts - 1


PROGRAM = """
from ray._private import services
from edgead.cluster import connected

real, asked = services.get_node, []

def late(*arguments):
    asked.append(arguments)
    if len(asked) == 1:
        raise Exception("The current node timed out during startup.")
    return real(*arguments)

services.get_node = late
with connected() as ray:
    print(ray.get(ray.remote(lambda: 7).remote()))
"""


@pytest.mark.long
def test_the_real_one_is_started_again() -> None:
    """The processes of the first start are there when the second one begins, as on a busy machine."""
    pytest.importorskip("ray", reason="Ray is not installed")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, timeout=300)
    said = done.stderr.decode().splitlines()  # Ray's standard output goes there
    assert (done.returncode, said) == (0, ["Ray was not ready in time; it is started again", "7"])
