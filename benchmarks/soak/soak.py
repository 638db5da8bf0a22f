"""A soak test: the line runs for long with real sources and sinks, and everything around it fails, from a seed.

    make soak MINUTES=30 SEED=1

`edgead run` runs as a process of its own with an RTSP camera, a looped video, a watched folder and drawn frames, and
writes into a JSONL file, a database, a folder of rejects, a webhook, an MQTT broker and a PLC. Lives of the line end
with ``kill -9``, TERM or Ctrl-C. Calls add up in the results file: each goes on with the lives that its seed has not
had yet. ``--life N`` repeats one.

Exit code 1: a check failed; the notes and the results file name the life.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "simulated_line"))

from auditor import NAMES, Auditor  # noqa: E402
from lives import plan_life  # noqa: E402
from soak_report import Sitting, SoakReport, add, next_life, read_report, write_report  # noqa: E402
from soaking import Say, Soaking  # noqa: E402
from world import PRIVATE, World  # noqa: E402

from edgead.errors import EdgeadError  # noqa: E402
from edgead.machine import Measurement, describe_measurement  # noqa: E402

FPS, VIDEO_FPS = 400.0, 25.0


def soak(
    seed: int,
    first: int,
    folder: Path,
    *,
    seconds: float = math.inf,
    frames: int = 0,
    lives: int = 0,
    life_seconds: float = 0.0,
    fps: float = FPS,
    logs: Path,
    say: Say = lambda text: None,
    keep: Callable[[SoakReport], object] = lambda report: None,
) -> SoakReport:
    """Run lives of the line.

    Args:
        seed, first: of the faults, and number of the first life.
        folder: for files.
        seconds: no life lasts longer than until then.
        frames, lives: end after so many; 0 for no limit.
        life_seconds: of each life; 0 for those of the plan.
        fps: of the drawn frames; 0 for as many as the line can take.
        logs: folder for the logs of lives with violations.
        say: shows progress.
        keep: called with the report so far after each life.
    """
    began, head = time.monotonic(), describe_measurement("benchmarks/soak/soak.py")
    world = World(folder, VIDEO_FPS)
    auditor = Auditor(world.troubles)
    soaking = Soaking(world, auditor, logs, say)

    def report(done: int) -> SoakReport:
        sitting = Sitting(
            created=head.created,
            command=head.command,
            seed=seed,
            first=first,
            lives=done,
            frames=soaking.frames,
            seconds=round(time.monotonic() - began, 1),
            load_average=head.machine.load_before,
            notes=list(auditor.notes),
        )
        return _report(head, sitting, world, auditor, soaking, fps)

    number = first
    try:
        while time.monotonic() < began + seconds and not (frames and soaking.frames >= frames):
            soaking.run(plan_life(seed, number, life_seconds), fps, began + seconds)
            number += 1
            keep(report(number - first))
            if lives and number - first >= lives:
                break
        soaking.finish(number)
    finally:
        world.close()
    return report(number - first)


def _report(
    head: Measurement, sitting: Sitting, world: World, auditor: Auditor, soaking: Soaking, fps: float
) -> SoakReport:
    return SoakReport(
        created=sitting.created,
        machine=head.machine,
        versions=head.versions,
        fps={"synthetic": fps, "loop": VIDEO_FPS, "rtsp": 25.0},
        violations={name: auditor.counts[name] for name in NAMES},
        checks=dict(auditor.checks),
        frames=soaking.frames,
        results=soaking.results,
        lives=soaking.lives,
        ends=dict(soaking.ends),
        faults=dict(sorted(soaking.faults.items())),
        missing=world.missing,
        reloads=dict(soaking.reloads),
        sources=dict(soaking.sources),
        dropped=dict(soaking.dropped),
        verdicts=dict(auditor.verdicts),
        unknown=dict(auditor.unknown),
        sinks={name: dict(fates) for name, fates in soaking.sinks.items()},
        latency_bins={"all": auditor.all_latency.to_json(), "undisturbed": auditor.undisturbed.to_json()},
        growth=list(soaking.growth),
        running_seconds=soaking.seconds,
        sittings=[sitting],
    )


def _mount_privately() -> None:
    """Go on in a process that may mount file systems, which end with it, if this machine allows that."""
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    if PRIVATE not in os.environ and shutil.which("unshare") and os.system(f"{shlex.join([*own, 'true'])} 2>&-") == 0:
        os.environ[PRIVATE] = "1"
        os.execvp(own[0], [*own, sys.executable, *sys.argv])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--frames", type=int, default=0, help="end after so many")
    parser.add_argument("--lives", type=int, default=0, help="end after so many")
    parser.add_argument("--life-seconds", type=float, default=0.0, help="of each life; planned from the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--life", type=int, help="repeat this life alone")
    parser.add_argument("--fps", type=float, default=FPS, help=f"of the drawn frames ({FPS:g}); 0 without a limit")
    parser.add_argument(
        "--logs", type=Path, default=HERE.parents[1] / "build" / "soak", help="of lives with violations"
    )
    parser.add_argument("--out", type=Path, help="results file; what is there is added up")
    options = parser.parse_args()
    before = read_report(options.out) if options.out else None

    def keep(report: SoakReport) -> SoakReport:
        total = add(before, report)
        if options.out:
            write_report(options.out, total)
        return total

    with tempfile.TemporaryDirectory() as folder:
        report = soak(
            options.seed,
            next_life(before, options.seed) if options.life is None else options.life,
            Path(folder),
            seconds=60 * options.minutes,
            frames=options.frames,
            lives=1 if options.life is not None else options.lives,
            life_seconds=options.life_seconds,
            fps=options.fps,
            logs=options.logs,
            say=lambda text: print(text, file=sys.stderr, flush=True),
            keep=keep,
        )
    notes, violated = report.sittings[-1].notes, {name: count for name, count in report.violations.items() if count}
    report = keep(report)
    print(f"{report.frames} frames, {report.lives} lives, {sum(report.faults.values())} faults, latency ", end="")
    print(f"{report.latency_ms['all']} ms, {report.frames_per_second} frames/s; violations: {violated or 'none'}")
    if violated:
        print(*notes, sep="\n", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    _mount_privately()
    try:
        main()
    except EdgeadError as error:
        sys.exit(f"Error: {error}")
