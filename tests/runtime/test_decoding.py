"""No picture of a damaged video is decided on: what is given equals the whole video's picture, or is an error."""

from __future__ import annotations

import random
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import videos
from videos import Data

from edgead.runtime.sources import decoding
from edgead.runtime.sources.decoding import Decoder, Picture
from edgead.runtime.sources.h264 import FrameCount
from edgead.runtime.sources.nal import Units
from edgead.runtime.sources.network import _open_pyav
from edgead.runtime.sources.tls import Tls

TIME_BASE = Fraction(1, 25)


def give(packets: list[Data], codec: str) -> list[Picture]:
    context = av.CodecContext.create(codec, "r")
    decoder = Decoder(SimpleNamespace(codec_context=context, time_base=TIME_BASE), "awaits a key frame")
    given = [picture for each in packets for picture in decoder.decode(each.packet(TIME_BASE))]
    return given + list(decoder.end())


def differing(given: list[Picture], whole: dict[float, np.ndarray]) -> int:
    decided = [picture for picture in given if not picture.flaw]
    return sum(not np.array_equal(each.image, whole[each.stamp]) for each in decided if each.stamp is not None)


@pytest.fixture(scope="module", params=list(videos.ENCODERS))
def encoded(request: pytest.FixtureRequest) -> tuple[str, list[Data], str, dict[float, np.ndarray]]:
    packets, codec = videos.encode(request.param)
    whole = give(packets, codec)
    assert [picture.flaw for picture in whole] == [""] * 48
    return request.param, packets, codec, {each.stamp: each.image for each in whole}


@pytest.mark.parametrize("seed", range(6))
def test_after_lost_packets_only_whole_pictures_are_given(encoded: tuple, seed: int) -> None:
    _, packets, codec, whole = encoded
    given = give(damaged := videos.damage(packets, "lost", random.Random(seed)), codec)
    assert differing(given, whole) == 0
    assert len(given) == len(damaged)
    assert sum(not picture.flaw for picture in given) >= 30  # it goes on at the next key frame


@pytest.mark.parametrize("seed", range(6))
def test_cut_packets_of_h264_are_seen(encoded: tuple, seed: int) -> None:
    _, packets, codec, whole = encoded
    if codec == "hevc":
        pytest.skip("FFmpeg's HEVC decoder does not see it; docs/sources.md says so")
    given = give(videos.damage(packets, "cut", random.Random(seed)), codec)
    assert differing(given, whole) == 0
    assert 12 < sum(not picture.flaw for picture in given) < 48
    assert len(given) == 48


def test_a_picture_without_one_of_its_slices_is_seen() -> None:
    packets, codec = videos.encode("slices")
    whole = {each.stamp: each.image for each in give(packets, codec)}
    for at in (5, 17, 30):
        for lost in range(4):
            units = packets[at].data.split(b"\0\0\1")
            del units[1 + lost]
            damaged = [*packets[:at], packets[at]._replace(data=b"\0\0\1".join(units)), *packets[at + 1 :]]
            given = give(damaged, codec)
            assert differing(given, whole) == 0
            assert {picture.flaw[:10] for picture in given} == {"", "the pictur"}


def test_every_packet_is_a_picture_or_an_error() -> None:
    packets, codec = videos.encode("B frames")
    whole = {each.stamp: each.image for each in give(packets, codec)}
    empty = packets[9]._replace(data=b"")
    for damaged in ([*packets[:9], empty, *packets[10:]], packets[5:]):
        given = give(damaged, codec)
        assert len(given) == len(damaged)
        assert differing(given, whole) == 0
    assert given[0].flaw == "awaits a key frame"


@pytest.mark.parametrize("name", list(videos.H264))
def test_the_count_of_pictures_and_holes_in_both_forms(name: str) -> None:
    """Annex B as on the network, and units with a length as in MP4."""
    packets, codec = videos.encode(name, 24)
    parameters = next(unit for unit in videos.units(packets[0].data) if unit[0] & 31 == 7)
    record = b"\1" + parameters[1:4] + b"\xff\xe1" + len(parameters).to_bytes(2, "big") + parameters + b"\0"
    for extradata in (None, record):
        units, count = Units(codec, extradata), FrameCount(extradata)
        stream = [each.data if extradata is None else with_lengths(each.data) for each in packets]
        for data in stream:
            assert not any(count.is_missing(unit) for unit in units.split(data))
        key = stream[0]
        with pytest.raises(ValueError, match="contains a gap"):
            list(units.split(key[:-20] + bytes(8) + key[-12:]))
    with pytest.raises(ValueError, match="truncated"):
        list(units.split(stream[1][:-1]))
    with pytest.raises(ValueError, match="its beginning is missing"):
        list(Units(codec, None).split(packets[1].data[40:]))


def with_lengths(data: bytes) -> bytes:
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in videos.units(data))


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("CAVLC", 0),
        ("CAVLC", 1),
        ("B frames", 2),
        pytest.param("HEVC", 3, marks=pytest.mark.long),
        pytest.param("HEVC B frames", 4, marks=pytest.mark.long),
    ],
)
def test_rtp_packets_that_are_lost_are_heard_of(name: str, seed: int) -> None:
    packets, codec = videos.encode(name, 96)
    whole = {each.image.tobytes() for each in give(packets, codec) if each.image is not None}
    server = videos.LossyRtsp(packets, codec)
    server.lost = set(random.Random(seed).sample(range(server.count * 2 // 3, server.count - 30), 2))
    capture = _open_pyav(server.address, Tls())
    flaws, decided, stamps = [], 0, []
    while True:
        there, image = capture.read()
        if not there:
            break
        flaws.append(capture.flaw)
        if not capture.flaw:
            decided += 1
            stamps.append(capture.stamp)
            assert image.tobytes() in whole
    capture.release()
    server.close()
    assert any("missed" in flaw for flaw in flaws)
    assert decided > 5
    assert stamps == sorted(stamps)


def test_pictures_that_are_too_large_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    packets, codec = videos.encode("CABAC", 12)
    monkeypatch.setitem(decoding._OPTIONS, "max_pixels", "19000")  # they have 19200
    given = give(packets, codec)
    assert len(given) == 12
    assert all(picture.flaw for picture in given)
