"""What a manifest says of how a model came about: its training, or the import of another maker's."""

from __future__ import annotations

from dataclasses import dataclass

from edgead.schema import Count, left_out


@dataclass(frozen=True)
class LearnedSource:
    """A donor: another product with real defects that were used in training."""

    name: str
    fingerprint: str


@dataclass(frozen=True)
class TrainingRecord:
    """How the network was trained; empty for an imported model.

    Attributes:
        sources, protocol: donors, and how to read the figures because of them.
        changes: settings that changed when the run was resumed.
        departures: differences from the published training.
        devices: that the run was trained on.
        copies, near_copies: good images that are copies of another one, and held-out images that look almost like a
            training image.
        marked: of the `images`, good parts that people had marked as false rejects.
        epoch_images: good images in an epoch.
        textures: of synthetic anomalies: ``pictures``, ``procedural`` or ``none``.
        weights: file of the backbone's weights; ``download`` if downloaded; None without a backbone.
        seed, steps, images, precision, created, versions: of the training.
    """

    sources: tuple[LearnedSource, ...] | None = left_out()
    protocol: str | None = left_out()
    changes: tuple[str, ...] | None = left_out()
    departures: tuple[str, ...] | None = left_out()
    devices: tuple[str, ...] | None = left_out()
    copies: Count | None = left_out()
    near_copies: Count | None = left_out()
    seed: int | None = left_out()
    steps: int | None = left_out()
    images: int | None = left_out()
    marked: Count | None = left_out()
    epoch_images: int | None = left_out()
    textures: str | None = left_out()
    weights: str | None = left_out()
    precision: str | None = left_out()
    created: str | None = left_out()
    versions: dict[str, str] | None = left_out()


@dataclass(frozen=True)
class ResizeRecord:
    """Change of good images' scores because `fit_frame` resizes them instead of the published code."""

    published: str
    images: Count
    same_pixels: bool
    mean_change: float | None = left_out()
    largest_change: float | None = left_out()
    published_mean: float | None = left_out()
    published_deviation: float | None = left_out()


@dataclass(frozen=True)
class HeadRecord:
    """One output of an anomalib export, see `edgead.export.imports.anomalib.AnomalibHead`."""

    raw: str
    threshold: float | None = None
    spread: float | None = None


@dataclass(frozen=True)
class Origin:
    """Origin of an imported model: its kind, its files with their SHA-256, and how it was read."""

    what: str
    files: dict[str, str]
    inference: str | None = left_out()
    resize: ResizeRecord | None = left_out()
    versions: dict[str, str] | None = left_out()
    opset: dict[str, int] | None = left_out()
    edgead: str | None = left_out()
    anomalib: dict[str, HeadRecord] | None = left_out()
    notes: tuple[str, ...] | None = left_out()

    def describe(self) -> str:
        """Describe it in one line."""
        files = ", ".join(f"{name} (SHA-256 {digest[:12]}…)" for name, digest in self.files.items())
        maker = (self.versions or {}).get("maker")
        return f"{self.what}{f' by {maker}' if maker else ''}: {files}"
