"""How a frame is brought to a model: alignment, crop, stretch or letterbox, tiles. See docs/geometry.md."""

from edgead.geometry.rules import AUTO, STRETCH, Geometry, GeometryRequest, Placement, Size

__all__ = ["AUTO", "STRETCH", "Geometry", "GeometryRequest", "Placement", "Size"]
