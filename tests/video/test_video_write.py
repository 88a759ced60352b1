"""Writing: what comes back, what the file says about itself, and nothing half-written."""

import errno
import json
import logging
from fractions import Fraction

import av
import numpy as np
import pytest
from video_files import number_of, numbered_frame

from dcvideogen.errors import UserError
from dcvideogen.video import (
    VideoWriter,
    frames_to_video,
    iterate_frames,
    probe,
    read_metadata,
    read_video,
    write_video,
)


def noise_frames(num_frames, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(num_frames)]


def write(path, frames, fps=25, **settings):
    with VideoWriter(path, fps=fps, **settings) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.mark.parametrize("name", ["a.mkv", "a.png", "a"])
@pytest.mark.parametrize("size", [(48, 64), (45, 61), (1, 1), (2, 7), (64, 96)])
def test_lossless_formats_are_bit_exact(tmp_path, name, size):
    frames = noise_frames(4, *size)
    back = list(iterate_frames(write(tmp_path / name, frames)))
    assert len(back) == 4
    assert all(np.array_equal(a, b) for a, b in zip(frames, back, strict=True))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a"])
@pytest.mark.parametrize("fps", [Fraction(30000, 1001), 16, 12.5, "24000/1001"])
def test_the_frame_rate_survives(tmp_path, name, fps):
    path = write(tmp_path / name, noise_frames(3, 16, 16), fps=fps)
    assert probe(path).fps == Fraction(fps)


def test_mp4_is_what_browsers_play(tmp_path):
    path = write(tmp_path / "a.mp4", [numbered_frame(i) for i in range(12)])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        picture = next(container.decode(stream))
        assert (stream.codec_context.name, stream.codec_context.profile) == ("h264", "High")
        assert (picture.format.name, picture.color_range, picture.colorspace) == ("yuv420p", 1, 1)
        assert (picture.color_primaries, picture.color_trc) == (1, 1)
        assert (stream.frames, container.duration) == (12, 480000)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert [number_of(frame) for frame in iterate_frames(path)] == list(range(12))


def test_solid_colours_survive_mp4(tmp_path):
    for colour in [(255, 0, 0), (10, 200, 90), (30, 40, 220), (255, 255, 255), (0, 0, 0), (128, 128, 128)]:
        frame = np.full((32, 32, 3), colour, dtype=np.uint8)
        back = next(iter(iterate_frames(write(tmp_path / "a.mp4", [frame] * 2))))
        assert np.abs(back.astype(int) - frame).max() <= 2, colour


def test_crf_trades_size_for_quality(tmp_path):
    frames = [numbered_frame(i) for i in range(10)]
    fine, coarse = (write(tmp_path / f"{crf}.mp4", frames, crf=crf) for crf in (5, 40))
    assert fine.stat().st_size > 2 * coarse.stat().st_size
    errors = [np.abs(next(iter(iterate_frames(path))).astype(int) - frames[0]).mean() for path in (fine, coarse)]
    assert errors[0] < errors[1] * 0.8


@pytest.mark.parametrize("size", [(45, 61), (44, 61), (45, 64), (1, 1)])
def test_odd_mp4_sizes_come_back_and_are_said_once(tmp_path, caplog, size):
    height, width = size
    frames = [np.full((height, width, 3), level, dtype=np.uint8) for level in (60, 120, 180)]
    with caplog.at_level(logging.WARNING, logger="dcvideogen"):
        path = write(tmp_path / "odd.mp4", frames, crf=5)
    assert len(caplog.records) == 1
    assert f"odd.mp4: H.264 needs even sizes; {width}x{height} is stored as" in caplog.text
    assert (probe(path).height, probe(path).width) == size
    back = list(iterate_frames(path))
    assert all(np.abs(a.astype(int) - b).max() <= 3 for a, b in zip(frames, back, strict=True))
    assert next(iter(iterate_frames(path, height=20, width=30))).shape == (20, 30, 3)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width) == (height + height % 2, width + width % 2)


def test_padding_repeats_the_last_row_and_column(tmp_path):
    frame = np.zeros((15, 15, 3), dtype=np.uint8)
    frame[-1], frame[:, -1] = 200, 200
    path = write(tmp_path / "odd.mp4", [frame], crf=0)
    with av.open(str(path)) as container:
        whole = next(container.decode(video=0)).to_ndarray(format="gray")
    assert whole.shape == (16, 16)
    assert whole[15].min() > 180
    assert whole[:, 15].min() > 180


def test_even_sizes_are_written_without_a_word(tmp_path, caplog):
    write(tmp_path / "even.mp4", noise_frames(1, 16, 16))
    assert not caplog.text


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_metadata_is_stored(tmp_path, name):
    metadata = {"prompt": "ein rotes Gefäß, 円", "dcvideogen_settings": '{"seed": 3, "steps": 50}'}
    path = write(tmp_path / name, noise_frames(2, 15, 16), metadata=metadata)
    with av.open(str(path)) as container:
        stored = {key.lower(): value for key, value in container.metadata.items()}
    assert {key: stored.get(key) for key in metadata} == metadata
    assert probe(path).height == 15


SETTINGS = {"prompt": 'a "red"\ncircle; it\'s = <円> \\ Gefäß #1\t%', "seed": 3, "guidance": 5.5, "negative_prompt": ""}


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.png", "a"])
@pytest.mark.parametrize("size", [(16, 16), (15, 16)])
def test_settings_as_json_in_the_comment_are_read_back_exactly(tmp_path, name, size):
    frames = noise_frames(2, *size)
    comment = json.dumps(SETTINGS, ensure_ascii=False)
    path = write(tmp_path / name, frames, metadata={"comment": comment, "title": "one\ntwo"})
    found = read_metadata(path)
    assert (found["comment"], found["title"]) == (comment, "one\ntwo")
    assert json.loads(found["comment"]) == SETTINGS
    assert (probe(path).height, probe(path).width, probe(path).num_frames or 2) == (*size, 2)
    if name != "a.mp4":
        assert all(np.array_equal(a, b) for a, b in zip(frames, iterate_frames(path), strict=True))


def test_a_long_prompt_fits_into_the_comment(tmp_path):
    prompt = "ein langer Weg, " * 4000
    for name in ("a.mp4", "a.mkv", "a"):
        path = write(tmp_path / name, noise_frames(1, 4, 4), metadata={"comment": prompt})
        assert read_metadata(path)["comment"] == prompt


def test_files_without_metadata_have_none_of_ours(tmp_path):
    for name in ("a.mp4", "a.mkv", "a"):
        assert "comment" not in read_metadata(write(tmp_path / name, noise_frames(1, 4, 4)))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match="not a readable image"):
        read_metadata(tmp_path / "text.png")
    with pytest.raises(UserError, match="no such file"):
        read_metadata(tmp_path / "gone.mp4")


def test_metadata_of_a_folder_is_in_every_frame(tmp_path):
    from PIL import Image

    folder = write(tmp_path / "frames", noise_frames(2, 4, 4), metadata={"prompt": "Gefäß"})
    names = sorted(entry.name for entry in folder.iterdir())
    assert names == ["frame_000000.png", "frame_000001.png"]
    assert [Image.open(folder / name).info["prompt"] for name in names] == ["Gefäß"] * 2


def test_float_video_round_trip(tmp_path):
    video = frames_to_video(noise_frames(3, 9, 11))
    write_video(tmp_path / "a.mkv", video, 10)
    back, fps = read_video(tmp_path / "a.mkv")
    assert (back == video).all()
    assert fps == 10


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.png"])
def test_a_failure_leaves_nothing_behind_and_the_old_file_as_it_was(tmp_path, name):
    old = write(tmp_path / name, noise_frames(2, 16, 16))
    before = {entry: entry.read_bytes() for entry in tmp_path.rglob("*") if entry.is_file()}
    with pytest.raises(ZeroDivisionError), VideoWriter(old, fps=25) as writer:  # noqa: PT012
        for frame in noise_frames(30, 16, 16, seed=1):
            writer.write(frame)
        raise ZeroDivisionError
    assert {entry: entry.read_bytes() for entry in tmp_path.rglob("*") if entry.is_file()} == before
    assert list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a"])
def test_while_writing_the_name_is_not_taken_and_then_it_is_replaced(tmp_path, name):
    path = tmp_path / "new folder" / name
    for length in (3, 2):
        existed = path.exists()
        with VideoWriter(path, fps=25) as writer:
            for frame in noise_frames(length, 16, 16):
                writer.write(frame)
            assert path.exists() == existed
        assert len(list(iterate_frames(path))) == length
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a"])
@pytest.mark.parametrize("step", ["_open", "_target.write", "_target.close"])
def test_a_full_disk_names_the_file_that_was_asked_for(tmp_path, monkeypatch, name, step):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "temporary name")

    writer = VideoWriter(tmp_path / name, fps=25)
    with pytest.raises(UserError, match=rf"cannot write .*{name}: No space left on device; free"), writer:  # noqa: PT012
        if step != "_open":
            writer.write(noise_frames(1, 16, 16)[0])
        owner = writer._target if "." in step else writer
        monkeypatch.setattr(owner, step.rpartition(".")[2], fail)
        writer.write(noise_frames(1, 16, 16)[0])
    assert not list(tmp_path.iterdir())


def test_no_frame_is_an_error_and_no_file(tmp_path):
    with pytest.raises(UserError, match=r"no frame was written to a\.mp4"), VideoWriter(tmp_path / "a.mp4", fps=25):
        pass
    assert not list(tmp_path.iterdir())


def test_wrong_targets_and_settings_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"suffix \.avi came; \.mp4"):
        VideoWriter(tmp_path / "a.avi", fps=25)
    with pytest.raises(UserError, match=r"crf 52 came; 0 .best. to 51"):
        VideoWriter(tmp_path / "a.mp4", fps=25, crf=52)
    with pytest.raises(UserError, match="fps 0 came"):
        VideoWriter(tmp_path / "a.mp4", fps=0)
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UserError, match="it is a folder"):
        write(tmp_path / "folder.mp4", noise_frames(1, 4, 4))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "holiday.jpg").touch()
    with pytest.raises(UserError, match=r"it holds other things .holiday\.jpg."):
        write(tmp_path / "pictures", noise_frames(1, 4, 4))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="it is a file"):
        write(tmp_path / "file", noise_frames(1, 4, 4))
    assert (tmp_path / "pictures" / "holiday.jpg").exists()


def test_frames_of_another_size_or_type_are_refused(tmp_path):
    for second, message in [
        (np.zeros((8, 9, 3), np.uint8), "frame 1 is 9x8; 8x8 is allowed"),
        (np.zeros((8, 8, 3), np.float32), "type float32 came"),
        (np.zeros((8, 8), np.uint8), r"shape \(8, 8\)"),
    ]:
        with pytest.raises(UserError, match=message):
            write(tmp_path / "a.mp4", [np.zeros((8, 8, 3), np.uint8), second])
        assert not list(tmp_path.iterdir())
