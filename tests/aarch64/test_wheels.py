"""Every package of the extras for a Jetson has a wheel for it, or is the system's."""

from __future__ import annotations

import pytest
from arm_wheels import BESIDE_IT, JETPACKS, NOT_THERE, ON_A_JETSON, WITHOUT, JetPack, extras, for_the_line, resolve

from edgead.errors import is_installed


def require_index(why: str) -> None:
    """Skip where packages are not to be had."""
    if "error sending request" in why or "Failed to fetch" in why:
        pytest.skip(f"no package index here: {why[:200]}")


@pytest.fixture(scope="module", autouse=True)
def _uv() -> None:
    if not is_installed("uv"):
        pytest.skip("no uv here: pip install uv")


def test_every_extra_has_a_place() -> None:
    assert {"", *ON_A_JETSON, *BESIDE_IT, *NOT_THERE} == set(extras())
    assert {extra for extra, _ in WITHOUT} <= set(BESIDE_IT)


@pytest.mark.long
@pytest.mark.parametrize("jetpack", JETPACKS, ids=lambda jetpack: jetpack.name)
def test_the_line_has_wheels_and_leaves_the_systems_packages_alone(jetpack: JetPack) -> None:
    packages, why = for_the_line(jetpack)
    require_index(why)
    assert not why
    names = {package.partition("==")[0] for package in packages}
    assert {"numpy", "click", "av", "simplejpeg", "cryptography", "gpiod", "genicam"} <= names
    assert f"numpy=={jetpack.numpy}" in packages
    assert not any("opencv" in name for name in names)


@pytest.mark.long
def test_a_package_without_a_wheel_is_found() -> None:
    packages, why = resolve(["pycuda"], JETPACKS[0])
    require_index(why)
    assert not packages
    assert "pycuda" in why
    assert "no usable wheels" in why
