"""Resampling by time stamp."""

from fractions import Fraction

import pytest
from video_files import make_file, number_of

from dcvideogen.errors import UserError
from dcvideogen.video import iterate_frames
from dcvideogen.video.rate import check_fps, resample


def resampled(times, fps, source_fps, start=0):
    timed = ((Fraction(time), index) for index, time in enumerate(times))
    return list(resample(timed, Fraction(fps), Fraction(source_fps), start))


def test_half_the_rate_takes_every_second_frame():
    assert resampled([Fraction(i, 30) for i in range(80)], 15, 30) == list(range(0, 80, 2))


def test_twice_the_rate_shows_every_frame_twice():
    assert resampled([Fraction(i, 15) for i in range(5)], 30, 15) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_the_same_rate_changes_nothing_even_when_stamps_are_rounded_to_milliseconds():
    times = [Fraction(round(1000 * i / 30), 1000) for i in range(300)]
    assert resampled(times, 30, 30) == list(range(300))


@pytest.mark.parametrize(("fps", "count"), [(24, 64), (Fraction(24000, 1001), 64), (25, 67), (7, 19), (60, 160)])
def test_the_duration_stays(fps, count):
    frames = resampled([Fraction(i, 30) for i in range(80)], fps, 30)
    assert len(frames) == count
    assert all(abs(Fraction(frame, 30) - k / Fraction(fps)) <= Fraction(1, 60) for k, frame in enumerate(frames))


def test_a_long_pause_repeats_the_nearest_frame():
    assert resampled([0, Fraction(1, 10), 1, Fraction(11, 10)], 10, 10) == [0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3]


def test_one_frame_stays_one_frame():
    assert resampled([0], 1, 30) == [0]


def test_variable_rate_files_are_resampled_by_their_stamps(tmp_path):
    # 10 frames in the first second, then 40 in the second one.
    stamps = [100 * i for i in range(10)] + [1000 + 25 * i for i in range(40)]
    path = make_file(tmp_path / "vfr.mkv", 50, stamps=stamps)
    assert [number_of(frame) for frame in iterate_frames(path)] == list(range(50))
    numbers = [number_of(frame) for frame in iterate_frames(path, fps=20)]
    expected = [min(range(50), key=lambda i: (abs(stamps[i] - 50 * k), i)) for k in range(len(numbers))]
    assert numbers == expected
    assert 39 <= len(numbers) <= 41
    assert numbers[:6] == [0, 0, 1, 1, 2, 2]
    assert [number_of(f) for f in iterate_frames(path, fps=20, start_frame=3, num_frames=4)] == numbers[3:7]


@pytest.mark.parametrize("fps", [0, -3, float("inf"), "fast", 5000, "1/0", None])
def test_impossible_rates_are_refused(fps):
    with pytest.raises(UserError, match="at most 1000"):
        check_fps(fps)


def test_rates_become_fractions():
    assert check_fps(29.97) == Fraction(2997, 100)
    assert check_fps("30000/1001") == Fraction(30000, 1001)
    assert check_fps(24) == 24
