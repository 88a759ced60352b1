"""Colours: whatever the matrix, range and depth of the file, a solid colour comes back."""

import av
import numpy as np
import pytest
from video_files import make_file

from dcvideogen.video import VideoWriter, iterate_frames

COLOURS = [(255, 255, 255), (0, 0, 0), (128, 128, 128), (220, 30, 40), (20, 180, 60), (30, 60, 230), (250, 200, 20)]
# ITU-R BT.601, BT.709, BT.2020: weights of red and blue in the luma. The numbers are H.273's matrix codes.
MATRICES = {"bt601": (0.299, 0.114, 6), "bt470bg": (0.299, 0.114, 5), "bt709": (0.2126, 0.0722, 1)}
MATRICES["bt2020"] = (0.2627, 0.0593, 9)
LIMITED, FULL = 1, 2


def codes(colour, matrix, full, bits):
    """The (Y, Cb, Cr) codes of an RGB colour, ITU-R BT.709 section 3 and H.273."""
    red, green, blue = (level / 255 for level in colour)
    kr, kb, _ = MATRICES[matrix]
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)
    scale, top = 2 ** (bits - 8), 2**bits - 1
    if full:
        return [luma * top, *(c * top + 2 ** (bits - 1) for c in chroma)]
    return [(16 + 219 * luma) * scale, *((128 + 224 * c) * scale for c in chroma)]


def solid(values, pixel_format, size):
    picture = av.VideoFrame(size[1], size[0], pixel_format)
    wide = picture.format.components[0].bits > 8
    for plane, value in zip(picture.planes, values, strict=False):
        count = plane.buffer_size // (2 if wide else 1)
        plane.update(np.full(count, round(value), dtype=np.uint16 if wide else np.uint8).tobytes())
    return picture


def read_solid(path, colour, matrix, full, pixel_format, *, tag=True, size=(32, 32), resize=None, **settings):
    bits = 10 if "10" in pixel_format else 8
    picture = solid(codes(colour, matrix, full, bits), pixel_format, size)
    tags = {"color_range": FULL if full else LIMITED, "colorspace": MATRICES[matrix][2]} if tag else {}
    options = {"qp": "0", "preset": "ultrafast"} if settings.get("codec", "libx264") == "libx264" else {}
    settings = {"options": options, **settings}
    make_file(path, pixel_format=pixel_format, pictures=[picture], size=size, colour=tags, **settings)
    frame = next(iter(iterate_frames(path, **(resize or {}))))
    assert np.ptp(frame.reshape(-1, 3), axis=0).max() <= 1
    return frame[frame.shape[0] // 2, frame.shape[1] // 2].astype(int)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_tagged_colours_come_back(tmp_path, matrix, full, pixel_format):
    for colour in COLOURS:
        back = read_solid(tmp_path / "a.mkv", colour, matrix, full, pixel_format)
        assert np.abs(back - colour).max() <= 2, colour
    small = read_solid(tmp_path / "a.mkv", COLOURS[3], matrix, full, pixel_format, resize={"height": 16, "width": 16})
    assert np.abs(small - COLOURS[3]).max() <= 2


@pytest.mark.parametrize(
    ("size", "matrix"), [((32, 32), "bt601"), ((576, 1024), "bt601"), ((720, 1280), "bt709"), ((800, 600), "bt709")]
)
def test_untagged_colours_are_bt601_when_small_and_bt709_when_large(tmp_path, size, matrix):
    back = read_solid(tmp_path / "a.mp4", (220, 30, 40), matrix, False, "yuv420p", tag=False, size=size)
    assert np.abs(back - (220, 30, 40)).max() <= 2


def test_motion_jpeg_is_full_range(tmp_path):
    back = read_solid(
        tmp_path / "a.avi", (200, 90, 60), "bt601", True, "yuvj420p", tag=False, codec="mjpeg", options={"q": "1"}
    )
    assert np.abs(back - (200, 90, 60)).max() <= 3


@pytest.mark.parametrize(
    ("pixel_format", "codec", "tag", "value", "grey"),
    [
        ("gray", "ffv1", None, 126, 126),
        ("gray", "ffv1", FULL, 126, 126),
        ("gray", "ffv1", LIMITED, 126, 128),
        ("gray", "ffv1", LIMITED, 235, 255),
        ("gray10le", "ffv1", None, 504, 126),
        ("gray16le", "ffv1", None, 126 * 257, 126),
        ("gray", "libx264", LIMITED, 235, 255),
        ("gray", "libx264", FULL, 235, 235),
    ],
)
def test_grey_is_full_range_unless_it_says_otherwise(tmp_path, pixel_format, codec, tag, value, grey):
    picture = solid([value], pixel_format, (32, 32))
    path = make_file(
        tmp_path / "grey.mkv",
        codec=codec,
        pixel_format=pixel_format,
        pictures=[picture],
        size=(32, 32),
        colour={"color_range": tag} if tag else {},
        options={"qp": "0"} if codec == "libx264" else {},
    )
    (frame,) = iterate_frames(path)
    assert np.abs(frame.astype(int) - grey).max() <= 1


def test_reading_is_neither_darker_nor_brighter_than_what_was_written(tmp_path):
    rng = np.random.default_rng(0)
    small = rng.integers(30, 226, (8, 10, 3)).astype(np.float64)
    frame = np.kron(small, np.ones((16, 16, 1))).astype(np.uint8)
    with VideoWriter(tmp_path / "a.mp4", fps=25, crf=1) as writer:
        writer.write(frame)
    (back,) = iterate_frames(tmp_path / "a.mp4")
    assert abs((back.astype(float) - frame).mean()) < 0.4
