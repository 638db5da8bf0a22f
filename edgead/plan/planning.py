"""Plans which bundle on which engine meets a load, from measured or stored profiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgead import schema
from edgead.bundle.manifest import LARGEST_SIDE
from edgead.console import Console
from edgead.errors import ConfigError, unknown
from edgead.files import refuse_existing, refuse_unwritable, write_json
from edgead.plan.advise import Advice, advise, meets
from edgead.plan.measure import measure_profile
from edgead.plan.profile import Candidate, Profile, read_profile
from edgead.plan.simulate import Forecast, Load, simulate
from edgead.settings import check_count
from edgead.table import Table
from edgead.text import percent

FRAME_SIZE = (720, 1280)
MOST_CAMERAS = 64
"""More are not simulated."""
SMALLEST_SIDE = 16
"""Pixels of a side of a frame."""
PROVEN = 0.5
"""Share of the engine's time up to which forecasts agreed with the real stream; above it they were too good."""
DOUBT = (
    "Its engine would be busy more than half of the time; at such a load, forecasts have been too optimistic. "
    "Check it with your cameras:  edgead run"
)


@dataclass(frozen=True)
class Row:
    """A candidate and what is forecast for it. `advice` is None where it meets the numbers."""

    candidate: Candidate
    forecast: Forecast
    advice: Advice | None

    @property
    def meets(self) -> bool:
        """Whether it meets the numbers."""
        return self.advice is None

    def to_dict(self) -> dict[str, object]:
        """Return JSON values. A time without any decided frame is null."""
        each, forecast = self.candidate, self.forecast
        finite = forecast.p99 != float("inf")
        return {
            "bundle": each.bundle,
            "precision": each.precision,
            "engine": each.engine,
            "meets": self.meets,
            "utilisation": round(forecast.utilisation, 4),
            "latency_ms": {"p50": round(forecast.p50, 3), "p99": round(forecast.p99, 3)} if finite else None,
            "dropped": round(forecast.dropped, 5),
            "stale": round(forecast.stale, 5),
            "late": round(forecast.late, 5),
            "memory_mib": each.memory_mib,
            "start_seconds": each.start_seconds,
            "advice": None if self.advice is None else schema.write(self.advice),
        }


@dataclass(frozen=True)
class Plan:
    """The candidates, best first, and whether one meets the numbers."""

    load: Load
    profile: Profile
    rows: tuple[Row, ...]

    @property
    def met(self) -> bool:
        """Whether a candidate meets the numbers."""
        return self.rows[0].meets

    @property
    def table(self) -> Table:
        """One row per candidate."""
        head = ("bundle", "engine", "precision", "meets", "engine in use", "p50 ms", "p99 ms", "lost", "MiB", "start s")
        return Table(head, [_cells(row) for row in self.rows])

    def describe(self) -> str:
        """Return the answer in words."""
        load, best = self.load, self.rows[0]
        asked = (
            f"{load.cameras} camera{'s' * (load.cameras > 1)} at {load.fps:g} frames per second "
            f"and a verdict within {load.deadline:g} ms"
        )
        if best.meets:
            doubt = "" if best.forecast.utilisation <= PROVEN else f"\n{DOUBT}"
            return f"{best.candidate.title} keeps up with {asked}.{doubt}{self._beyond()}"
        assert best.advice
        return (
            f"Nothing keeps up with {asked}.\nNearest: {best.candidate.title}. {best.advice.describe()}{self._beyond()}"
        )

    def _beyond(self) -> str:
        """Say if the profile was measured with fewer cameras: each disturbs the inferences of the others."""
        measured = self.profile.streams
        if self.load.cameras <= measured:
            return ""
        return (
            f"\nThe profile was measured with {measured} camera{'s' * (measured > 1)}; with more, inferences may take "
            "longer. Measure again with as many cameras:  edgead plan … --save-profile FILE"
        )

    def to_dict(self) -> dict[str, object]:
        """Return JSON values."""
        profile = {name: value for name, value in schema.write(self.profile).items() if name != "candidates"}
        rows = [row.to_dict() for row in self.rows]
        return {"meets": self.met, "load": schema.write(self.load), "rows": rows, "profile": profile}


def plan(
    bundles: Sequence[str | Path] = (),
    *,
    cameras: int,
    fps: float,
    deadline: float,
    engines: Sequence[str] = (),
    profile: str | Path | None = None,
    save_profile: str | Path | None = None,
    frame_size: tuple[int, int] | None = None,
    synchronous: bool = False,
    force: bool = False,
    console: Console | None = None,
) -> Plan:
    """Forecast a stream for each bundle on each engine.

    Args:
        bundles: folders to measure here; with `profile`, names or folders of those in it, by default all.
        cameras, fps, deadline, synchronous: see `edgead.plan.simulate.Load`; at most `MOST_CAMERAS`.
        engines: names; by default all that this machine can run, or all in `profile`.
        profile: a stored profile, for instance of another machine. Nothing is measured.
        save_profile: file for the measured profile.
        frame_size: (height, width) of the cameras' frames, pixels; `FRAME_SIZE` where None. A profile has its own.
        force: replace `save_profile`.
        console: shows progress.

    Raises:
        ConfigError: numbers or options that make no sense.
        DataError: `profile` is none.
        DeviceError: nothing could be measured.
    """
    check_count("cameras", cameras)
    if cameras > MOST_CAMERAS:
        raise ConfigError(f"cameras must be {MOST_CAMERAS} at most, not {cameras}.")
    if not 0 < fps < float("inf") or not 0 < deadline < float("inf"):
        raise ConfigError("fps and deadline must be above 0.")
    load = Load(cameras, fps, deadline, synchronous)
    if profile is not None:
        if save_profile is not None:
            raise ConfigError("Nothing is measured with --profile. Leave out --save-profile.")
        if frame_size is not None:
            raise ConfigError("Nothing is measured with --profile, which has a frame size. Leave out --frame-size.")
        found = _only(read_profile(Path(profile)), bundles, engines)
    else:
        if not bundles:
            raise ConfigError("Pass a bundle to measure (--bundle), or a stored profile (--profile).")
        if save_profile:
            refuse_existing([Path(save_profile)], force)
            refuse_unwritable(Path(save_profile).parent)
        height, width = frame_size or FRAME_SIZE
        if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in (height, width)):
            raise ConfigError(
                f"The sides of a frame are {SMALLEST_SIDE} to {LARGEST_SIDE:,} pixels, not {width}x{height}."
            )
        found = measure_profile(bundles, engines, cameras, (height, width), console or Console())
        if save_profile:
            write_json(Path(save_profile), schema.write(found))
    rows = sorted((_row(each, load) for each in found.candidates), key=_rank)
    return Plan(load, found, tuple(rows))


def _only(profile: Profile, bundles: Sequence[str | Path], engines: Sequence[str]) -> Profile:
    """Return a profile with some of its candidates.

    Raises:
        ConfigError: it has no such bundle or engine.
    """
    known = {each.bundle for each in profile.candidates}
    paths = [str(bundle).removesuffix(".edgead") for bundle in bundles]
    names = [path if path in known else Path(path).name for path in paths]
    for name in names:
        if name not in known:
            raise ConfigError(unknown("bundle", name, sorted(known), "the profile"))
    kept = [each for each in profile.candidates if not names or each.bundle in names]
    available = dict.fromkeys(each.engine for each in kept)
    for name in engines:
        if not any(_is_engine(measured, name) for measured in available):
            raise ConfigError(unknown("engine", name, available, "the profile"))
    chosen = [each for each in kept if not engines or any(_is_engine(each.engine, name) for name in engines)]
    return Profile(**{**vars(profile), "candidates": tuple(chosen)})


def _is_engine(measured: str, name: str) -> bool:
    """Tell whether the engine that was measured (``onnxruntime-cpu``) is the one that a user names."""
    return measured == name or measured.startswith(f"{name}-cpu") or measured.startswith(f"{name} ")


def _row(candidate: Candidate, load: Load) -> Row:
    forecast = simulate(candidate.times, load)
    fits = meets(forecast, load)
    return Row(candidate, forecast, None if fits else advise(candidate.times, load, forecast))


def _rank(row: Row) -> tuple[bool, float, float]:
    """Order: what meets the numbers first, by its p99; then by how much faster the engine would have to be."""
    needed = 0.0 if row.advice is None else row.advice.speed_up or float("inf")
    return not row.meets, needed, row.forecast.p99


def _cells(row: Row) -> list[str]:
    each, forecast = row.candidate, row.forecast
    return [
        each.bundle,
        each.engine,
        each.precision,
        "yes" if row.meets else "no",
        f"{forecast.utilisation:.0%}",
        f"{forecast.p50:.1f}",
        f"{forecast.p99:.1f}",
        f"{percent(forecast.dropped + forecast.stale)}%",
        f"{each.memory_mib:.0f}",
        f"{each.start_seconds:.1f}",
    ]
