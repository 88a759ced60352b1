"""Files that are cut, damaged, empty or no videos: one line that says so, never a shorter video."""

import logging
import threading
import wave

import numpy as np
import pytest
from PIL import Image
from video_files import cut, make_file, number_of

from dcvideogen.errors import UserError
from dcvideogen.video import iterate_frames, probe, read_video

NOISE = {"size": (96, 128)}
FASTSTART = {"container_options": {"movflags": "+faststart"}, **NOISE}
CUT = {
    "front_index.mp4": FASTSTART,
    "b_frames.mp4": {**FASTSTART, "options": {"bf": "3", "g": "30"}},
    "fragments.mp4": {"container_options": {"movflags": "+frag_keyframe"}, "options": {"g": "5"}, **NOISE},
    "h264.mkv": {"options": {"g": "30"}, **NOISE},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}, **NOISE},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"qmax": "3"}, **NOISE},
    "wmv2.wmv": {"codec": "wmv2", "options": {"qmax": "3"}, **NOISE},
    "palette.gif": {"codec": "gif", "pixel_format": "rgb8", **NOISE},
    "flash.flv": {"codec": "flv", **NOISE},
}


def read_until_broken(path, **settings):
    frames, error = [], None
    try:
        for frame in iterate_frames(path, **settings):
            frames.append(frame)
    except UserError as caught:
        error = str(caught)
    return frames, error


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_cut_file_gives_its_good_frames_and_then_the_frame_where_it_breaks(tmp_path, name, share):
    path = make_file(tmp_path / name, 80, **CUT[name])
    whole = list(iterate_frames(path))
    assert len(whole) == 80
    cut(path, share)
    frames, error = read_until_broken(path)
    assert error is not None, f"{len(frames)} of 80 frames passed as the whole"
    assert f"breaks at frame {len(frames)}" in error
    assert "\n" not in error
    assert 10 <= len(frames) < 80
    assert all(np.array_equal(a, b) for a, b in zip(frames, whole, strict=False))


@pytest.mark.parametrize("name", ["front_index.mp4", "h264.mkv", "mpeg4.avi"])
def test_the_good_part_of_a_cut_file_can_be_asked_for(tmp_path, name):
    path = cut(make_file(tmp_path / name, 80, **CUT[name]))
    good = len(read_until_broken(path)[0])
    assert len(list(iterate_frames(path, num_frames=good))) == good
    assert [number_of(f) for f in iterate_frames(path, start_frame=5, num_frames=5)] == list(range(5, 10))
    for settings in ({"num_frames": good + 1}, {"num_frames": 80}, {"start_frame": good}, {"fps": 10}):
        with pytest.raises(UserError, match=f"breaks at frame {good}"):
            list(iterate_frames(path, **settings))
    with pytest.raises(UserError, match=f"breaks at frame {good}"):
        read_video(path)


@pytest.mark.parametrize("name", ["front_index.mp4", "h264.mkv", "palette.gif"])
def test_keep_uses_what_can_be_read_and_says_so(tmp_path, name, caplog):
    path = cut(make_file(tmp_path / name, 80, **CUT[name]))
    good = len(read_until_broken(path)[0])
    with caplog.at_level(logging.WARNING, logger="dcvideogen"):
        kept = [number_of(frame) for frame in iterate_frames(path, on_error="keep")]
    assert good <= len(kept) < 80
    assert kept[:good] == list(range(good))
    assert f"{len(kept)} frames" in caplog.text


def test_keep_says_nothing_about_an_intact_file(tmp_path, caplog):
    assert len(list(iterate_frames(make_file(tmp_path / "a.mkv", 10), on_error="keep"))) == 10
    assert not caplog.text


def test_an_mp4_without_its_index_cannot_be_kept(tmp_path):
    path = cut(make_file(tmp_path / "index_at_end.mp4", 80, **NOISE))
    for on_error in ("raise", "keep"):
        with pytest.raises(UserError, match=r"breaks before frame 0.*index is missing"):
            list(iterate_frames(path, on_error=on_error))


@pytest.mark.parametrize("name", ["front_index.mp4", "h264.mkv"])
def test_damage_in_the_middle_is_found_where_it_is(tmp_path, name):
    path = make_file(tmp_path / name, 80, **CUT[name])
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    frames, error = read_until_broken(path)
    assert f"breaks at frame {len(frames)}" in error
    assert [number_of(frame) for frame in frames] == list(range(len(frames)))
    assert 10 <= len(frames) < 70
    assert len(list(iterate_frames(path, num_frames=10))) == 10
    with pytest.raises(UserError, match="breaks at frame"):
        list(iterate_frames(path, num_frames=len(frames) + 5))


def test_a_single_wrong_bit_is_found_by_the_checksum_of_its_cluster(tmp_path):
    # FFV1 decoders cover up wrong slices without a word, err_detect or not.
    short_clusters = {"cluster_time_limit": "200"}
    path = make_file(tmp_path / "a.mkv", 20, codec="ffv1", pixel_format="bgr0", container_options=short_clusters)
    whole = list(iterate_frames(path))
    data = bytearray(path.read_bytes())
    data[len(data) * 11 // 20] ^= 0x10
    path.write_bytes(data)
    frames, error = read_until_broken(path)
    assert len(frames) in (5, 6, 10)
    assert f"breaks at frame {len(frames)}" in error
    assert all(np.array_equal(a, b) for a, b in zip(frames, whole, strict=False))
    assert len(list(iterate_frames(path, num_frames=5))) == 5


def test_damage_that_a_decoder_does_not_see_is_still_reported_behind_its_cluster(tmp_path):
    path = make_file(tmp_path / "a.mkv", 40, options={"g": "1", "qp": "20"}, **NOISE)
    data = bytearray(path.read_bytes())
    # H.264's CABAC has no redundancy: a wrong bit in noise is most often just other noise.
    data[len(data) // 2] ^= 0x01
    path.write_bytes(data)
    frames, error = read_until_broken(path)
    assert len(frames) >= 19
    assert f"breaks at frame {len(frames)}" in error
    assert len(list(iterate_frames(path, num_frames=15))) == 15


def make_sound(path):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


def test_what_is_no_video_is_named(tmp_path):
    make_sound(tmp_path / "sound.wav")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("This is not a video.\n" * 200)
    (tmp_path / "words.mp4").write_text("Thisisnotavideoeither " * 200)
    (tmp_path / "words.mkv").write_text("Thisisnotavideoeither " * 200)
    (tmp_path / "notes.txt").write_text("This is not a video.\n" * 200)
    (tmp_path / "zeros.mkv").write_bytes(bytes(5000))
    (tmp_path / "no images").mkdir()
    expected = {
        "sound.wav": "no video stream .it has audio.",
        "empty.mp4": "the file is empty",
        "text.mp4": "not a video that can be opened|this is text",
        "notes.txt": "not a video that can be opened|this is text",
        "words.mp4": "not a video that can be opened|this is text",
        "words.mkv": "not a video that can be opened|this is text",
        "zeros.mkv": "not a video that can be opened",
        "no images": "no images in this folder",
        "missing.mp4": "no such file",
    }
    for name, message in expected.items():
        for read in (probe, lambda path: list(iterate_frames(path)), read_video):
            with pytest.raises(UserError, match=message) as caught:
                read(tmp_path / name)
            assert "\n" not in str(caught.value)


def test_cover_art_is_not_taken_for_a_video(tmp_path):
    import av

    Image.new("RGB", (32, 32), (255, 0, 0)).save(tmp_path / "cover.png")
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        cover = container.add_stream("png", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_image(Image.open(tmp_path / "cover.png"))))
        container.mux(cover.encode(None))
    with pytest.raises(UserError, match="no video stream"):
        probe(path)


def test_a_file_name_with_a_colon_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_file(tmp_path / "clip.mp4", 3).rename("take:1.mp4")
    assert len(list(iterate_frames("take:1.mp4"))) == 3


def test_stopping_early_leaves_no_thread_behind(tmp_path):
    path = make_file(tmp_path / "a.mp4", 50)
    frames = iterate_frames(path)
    next(frames)
    frames.close()
    # Of ours: a library's, such as tqdm's, may be there.
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dcvideogen")]
