"""A start frame gives exactly the frames that a full read gives from there."""

from fractions import Fraction

import numpy as np
import pytest
from video_files import make_file, number_of

import dcvideogen.video.decode as video_decode
import dcvideogen.video.read as video_read
from dcvideogen.video import iterate_frames
from dcvideogen.video.seek import find_seek_point
from dcvideogen.video.source import open_source

X264 = {"g": "20", "bf": "3", "x264-params": "scenecut=0"}
KINDS = {
    "closed.mp4": {"options": X264},
    "open.mp4": {"options": {**X264, "x264-params": "scenecut=0:open-gop=1"}},
    "refresh.mp4": {"options": {**X264, "x264-params": "scenecut=0:intra-refresh=1"}},
    "closed.mkv": {"options": X264},
    "hevc.mkv": {"codec": "libx265", "options": {"g": "20", "x265-params": "log-level=none:keyint=20:open-gop=1"}},
    "vp8.webm": {
        "codec": "libvpx",
        "options": {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "10", "cpu-used": "8"},
    },
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "20", "deadline": "realtime", "cpu-used": "8"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "20", "bf": "2"}},
    "wmv2.wmv": {"codec": "wmv2", "options": {"g": "20"}},
    "palette.gif": {"codec": "gif", "pixel_format": "rgb8"},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_start_is_frame_exact(tmp_path, name):
    path = make_file(tmp_path / name, 90, **KINDS[name])
    whole = list(iterate_frames(path))
    for start in (1, 24, 39, 40, 41, 57, 59, 60, 88, 89):
        part = list(iterate_frames(path, start_frame=start, num_frames=2))
        assert all(np.array_equal(a, b) for a, b in zip(part, whole[start : start + 2], strict=True)), start
    assert [number_of(f) for f in iterate_frames(path, start_frame=70)] == list(range(70, 90))


@pytest.mark.parametrize("name", ["closed.mp4", "closed.mkv", "vp8.webm", "hevc.mkv"])
def test_a_far_start_really_skips_the_frames_before_its_key_frame(tmp_path, monkeypatch, name):
    path = make_file(tmp_path / name, 90, **KINDS[name])
    with open_source(path) as source:
        point = find_seek_point(source, 75)
    assert 40 <= point.stamps.index(point.key_stamp) <= 75
    decoded = []
    pictures = video_decode._Run.pictures
    monkeypatch.setattr(video_decode._Run, "pictures", lambda run: map(noted, pictures(run)))

    def noted(picture):
        decoded.append(picture.index)
        return picture

    next(iter(iterate_frames(path, start_frame=75)))
    assert decoded[0] == point.stamps.index(point.key_stamp)
    assert decoded[-1] == 75


def test_uneven_time_stamps_do_not_move_the_start(tmp_path):
    stamps = np.cumsum([0] + [20 + 37 * i % 61 for i in range(89)]).tolist()
    path = make_file(tmp_path / "vfr.mp4", 90, options=X264, stamps=stamps)
    assert number_of(next(iter(iterate_frames(path, start_frame=71)))) == 71


def test_resampling_from_a_far_start_equals_the_tail_of_the_whole(tmp_path):
    stamps = np.cumsum([0] + [20 + 37 * i % 61 for i in range(89)]).tolist()
    path = make_file(tmp_path / "vfr.mkv", 90, options=X264, stamps=stamps)
    for fps in (10, Fraction(30000, 1001), 50):
        whole = [number_of(f) for f in iterate_frames(path, fps=fps)]
        for start in (1, len(whole) // 2, len(whole) - 1):
            assert [number_of(f) for f in iterate_frames(path, fps=fps, start_frame=start)] == whole[start:]


def test_a_seek_that_misses_falls_back_to_reading_from_the_start(tmp_path, monkeypatch):
    path = make_file(tmp_path / "closed.mp4", 90, options=X264)
    opened = []

    def counted(source_path):
        opened.append(source_path)
        return open_source(source_path)

    def wrong_point(source, start, seconds=None):
        point = find_seek_point(source, start, seconds)
        return point and type(point)([stamp + 1 for stamp in point.stamps], point.key_stamp)

    monkeypatch.setattr(video_read, "open_source", counted)
    monkeypatch.setattr("dcvideogen.video.decode.find_seek_point", wrong_point)
    assert number_of(next(iter(iterate_frames(path, start_frame=75)))) == 75
    assert len(opened) == 2
