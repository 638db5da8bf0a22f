"""`edgead inspect`, `edgead methods` and `edgead doctor`: the verbs that only report."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgead.cli.options import PATH, engine_option, json_option, refuse_given, trust_option
from edgead.cli.output import emit, terminal, validate_here
from edgead.settings import BATCH_LIMIT

if TYPE_CHECKING:
    from edgead.bundle import Bundle
    from edgead.bundle.manifest import Manifest


@click.command()
@click.argument("bundle", type=PATH)
@engine_option
@trust_option
@json_option
def inspect(bundle: Path, engine: str, as_json: bool) -> None:
    """Show a bundle and check it on this machine.

    Checks the hashes of its files, re-runs its golden frames and compares the outputs.
    """
    from edgead.bundle import read_bundle
    from edgead.runtime.engines.opening import open_engine
    from edgead.runtime.frame_inspector import FrameInspector
    from edgead.runtime.golden import check_golden, require_agreement
    from edgead.runtime.speed import Speed, describe_speed

    opened, speed = read_bundle(bundle), Speed()
    with contextlib.closing(open_engine(engine, opened, console=terminal())) as runner:
        check = check_golden(opened, runner)
        manifest, name = opened.manifest, runner.name
        inspector = FrameInspector(opened, runner)
        inspector.geometry = dataclasses.replace(inspector.geometry, align=None)  # golden frames are aligned already
        for frame in opened.golden().frames:
            speed.count(inspector.inspect(frame).latency_ms)
    facts = {
        **_facts(opened),
        "golden": f"{check.frames} frames on {name}: {check.describe()}",
        **_facts_of_precision(manifest),
    }
    golden = {**dataclasses.asdict(check), "good": check.good}
    value = {"manifest": manifest.to_dict(), "signer": opened.signer, "golden": golden, "speed_ms": speed.percentiles()}
    emit(value, as_json, "\n".join(f"{key:<10} {text}" for key, text in facts.items()))
    require_agreement(check, name)
    terminal().say(describe_speed(speed.percentiles()))


def _facts(bundle: Bundle) -> dict[str, str]:
    """Return what a bundle is and how it came about, in words."""
    manifest = bundle.manifest
    return {
        "bundle": manifest.name,
        "method": f"{manifest.method} ({manifest.preset})",
        "category": manifest.category,
        "input": f"{manifest.size[0]}×{manifest.size[1]}{_depth_words(manifest.pixels.depth_range)}",
        **({"geometry": manifest.geometry.describe()} if manifest.stored_geometry else {}),
        "precision": manifest.precision,
        "threshold": manifest.threshold.describe(manifest.data.unseen).removeprefix("threshold "),
        "drift": _drift_words(manifest),
        "parity": f"graph and network differ by at most {manifest.parity.score_error:.2g} in the score, "
        f"{manifest.parity.map_error:.2g} in the map",
        **({"origin": manifest.origin.describe()} if manifest.origin else {}),
        **({"protocol": manifest.training.protocol} if manifest.training.protocol else {}),
        "made": f"{manifest.created} by edgead {manifest.edgead}",
        **({"changed": "; ".join(each.describe() for each in manifest.changes)} if manifest.changes else {}),
        "files": f"{len(manifest.files)}, hashes correct",
        "signature": _signature_words(bundle),
    }


def _facts_of_precision(manifest: Manifest) -> dict[str, str]:
    """Return what a lower precision changed, in words; nothing for float32."""
    from edgead.bundle.gate_record import describe_sensitivity

    facts = {}
    if manifest.gate:
        if judged := manifest.gate.describe():
            facts["gate"] = judged
        if manifest.gate.kept_in_float32:
            facts["in fp32"] = ", ".join(manifest.gate.kept_in_float32)
        if manifest.gate.sensitivity:
            facts["sensitive"] = describe_sensitivity(manifest.gate.sensitivity)
        if failed := manifest.failed_engines:
            facts["not on"] = "; ".join(f"{engine} on the exporting machine: {why}" for engine, why in failed.items())
    if manifest.calibration:
        facts["calibrated"] = manifest.calibration.describe()
    return facts


def _signature_words(bundle: Bundle) -> str:
    if bundle.signer:
        return f"by the trusted key {bundle.signer}"
    from edgead.signatures.trust import SIGNATURE

    return "not checked; name trusted keys with --trust" if (bundle.folder / SIGNATURE).exists() else "none"


def _drift_words(manifest: Manifest) -> str:
    if manifest.held_out is None:
        return "not watched: the bundle has no record of its held-out images; export it again"
    return f"watched against {len(manifest.threshold.scores)} held-out images"


def _depth_words(depth_range: tuple[float, float] | None) -> str:
    return "" if depth_range is None else f", with depth from {depth_range[0]:.4g} to {depth_range[1]:.4g}"


@click.command()
@click.argument("name", required=False)
@json_option
def methods(name: str | None, as_json: bool) -> None:
    """List the methods. With NAME, also show the settings of that method in every preset."""
    from edgead import schema
    from edgead.train.describe import as_text, describe
    from edgead.train.methods import get_method

    if name:
        get_method(name)
    described = [entry for entry in describe() if name in (None, entry.name)]
    text = "\n\n".join(as_text(entry, settings=name is not None) for entry in described)
    emit(schema.write(described), as_json, text if name else f"{text}\n\nSettings of a method:  edgead methods NAME")


@click.command()
@click.option("--build", "bundle", type=PATH, help="Build this bundle's engine on this machine, check it and time it.")
@click.option(
    "--engine", default="tensorrt", show_default=True, help="With --build: inference engine and its settings."
)
@click.option(
    "--batch",
    type=click.IntRange(1, BATCH_LIMIT),
    default=1,
    help="With --build: largest number of frames per inference.",
)
@trust_option
@json_option
def doctor(bundle: Path | None, engine: str, batch: int, as_json: bool) -> None:
    """Report what this machine can run and what is missing.

    edgead doctor --build BUNDLE checks a bundle on the GPU of this machine.
    """
    from edgead.doctor import diagnose

    if bundle:
        from edgead.bundle import read_bundle

        validation = validate_here(read_bundle(bundle), engine, batch)
        emit(validation.to_dict(), as_json, f"ok  {bundle} runs on this machine with {validation.engine}")
        return
    refuse_given("without --build", "engine", "batch", "trust")
    findings = diagnose()
    marks = {True: "ok", False: "--", None: "  "}
    lines = [f"{marks[finding.good]}  {finding.name:<12} {finding.text}" for finding in findings]
    emit([dataclasses.asdict(finding) for finding in findings], as_json, "\n".join(lines))
