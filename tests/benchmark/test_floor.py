"""The floor of a bundle with tiles counts all tiles of a frame."""

from __future__ import annotations

from pathlib import Path

import pytest
from level_bundle import make_level_bundle

from edgead.benchmark import floor
from edgead.bundle import read_bundle
from edgead.geometry import Geometry


def test_every_tile_is_computed_and_each_call_reads_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floor, "_peak", lambda engine, precision: 1e9)
    monkeypatch.setattr(floor, "_bandwidth", lambda: 1e9)
    whole = make_level_bundle(tmp_path / "whole.edgead")
    tiled = make_level_bundle(tmp_path / "tiled.edgead", geometry=Geometry(tiles=(3, 4)))
    one, twelve = (floor.measure_floor(bundle, "onnxruntime", 1.0) for bundle in (whole, tiled))
    assert one.multiply_adds > 0
    assert twelve.multiply_adds == 12 * one.multiply_adds
    weights = whole.model.stat().st_size
    assert twelve.bytes == 2 * weights + 12 * (one.bytes - weights)  # two calls of six tiles


def test_the_floor_is_of_the_bundle_that_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its link had changed, and the size of another graph was taken, or none was found."""
    monkeypatch.setattr(floor, "_peak", lambda engine, precision: 1e9)
    monkeypatch.setattr(floor, "_bandwidth", lambda: 1e9)
    link, made = tmp_path / "current.edgead", make_level_bundle(tmp_path / "first.edgead")
    link.symlink_to("first.edgead")
    opened = read_bundle(link)
    link.unlink()
    assert floor.measure_floor(opened, "onnxruntime", 1.0) == floor.measure_floor(made, "onnxruntime", 1.0)
