"""Images, animated images and folders of images as videos."""

import logging
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from video_files import number_of, numbered_frame

from dcvideogen.errors import UserError
from dcvideogen.video import VideoWriter, iterate_frames, probe, read_image, read_video, video_to_frames


def image_of(path):
    return video_to_frames(read_image(path))[0]


def folder_of(path, num_frames, size=(48, 64), suffix=".png"):
    path.mkdir()
    for index in range(num_frames):
        Image.fromarray(numbered_frame(index, *size)).save(path / f"shot {index}{suffix}")
    return path


@pytest.mark.parametrize(("orientation", "turns", "degrees"), [(1, 0, 0), (6, 3, 90), (3, 2, 180), (8, 1, 270)])
def test_exif_rotation_is_applied(tmp_path, orientation, turns, degrees):
    image = Image.fromarray(numbered_frame(11))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "photo.png", exif=exif)
    expected = np.rot90(numbered_frame(11), turns)
    assert np.array_equal(image_of(tmp_path / "photo.png"), expected)
    info = probe(tmp_path / "photo.png")
    assert (info.height, info.width, info.rotation) == (*expected.shape[:2], degrees)
    assert np.array_equal(next(iter(iterate_frames(tmp_path / "photo.png"))), expected)


def test_a_single_image_is_a_video_of_one_frame(tmp_path):
    Image.fromarray(numbered_frame(5)).save(tmp_path / "a.jpg", quality=95)
    video, fps = read_video(tmp_path / "a.jpg", height=24, width=32)
    assert (video.shape, fps) == ((1, 3, 1, 24, 32), 24)
    assert read_image(tmp_path / "a.jpg").shape == (1, 3, 1, 48, 64)
    info = probe(tmp_path / "a.jpg")
    assert (info.container, info.codec, info.num_frames, info.has_alpha) == ("image", "jpeg", 1, False)


def test_an_image_is_known_by_its_bytes_too(tmp_path):
    Image.fromarray(numbered_frame(7)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "without suffix")
    assert number_of(next(iter(iterate_frames(tmp_path / "without suffix")))) == 7


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_composed_over_black(tmp_path, mode):
    image = Image.new("RGBA", (4, 4), (200, 200, 200, 255))
    image.paste((200, 200, 200, 128 if mode != "P" else 0), (0, 0, 4, 2))
    if mode == "P":
        image = image.convert("RGB").convert("P")
        image.putpalette([200, 200, 200, 0, 90, 0])
        pixels = np.ones((4, 4), np.uint8)
        pixels[2:] = 0
        image.putdata(pixels.ravel().tolist())
        image.save(tmp_path / "a.png", transparency=1)
    else:
        image.convert(mode).save(tmp_path / "a.png")
    frame = image_of(tmp_path / "a.png")
    assert frame[3, 0].tolist() == [200, 200, 200]
    assert frame[0, 0].tolist() == ([0, 0, 0] if mode == "P" else [100, 100, 100])
    assert probe(tmp_path / "a.png").has_alpha


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    levels = np.array([[0, 128 << 8, 255 << 8, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert image_of(tmp_path / "a.png")[0, :, 0].tolist() == [0, 128, 255, 255]
    assert probe(tmp_path / "a.png").bit_depth == 16


def test_grey_and_cmyk_images_become_rgb(tmp_path):
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.png")
    assert image_of(tmp_path / "grey.png")[0, 0].tolist() == [77, 77, 77]
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=100)
    assert np.abs(image_of(tmp_path / "print.jpg")[4, 4].astype(int) - (255, 0, 0)).max() <= 4


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    folder = folder_of(tmp_path / "shots", 12)
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_text("not an image either")
    assert [number_of(frame) for frame in iterate_frames(folder)] == list(range(12))
    assert [number_of(f) for f in iterate_frames(folder, start_frame=3, num_frames=4)] == [3, 4, 5, 6]
    info = probe(folder)
    assert (info.container, info.num_frames, info.fps, info.duration_s) == ("images", 12, 24, 0.5)


def test_the_rate_of_a_folder_that_names_none_is_the_one_asked_for(tmp_path):
    folder = folder_of(tmp_path / "shots", 6)
    assert [number_of(frame) for frame in iterate_frames(folder, fps=12)] == list(range(6))
    assert read_video(folder, fps=12)[1] == 12


def test_our_own_folders_know_their_rate_and_are_resampled(tmp_path):
    with VideoWriter(tmp_path / "shots", fps=Fraction(30)) as writer:
        for index in range(9):
            writer.write(numbered_frame(index))
    assert probe(tmp_path / "shots").fps == 30
    assert [number_of(f) for f in iterate_frames(tmp_path / "shots", fps=10)] == [0, 3, 6]
    assert [number_of(f) for f in iterate_frames(tmp_path / "shots", fps=60, start_frame=14)] == [7, 7, 8, 8]


def test_animated_webp_gives_all_its_frames(tmp_path):
    images = [Image.fromarray(numbered_frame(index)) for index in range(5)]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], duration=50, lossless=True)
    assert [number_of(frame) for frame in iterate_frames(tmp_path / "a.webp")] == list(range(5))
    assert (probe(tmp_path / "a.webp").num_frames, probe(tmp_path / "a.webp").fps) == (5, 20)
    assert [number_of(f) for f in iterate_frames(tmp_path / "a.webp", fps=10)] == [0, 2, 4]


def test_images_of_different_sizes_need_a_size_to_come_to(tmp_path):
    folder = folder_of(tmp_path / "shots", 2)
    Image.fromarray(numbered_frame(2, 60, 64)).save(folder / "shot 2.png")
    with pytest.raises(UserError, match=r"frame 2: .*shot 2\.png is 64x60; only 64x48 is allowed"):
        list(iterate_frames(folder))
    frames = list(iterate_frames(folder, height=16, width=16))
    assert [frame.shape for frame in frames] == [(16, 16, 3)] * 3


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_damaged_image_is_named_or_left_out(tmp_path, caplog, suffix):
    folder = folder_of(tmp_path / "shots", 4, suffix=suffix)
    broken = folder / f"shot 2{suffix}"
    broken.write_bytes(broken.read_bytes()[:600])
    with pytest.raises(UserError, match=r"breaks at frame 2 of 4: .*shot 2.* not a readable image") as caught:
        list(iterate_frames(folder))
    assert "\n" not in str(caught.value)
    with caplog.at_level(logging.WARNING, logger="dcvideogen"):
        assert [number_of(frame) for frame in iterate_frames(folder, on_error="keep")] == [0, 1, 3]
    assert "frame 2 is left out" in caplog.text


def test_keeping_nothing_of_a_damaged_image_is_an_error_that_says_so(tmp_path):
    path = tmp_path / "half.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 45, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"half\.jpg: no frame of it could be read"):
        list(iterate_frames(path, on_error="keep"))


def test_what_is_no_image_is_said(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.jpg").touch()
    for name, message in {
        "text.png": "not a readable image",
        "empty.jpg": "not a readable image",
        "gone.png": "no such file",
    }.items():
        for read in (read_image, probe, lambda path: list(iterate_frames(path))):
            with pytest.raises(UserError, match=message):
                read(tmp_path / name)


@pytest.mark.parametrize(("side", "rms"), [(30, 0.65), (40, 1.0), (24, 1.0)])
def test_pictures_are_made_smaller_by_area_also_where_pixels_are_shared(tmp_path, side, rms):
    """60 to 30, 40 and 24; the area's mean is that of blocks of a picture with every pixel repeated."""
    walk = np.random.default_rng(0).normal(size=(60, 60, 3)).cumsum(0).cumsum(1)
    picture = (walk / np.abs(walk).max() * 100 + 128).round().astype(np.uint8)
    picture += np.random.default_rng(1).integers(0, 20, picture.shape, dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    found = next(iter(iterate_frames(tmp_path / "a.png", height=side, width=side)))
    every = picture.astype(float).repeat(side, 0).repeat(side, 1)
    means = every.reshape(side, 60, side, 60, 3).mean((1, 3))
    assert np.sqrt(((found - means) ** 2).mean()) < rms
