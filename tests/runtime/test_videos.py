"""Video files: whole ones give every picture, whatever their rate; cut and damaged ones say so."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import videos

from edgead.errors import SourceError
from edgead.runtime.sources import Captured, open_source, video
from edgead.runtime.sources.container import find_cut

KINDS = ("mp4", "mkv", "avi", "ts", "mov", "webm")
PAUSES = [0, 33, 66, 100, 133, 166, 200, 1500, 1533, 1566, 1600, 3000, 3033, 3066, 3100, 3133, 3166, 3200, 5000, 5033]


def make(path: Path, times: list[int] | None = None, count: int = 20) -> Path:
    codec = "libvpx-vp9" if path.suffix == ".webm" else "libx264"
    options = {} if path.suffix == ".webm" else {"x264-params": "keyint=8"}
    return videos.write_video(path, videos.pictures(count), codec, times, **options)


def read(path: Path) -> list[Captured]:
    with open_source(str(path)) as frames:
        return list(frames)


@pytest.fixture(params=["PyAV", "OpenCV"])
def through(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "OpenCV":
        monkeypatch.setattr(video, "has_pyav", lambda: False)
    return str(request.param)


@pytest.mark.parametrize("times", [None, PAUSES], ids=["25 a second", "with pauses"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_video_gives_every_picture_and_nothing_else(
    tmp_path: Path, kind: str, times: list[int] | None, through: str
) -> None:
    given = read(make(tmp_path / f"line.{kind}", times))
    assert [captured.error for captured in given] == [""] * 20
    assert [captured.frame_id for captured in given] == list(range(20))
    for captured, picture in zip(given, videos.pictures(20)):  # the right ones, in order
        assert np.abs(captured.image.astype(int) - picture).mean() < 25


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi", "mov", "webm"])
def test_a_video_that_was_cut_ends_with_an_error(tmp_path: Path, kind: str, share: float, through: str) -> None:
    path = tmp_path / f"line.{kind}"
    options = {"movflags": "faststart"} if kind in ("mp4", "mov") else {}
    with av.open(str(make(tmp_path / f"whole.{kind}"))) as source, av.open(str(path), "w", options=options) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None or packet.size:
                packet.stream = stream
                out.mux(packet)
    whole = [captured.image for captured in read(path)]
    assert len(whole) == 20
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    given = read(path)
    assert given[-1].image is None
    assert given[-1].cause == "unreadable"
    assert "truncated" in given[-1].error
    if through == "PyAV":
        decided = [captured.image for captured in given if not captured.error]
        assert all(any(np.array_equal(image, other) for other in whole) for image in decided)


def test_a_recording_that_was_never_finished_says_so(tmp_path: Path, through: str) -> None:
    path = make(tmp_path / "line.avi")
    data = bytearray(path.read_bytes())
    data[4:8] = bytes(4)  # as it is until the recorder ends
    path.write_bytes(data)
    assert "never finished" in read(path)[-1].error
    mp4 = make(tmp_path / "line.mp4")
    mp4.write_bytes(mp4.read_bytes()[:-700])  # the index lies at the end
    with pytest.raises(SourceError, match=r"neither an image nor a readable video.*truncated"):
        open_source(str(mp4))


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi", "ts", "mov"])
def test_holes_in_a_file_are_seen(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path / f"line.{kind}", count=40)
    whole, data = [captured.image for captured in read(path)], path.read_bytes()
    for seed in range(4):
        at = random.Random(seed).randrange(len(data) // 4, len(data) * 3 // 4)
        path.write_bytes(data[:at] + bytes(4096) + data[at + 4096 :])
        given = read(path)
        assert any(captured.error for captured in given)
        for captured in given:
            assert captured.error or any(np.array_equal(captured.image, other) for other in whole)
        assert len(given) > 25  # Matroska does not count: of what a hole swallowed, one error is left


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_lost_packets_of_a_transport_stream_are_seen(tmp_path: Path, codec: str) -> None:
    options = {f"{codec.removeprefix('lib')}-params": "keyint=8" + ":log-level=none" * (codec == "libx265")}
    path = videos.write_video(tmp_path / "line.ts", videos.pictures(40), codec, **options)
    whole, data = {captured.image.tobytes() for captured in read(path)}, path.read_bytes()
    seen = 0
    for seed in range(8):
        rng = random.Random(seed)
        first, count = 188 * rng.randrange(20, len(data) // 188 - 12), 188 * rng.choice((1, 1, 3, 10))
        path.write_bytes(data[:first] + data[first + count :])
        given = read(path)
        assert all(captured.error or captured.image.tobytes() in whole for captured in given)
        assert len(given) >= 38
        seen += any(captured.error for captured in given)
    assert seen >= 7  # packets without a picture may be lost, too


def test_mjpeg_in_avi_is_checked_picture_by_picture(tmp_path: Path) -> None:
    path = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (160, 120))
    for picture in videos.pictures(12):
        writer.write(picture)
    writer.release()
    assert [captured.error for captured in read(path)] == [""] * 12
    data = path.read_bytes()
    begin = data.index(b"\xff\xd8", len(data) // 2)
    path.write_bytes(data[: begin + 2000] + bytes(1500) + data[begin + 3500 :])
    given = read(path)
    assert [bool(captured.error) for captured in given].count(True) == 1
    assert len(given) == 12


def test_opencv_says_what_it_cannot_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(video, "has_pyav", lambda: False)
    with caplog.at_level(logging.WARNING):
        read(make(tmp_path / "line.mp4"))
    assert "conceals damaged frames" in caplog.text


def test_a_video_whose_size_changes_gives_each_in_its_own(tmp_path: Path) -> None:
    small = make(tmp_path / "a.h264", count=8).read_bytes()
    large = videos.write_video(tmp_path / "b.h264", videos.pictures(8, (240, 320))).read_bytes()
    path = tmp_path / "both.h264"
    path.write_bytes(small + large)
    given = read(path)
    sizes = [captured.image.shape[:2] for captured in given if not captured.error]
    assert len(given) == 16
    assert (sizes[0], sizes[-1]) == ((120, 160), (240, 320))
    assert sizes == sorted(sizes)


def test_a_turned_video_is_given_as_opencv_gives_it(tmp_path: Path) -> None:
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 120, 160, "yuv420p"
        stream.set_display_rotation(90)
        for picture in videos.pictures(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        out.mux(stream.encode())
    _, expected = cv2.VideoCapture(str(path)).read()
    assert expected.shape == (160, 120, 3)
    assert np.array_equal(read(path)[0].image, expected)


def test_lengths_of_containers(tmp_path: Path) -> None:
    for kind in KINDS:
        path = make(tmp_path / f"line.{kind}", count=3)
        assert find_cut(path) == ""
        if kind != "ts":
            path.write_bytes(path.read_bytes()[:-1])
            assert "truncated" in find_cut(path)
    for garbage in (b"", b"RIFF", b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\x00" * 9, b"\0\0\0\0ftyp", bytes(40)):
        (path := tmp_path / "garbage").write_bytes(garbage)
        find_cut(path)


@pytest.mark.parametrize("suffix", ["mp4", "m3u8"])
def test_a_video_names_no_other_files(through: str, suffix: str, tmp_path: Path) -> None:
    """FFmpeg plays lists of files and addresses: one among videos would show what lies elsewhere."""
    make(tmp_path / "other.ts")
    for text in (
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile other.ts\n",
    ):
        path = tmp_path / f"line.{suffix}"
        path.write_text(text)
        with pytest.raises(SourceError, match="is a playlist"):
            read(path)


def test_ffmpeg_is_told_the_formats_that_hold_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the first bytes do not show a playlist."""
    make(tmp_path / "other.ts")
    monkeypatch.setattr(video, "_PLAYLISTS", (b"nothing",))
    (tmp_path / "line.mp4").write_text("ffconcat version 1.0\nfile other.ts\n")
    with pytest.raises(SourceError, match="neither an image nor a readable video"):
        read(tmp_path / "line.mp4")


def test_damaged_parameters_are_an_error(tmp_path: Path) -> None:
    """A file whose first parameter set ends too soon: lost pictures could not be counted."""
    path = make(tmp_path / "line.mkv", count=3)
    with av.open(str(path)) as container:
        record = bytes(container.streams.video[0].codec_context.extradata or b"")
    cut = record[:6] + b"\0\x02" + record[8:]  # the length of the first set
    path.write_bytes(path.read_bytes().replace(record, cut))
    with pytest.raises(SourceError, match="neither an image nor a readable video"):
        read(path)


def test_a_video_of_one_jpeg_behind_the_other_is_more_than_its_first_picture(tmp_path: Path, through: str) -> None:
    """By its content it is a JPEG: one result for a whole video."""
    pictures = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in videos.pictures(5)]
    (tmp_path / "line.mjpeg").write_bytes(b"".join(pictures))
    assert [captured.error for captured in read(tmp_path / "line.mjpeg")] == [""] * 5


def test_a_transport_stream_that_ends_in_a_packet_is_cut(tmp_path: Path) -> None:
    """A small last frame fits into one packet, and was lost without a word."""
    flat = [np.full((120, 160, 3), 60, np.uint8)] * 8
    whole = videos.write_video(tmp_path / "line.ts", flat)
    assert [captured.error for captured in read(whole)] == [""] * 8
    whole.write_bytes(whole.read_bytes()[:-5])
    assert read(whole)[-1].error == "the file is truncated: its last packet is incomplete"
