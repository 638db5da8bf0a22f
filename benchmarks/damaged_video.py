"""Count undetected damage inside videos: decisions on frames that differ from those of the intact video.

    python benchmarks/damaged_video.py --out benchmarks/results/damaged-video.json

Each codec setting and kind of damage is tried with as many seeds as `--seeds`. One place in 48 pictures is damaged:
whole pictures lost, the end of one cut off, bytes removed or zeroed, one bit flipped. The videos come from
tests/runtime/videos.py and are decoded as a stream decodes them.
"""

from __future__ import annotations

import random
import sys
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import click
import numpy as np

from edgead.files import write_json
from edgead.machine import describe_measurement
from edgead.runtime.sources.decoding import Decoder, Picture

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "runtime"))
import videos  # type: ignore[import-not-found]

KINDS = ("lost", "cut", "hole", "zeros", "flipped")
TIME_BASE = Fraction(1, 25)


def decode(packets: list[videos.Data], codec: str) -> list[Picture]:
    """Decode packets as a stream does."""
    stream = SimpleNamespace(codec_context=av.CodecContext.create(codec, "r"), time_base=TIME_BASE)
    decoder = Decoder(stream, "awaits a key frame")
    given = [picture for each in packets for picture in decoder.decode(each.packet(TIME_BASE))]
    return given + list(decoder.end())


def count_invisible(name: str, kind: str, seeds: int) -> int:
    """Return the number of damages with at least one decision on a wrong frame."""
    packets, codec = videos.encode(name)
    whole = {picture.stamp: picture.image for picture in decode(packets, codec)}
    wrong = 0
    for seed in range(seeds):
        given = decode(videos.damage(packets, kind, random.Random(1000 + seed)), codec)
        decided = [picture for picture in given if not picture.flaw and picture.image is not None]
        wrong += any(not np.array_equal(each.image, whole[each.stamp]) for each in decided)  # type: ignore[arg-type]
    return wrong


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--seeds", default=60, show_default=True)
def main(out: Path, seeds: int) -> None:
    head = describe_measurement("benchmarks/damaged_video.py", "av")
    invisible = {
        name: {kind: count_invisible(name, kind, seeds) for kind in KINDS} for name in (*videos.H264, *videos.HEVC)
    }
    write_json(
        out,
        {
            "schema": 1,
            **asdict(head),
            "damages": seeds,
            "with_a_wrong_picture_decided": invisible,
        },
    )


if __name__ == "__main__":
    main()
