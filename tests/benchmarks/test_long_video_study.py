import pytest
import torch

from dcvideogen.data.shapes import render
from dcvideogen.shapes_world import combinations


@pytest.fixture
def long_video(beside_the_scripts):
    import long_video

    return long_video


def test_every_window_is_read_by_itself_and_a_seam_is_seen(long_video):
    asked, other = combinations("test")[0], combinations("test")[-1]
    right, wrong = render(asked, 0), render(other, 1)
    windows = list(long_video.measure(torch.cat([right, wrong], dim=1), asked))
    assert [window["color"] for window in windows] == [1.0, float(asked.color == other.color)]
    assert windows[0]["motion"] == windows[0]["shape"] == windows[0]["jump"] == 1.0
    assert windows[1]["jump"] > 3


def test_the_table_has_the_means_of_each_window(long_video):
    one = dict.fromkeys(long_video.COLUMNS, 1.0)
    none = dict.fromkeys(long_video.COLUMNS, 0.0)
    rows = long_video.table([[one, none], [one, one]]).splitlines()[2:]
    assert rows[0] == "| 0 to 31 " + "| 1.00 " * 7 + "|"
    assert rows[1] == "| 32 to 63 " + "| 0.50 " * 7 + "|"


def test_videos_of_other_lengths_than_whole_windows_are_read_to_their_end(long_video):
    asked = combinations("test")[0]
    assert len(list(long_video.measure(render(asked, 0)[:, :20], asked))) == 1
    with pytest.raises(StopIteration):
        next(long_video.measure(render(asked, 0)[:, :0], asked))
