"""Reading: containers, pixel formats, sizes, rotation, transparency, settings."""

import logging
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from video_files import make_file, number_of

from dcvideogen.errors import UserError
from dcvideogen.video import iterate_frames, probe, read_video, video_to_frames

KINDS = {
    "h264.mp4": {},
    "h264_444.mov": {"pixel_format": "yuv444p"},
    "h264_10bit.mkv": {"pixel_format": "yuv420p10le"},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "hevc_grey.mp4": {"codec": "libx265", "pixel_format": "gray", "options": {"x265-params": "log-level=none"}},
    "prores_10bit.mov": {"codec": "prores_ks", "pixel_format": "yuv422p10le"},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "8", "deadline": "realtime"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "wmv2.wmv": {"codec": "wmv2"},
    "grey.mkv": {"codec": "ffv1", "pixel_format": "gray"},
    "grey16.mkv": {"codec": "ffv1", "pixel_format": "gray16le"},
    "rgb_10bit.mkv": {"codec": "ffv1", "pixel_format": "gbrp10le"},
    "palette.gif": {"codec": "gif", "pixel_format": "rgb8"},
    "flash.flv": {"codec": "flv"},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_all_frames_in_order(tmp_path, name):
    path = make_file(tmp_path / name, 20, **KINDS[name])
    frames = list(iterate_frames(path))
    assert [number_of(frame) for frame in frames] == list(range(20))
    assert {(frame.shape, frame.dtype) for frame in frames} == {((48, 64, 3), np.dtype(np.uint8))}
    info = probe(path)
    assert (info.height, info.width, info.fps, info.has_audio) == (48, 64, 25, False)
    assert info.num_frames in (20, None)
    assert info.duration_s == pytest.approx(0.8, abs=0.05)


def test_probe_tells_what_the_pixel_format_is(tmp_path):
    ten = probe(make_file(tmp_path / "ten.mkv", 3, pixel_format="yuv420p10le"))
    assert (ten.bit_depth, ten.full_range, ten.has_alpha, ten.pixel_format) == (10, False, False, "yuv420p10le")
    full = probe(make_file(tmp_path / "full.mp4", 3, pixel_format="yuvj420p"))
    assert (full.bit_depth, full.full_range, full.num_frames, full.codec) == (8, True, 3, "h264")
    clear = probe(make_file(tmp_path / "clear.mkv", 3, codec="ffv1", pixel_format="bgra"))
    assert (clear.has_alpha, clear.full_range) == (True, True)


def test_frame_rates_stay_exact_fractions(tmp_path):
    for name in ("a.mp4", "a.mkv"):
        assert probe(make_file(tmp_path / name, 5, fps=Fraction(30000, 1001))).fps == Fraction(30000, 1001)


@pytest.mark.parametrize("size", [(45, 61), (1, 1), (2, 3), (33, 48)])
def test_odd_sizes_are_read_whole(tmp_path, size):
    path = make_file(tmp_path / "odd.mkv", 2, codec="ffv1", pixel_format="yuv444p", size=size)
    assert [frame.shape[:2] for frame in iterate_frames(path)] == [size, size]


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_rotation_is_applied_before_resizing(tmp_path, degrees, turns):
    # FFmpeg counts counterclockwise, as numpy.rot90 does; VideoInfo counts clockwise.
    plain = list(iterate_frames(make_file(tmp_path / "plain.mp4", 2)))
    path = make_file(tmp_path / "turned.mp4", 2, rotation=degrees)
    turned = list(iterate_frames(path))
    assert np.array_equal(turned[1], np.rot90(plain[1], turns))
    info = probe(path)
    assert (info.height, info.width) == turned[0].shape[:2]
    assert info.rotation == -degrees % 360
    (small,) = iterate_frames(path, height=20, width=12, num_frames=1)
    assert small.shape == (20, 12, 3)


def test_alpha_is_composed_over_black(tmp_path):
    rgba = np.zeros((16, 16, 4), dtype=np.uint8)
    rgba[..., 0], rgba[:8, :, 3], rgba[8:, :, 3] = 200, 255, 128
    picture = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format="bgra")
    path = make_file(tmp_path / "clear.mkv", codec="ffv1", pixel_format="bgra", size=(16, 16), pictures=[picture])
    (frame,) = iterate_frames(path)
    assert frame[2, 2].tolist() == [200, 0, 0]
    assert frame[12, 2].tolist() == [100, 0, 0]
    (small,) = iterate_frames(path, height=8, width=8)
    assert small[1, 1].tolist() == [200, 0, 0]


def test_transparent_parts_of_a_gif_are_black(tmp_path):
    from PIL import Image

    image = Image.new("P", (16, 16), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(0, (0, 0, 16, 8))
    image.save(tmp_path / "clear.gif", save_all=True, append_images=[image.copy()], transparency=0, duration=100)
    frame = next(iter(iterate_frames(tmp_path / "clear.gif")))
    assert frame[2, 2].tolist() == [0, 0, 0]
    assert frame[12, 2].tolist() == [0, 255, 0]


def test_resizing_covers_the_target_and_crops_the_centre(tmp_path):
    ramp = np.zeros((64, 128, 3), dtype=np.uint8)
    ramp[...] = (np.arange(128) * 2)[None, :, None]
    picture = av.VideoFrame.from_ndarray(ramp, format="rgb24").reformat(format="bgr0")
    path = make_file(tmp_path / "ramp.mkv", codec="ffv1", pixel_format="bgr0", size=(64, 128), pictures=[picture])
    (frame,) = iterate_frames(path, height=32, width=32)
    # Half the size, then columns 16..47 of 64.
    assert frame.shape == (32, 32, 3)
    assert np.abs(frame[16, :, 0].astype(int) - (np.arange(16, 48) * 4 + 1)).max() <= 2
    (wide,) = iterate_frames(path, height=16, width=128)
    assert wide.shape == (16, 128, 3)
    (larger,) = iterate_frames(path, height=128, width=128)
    assert larger.shape == (128, 128, 3)


def test_shrinking_averages_fine_detail_instead_of_aliasing(tmp_path):
    stripes = np.zeros((96, 96, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    picture = av.VideoFrame.from_ndarray(stripes, format="rgb24").reformat(format="bgr0")
    path = make_file(tmp_path / "stripes.mkv", codec="ffv1", pixel_format="bgr0", size=(96, 96), pictures=[picture])
    (frame,) = iterate_frames(path, height=24, width=24)
    assert np.abs(frame.astype(int) - 128).max() <= 1
    # A pixel of 4.8 columns holds at most 2.8 of one kind; picking columns would leave 0 and 255.
    (frame,) = iterate_frames(path, height=20, width=20)
    assert np.abs(frame.astype(int) - 128).max() <= 255 * (2.8 / 4.8 - 0.5) + 1


def test_float_video_and_frames_agree(tmp_path):
    path = make_file(tmp_path / "a.mp4", 5, fps=30)
    video, fps = read_video(path, num_frames=3)
    assert (video.shape, video.dtype, fps) == ((1, 3, 3, 48, 64), torch.float32, 30)
    assert video.min() >= -1
    assert video.max() <= 1
    assert np.array_equal(video_to_frames(video), np.stack(list(iterate_frames(path, num_frames=3))))
    assert read_video(path, fps=10)[1] == 10


def test_more_frames_than_an_intact_file_has_are_not_an_error(tmp_path):
    assert len(list(iterate_frames(make_file(tmp_path / "a.mp4", 7), num_frames=50))) == 7


def test_dropped_sound_is_said_once_per_file(tmp_path, caplog):
    path = make_file(tmp_path / "loud.mp4", 5, sound=True)
    with caplog.at_level(logging.WARNING, logger="dcvideogen"):
        assert len(list(iterate_frames(path))) == 5
        list(iterate_frames(path))
    assert probe(path).has_audio
    assert [record.message for record in caplog.records].count(
        f"{path}: its sound is dropped; only pictures are read"
    ) == 1


def test_what_else_is_left_out_is_said(tmp_path, caplog):
    wide = make_file(tmp_path / "wide.mkv", 2, colour={"sample_aspect_ratio": Fraction(4, 3)})
    bright = make_file(tmp_path / "bright.mkv", 2, pixel_format="yuv420p10le", colour={"color_trc": 16})
    nearly = make_file(tmp_path / "nearly.mkv", 2, colour={"sample_aspect_ratio": Fraction(399, 400)})
    for path in (wide, bright, nearly):
        list(iterate_frames(path))
    assert "wide.mkv: its pixels are 4/3 as wide as high" in caplog.text
    assert "bright.mkv: HDR" in caplog.text
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start_frame": -1}, "start_frame -1"),
        ({"num_frames": 0}, "num_frames 0"),
        ({"height": 32}, "give both or neither"),
        ({"height": 0, "width": 8}, "at least 1 pixel"),
        ({"fps": 0}, "fps 0 came"),
        ({"fps": float("nan")}, "fps nan came"),
        ({"on_error": "ignore"}, "raise or keep"),
        ({"start_frame": 7}, "start_frame 7 is behind"),
        ({"start_frame": 90}, "start_frame 90 is behind"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, settings, message):
    path = make_file(tmp_path / "a.mp4", 7)
    with pytest.raises(UserError, match=message):
        list(iterate_frames(path, **settings))
