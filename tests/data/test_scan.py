import logging

import numpy as np
import pytest
from media import cut_file, moving_frames, write_clip, write_photo
from PIL import Image

from dcvideogen.data.items import Item
from dcvideogen.data.measures import black_frames, find_cuts, static_pairs
from dcvideogen.data.scan import measurement, part_frames, quiet, scan
from dcvideogen.data.settings import CheckSettings


def scanned(path, start=None, end=None, **settings):
    stat = path.stat()
    item = Item(path.name, path, stat.st_size, stat.st_mtime_ns, start=start, end=end)
    return scan(item, path.parent, CheckSettings(**settings))


def test_cuts_are_found_and_neither_motion_nor_a_flash_is_one():
    one, other = moving_frames(12, seed=1), 255 - moving_frames(12, seed=2)
    film = np.concatenate([one, other, one])
    assert find_cuts(film, levels=12, ratio=1.5) == (12, 24)
    flash = one.copy()
    flash[6] = 255
    assert find_cuts(flash, levels=12, ratio=1.5) == ()
    assert find_cuts(film, levels=200, ratio=1.5) == ()
    assert find_cuts(film, levels=12, ratio=50) == ()
    assert find_cuts(film[11:13], levels=12, ratio=1.5) == (1,)
    assert find_cuts(one[:1], levels=12, ratio=1.5) == ()


def test_black_frames_and_standing_pairs_are_counted_by_levels():
    frames = moving_frames(4)
    frames[1] = 20
    frames[2] = frames[1]
    frames[2, 5, 5] = 23
    assert black_frames(frames, 24).tolist() == [False, True, True, False]
    assert not black_frames(frames, 20).any()
    assert static_pairs(frames, 3).tolist() == [False, True, False]
    assert static_pairs(frames, 2).tolist() == [False, False, False]


def test_a_video_has_the_facts_of_its_container_and_of_its_pictures(tmp_path):
    film = np.concatenate([moving_frames(10, seed=1), 255 - moving_frames(10, seed=2), np.zeros((5, 48, 64, 3), "u1")])
    record = scanned(write_clip(tmp_path / "a.mkv", film, fps=25))
    assert (record.kind, record.width, record.height, record.fps, record.codec) == ("video", 64, 48, 25.0, "ffv1")
    assert (record.frames, record.scanned, record.duration_s) == (25, 25, 1.0)
    assert record.cuts == (10, 20)
    assert record.black_share == 0.2
    assert record.static_share == round(4 / 24, 4)
    assert record.reason is None


def test_a_photograph_is_one_frame(tmp_path):
    record = scanned(write_photo(tmp_path / "a.png"))
    assert (record.kind, record.frames, record.width, record.height, record.fps) == ("image", 1, 80, 64, None)
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    assert scanned(tmp_path / "black.png").black_share == 1.0


def test_a_part_is_counted_from_its_start(tmp_path):
    film = np.concatenate([moving_frames(20, seed=1), 255 - moving_frames(20, seed=2)])
    path = write_clip(tmp_path / "a.mkv", film, fps=10)
    record = scanned(path, start=1.0, end=3.0)
    assert (record.frames, record.cuts, record.duration_s) == (20, (10,), 2.0)
    assert scanned(path, start=1.0).frames == 30
    assert part_frames(10, 1.0, 3.0) == (10, 20)
    assert scanned(path, start=9.0).reason == "range"
    assert scanned(path, start=1.0, end=9.0).reason == "range"


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_file_cut_in_half_is_truncated(tmp_path, suffix):
    frames = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    record = scanned(cut_file(write_clip(tmp_path / f"a.{suffix}", frames)))
    assert record.reason == "truncated"
    assert "breaks at frame" in record.detail
    assert str(tmp_path) not in record.detail


def test_a_long_file_is_sampled_in_the_middle_and_at_the_end(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_frames(120))
    record = scanned(path, scan_frames=20, sample_frames=4)
    assert (record.frames, record.scanned) == (120, 20)
    cut = write_clip(tmp_path / "cut.mp4", moving_frames(120))
    assert scanned(cut_file(cut, 0.9), scan_frames=20, sample_frames=4).reason == "truncated"
    frames = np.random.default_rng(0).integers(0, 256, (120, 48, 64, 3), dtype=np.uint8)
    damaged = write_clip(tmp_path / "b.mp4", frames)
    data = bytearray(damaged.read_bytes())
    place = len(data) * 97 // 100  # in the last frames: neither the start nor the structure shows it
    data[place : place + 20000] = bytes(len(data[place : place + 20000]))
    damaged.write_bytes(data)
    assert scanned(damaged, scan_frames=20, sample_frames=8).reason in ("corrupt", "truncated")


def test_files_that_are_no_media_say_so(tmp_path):
    (tmp_path / "text.mp4").write_text("hello\n" * 99)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "bad.png").write_text("x" * 99)
    cut_file(write_photo(tmp_path / "half.jpg"))
    assert scanned(tmp_path / "text.mp4").reason == "unreadable"
    assert scanned(tmp_path / "empty.mp4").reason == "empty"
    assert scanned(tmp_path / "bad.png").reason == "unreadable"
    assert scanned(tmp_path / "half.jpg").reason == "corrupt"


def test_the_measurement_is_named_by_the_settings_that_it_depends_on():
    assert measurement(CheckSettings()) == measurement(CheckSettings(min_frames=3, codecs=("h264",)))
    for change in ({"black_levels": 9}, {"static_levels": 9}, {"cut_levels": 9}, {"cut_ratio": 9},
                   {"scan_frames": 9}, {"sample_frames": 9}):  # fmt: skip
        assert measurement(CheckSettings(**change)) != measurement(CheckSettings()), change


def test_notes_about_single_files_are_muted_while_many_are_read(caplog):
    logger = logging.getLogger("dcvideogen")
    with quiet():
        logger.warning("not heard")
    logger.warning("heard")
    assert [record.getMessage() for record in caplog.records] == ["heard"]
