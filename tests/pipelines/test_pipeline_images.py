"""Pictures that videos start with: every kind of image comes out as floats of the size asked for."""

import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from dcvideogen.errors import UserError
from dcvideogen.pipelines.images import load_image, size_for
from dcvideogen.video import probe


def levels(image, height, width):
    """What load_image gives as 8-bit levels (H, W, 3)."""
    pixels = load_image(image, height, width)
    assert pixels.shape == (1, 3, height, width)
    assert pixels.dtype == torch.float32
    assert pixels.abs().max() <= 1
    return ((pixels[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()


def picture(height=24, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png_start(width, height):
    """The first bytes of a PNG that claims to be that large."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">II", zlib.crc32(head), 10**6) + b"IDAT"


def test_an_image_of_the_right_size_comes_out_exactly(tmp_path):
    pixels = picture()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels)):
        assert np.array_equal(levels(image, 24, 40), pixels)
    assert load_image(Image.new("RGB", (4, 4), (0, 0, 0)), 4, 4).min() == -1
    assert load_image(Image.new("RGB", (4, 4), (255,) * 3), 4, 4).max() == 1


@pytest.mark.parametrize("size", [(24, 40), (24, 24), (40, 24), (12, 33), (7, 11), (100, 130), (1, 1)])
def test_the_centre_of_the_covering_size_is_kept(size):
    height, width = 48, 80
    y, x = np.mgrid[:height, :width] + 0.5
    smooth = np.stack([255 * y / height, 255 * x / width, np.full_like(x, 60)], axis=-1)
    found = levels(Image.fromarray(smooth.round().astype(np.uint8)), *size).astype(float)
    scale = max(size[0] / height, size[1] / width)
    rows = (np.arange(size[0]) + 0.5 - size[0] / 2) / scale + height / 2
    columns = (np.arange(size[1]) + 0.5 - size[1] / 2) / scale + width / 2
    expected_rows, expected_columns = 255 * rows / height, 255 * columns / width
    # A source pixel is 5 levels high, 3 wide.
    assert np.abs(found[..., 0] - expected_rows[:, None]).max() <= 3
    assert np.abs(found[..., 1] - expected_columns).max() <= 3
    assert np.array_equal(found[..., 2], np.full(size, 60.0))


@pytest.mark.parametrize("source", [64, 512])
def test_fine_patterns_become_grey_instead_of_moire(source):
    checks = (np.indices((source, source)).sum(0) % 2 * 255).astype(np.uint8)
    assert np.abs(levels(Image.fromarray(checks), 16, 16).astype(int) - 127).max() <= 1


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("factor", [1, 9])
def test_exif_rotation_is_applied_at_every_size(tmp_path, orientation, turns, suffix, factor):
    quarters = np.zeros((16, 24, 3), np.uint8)
    quarters[:8, :12], quarters[:8, 12:], quarters[8:, :12] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    image = Image.fromarray(quarters.repeat(factor, 0).repeat(factor, 1))
    exif = image.getexif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{suffix}"
    image.save(path, exif=exif, **({"quality": 100, "subsampling": 0} if suffix == "jpg" else {}))
    expected = np.rot90(quarters, turns)
    assert size_for(path, 16 * 24, 8) == expected.shape[:2]
    assert (probe(path).height, probe(path).width) == (expected.shape[0] * factor, expected.shape[1] * factor)
    found = levels(path, *expected.shape[:2])
    inner = np.ones(expected.shape[:2], bool)
    inner[[expected.shape[0] // 2 - 1, expected.shape[0] // 2]] = False
    inner[:, [expected.shape[1] // 2 - 1, expected.shape[1] // 2]] = False
    assert np.abs(found.astype(int) - expected)[inner].max() <= 4


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparency_lies_over_mid_grey(tmp_path, mode):
    alpha = np.zeros((8, 8), np.uint8)
    alpha[4:] = 255
    grey = np.full((8, 8), 200, np.uint8)
    rgba = Image.fromarray(np.dstack([grey, grey, grey, alpha]))
    if mode == "P":
        paletted = Image.new("P", (8, 8))
        paletted.putdata((alpha > 0).ravel().tolist())
        paletted.putpalette([0, 0, 0, 200, 200, 200])
        paletted.save(tmp_path / "a.png", transparency=0)
        image = tmp_path / "a.png"
    else:
        image = rgba.convert(mode)
    found = levels(image, 8, 8)
    assert (found[:4] == 128).all()
    assert (found[4:] == 200).all()
    assert np.abs(levels(image, 2, 2).astype(int)[:, 0, 0] - (128, 200)).max() <= 5


def test_the_hidden_colour_of_transparent_pixels_does_not_show():
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[:, :32] = (128, 128, 128, 255)
    for size in (40, 16, 5):
        assert (levels(Image.fromarray(rgba), size, size) == 128).all()


def test_a_colour_that_stands_for_transparency_is_not_mixed_into_its_neighbours(tmp_path):
    pixels = np.full((64, 64, 3), 128, np.uint8)
    pixels[::2, ::2] = (255, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "keyed.png", transparency=(255, 0, 255))
    for size in (64, 8):
        assert (levels(tmp_path / "keyed.png", size, size) == 128).all()


def test_grey_sixteen_bits_and_print_colours_become_rgb(tmp_path):
    Image.new("L", (6, 4), 77).save(tmp_path / "grey.png")
    assert (levels(tmp_path / "grey.png", 4, 6) == 77).all()
    Image.fromarray(np.full((4, 6), 77 * 257, np.uint16)).save(tmp_path / "grey16.png")
    assert (levels(tmp_path / "grey16.png", 4, 6) == 77).all()
    assert (levels(tmp_path / "grey16.png", 2, 2) == 77).all()
    Image.new("1", (6, 4), 1).save(tmp_path / "bits.png")
    assert (levels(tmp_path / "bits.png", 4, 6) == 255).all()
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=100)
    for size in (16, 2):
        assert np.abs(levels(tmp_path / "print.jpg", size, size).astype(int) - (255, 0, 0)).max() <= 4


def test_sixteen_bit_colour_is_scaled(tmp_path):
    rows = b"".join(b"\0" + struct.pack(">HHH", 10 * 257, 120 * 257, 250 * 257) * 4 for _ in range(4))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert (levels(tmp_path / "deep.png", 4, 4) == (10, 120, 250)).all()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_of_an_animated_file_the_first_picture_is_taken(tmp_path, suffix):
    images = [Image.new("RGB", (8, 8), (level,) * 3) for level in (30, 130, 230)]
    path = tmp_path / f"a.{suffix}"
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=50, **({"lossless": True} if suffix == "webp" else {})
    )
    assert np.abs(levels(path, 8, 8).astype(int) - 30).max() <= 1
    with Image.open(path) as opened:
        opened.seek(2)
        assert np.abs(levels(opened, 8, 8).astype(int) - 230).max() <= 1
        assert opened.tell() == 2


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, 3)])
def test_huge_images_are_made_small_early_and_look_the_same(tmp_path, suffix, orientation, turns):
    image = Image.fromarray(picture(6, 8)).resize((1203, 904), Image.Resampling.BICUBIC)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"a.{suffix}", exif=exif, **({"quality": 100} if suffix == "jpg" else {}))
    expected = np.rot90(np.asarray(image.resize((40, 30), Image.Resampling.HAMMING)).astype(int), turns)
    assert np.abs(levels(tmp_path / f"a.{suffix}", *expected.shape[:2]) - expected).max() <= 6


def test_extreme_shapes_do_not_grow_on_the_way(tmp_path):
    assert levels(Image.new("RGB", (20000, 2), (9, 9, 9)), 480, 832).shape == (480, 832, 3)
    assert levels(Image.new("RGB", (1, 20000), (9, 9, 9)), 480, 832)[0, 0].tolist() == [9, 9, 9]


def test_a_decompression_bomb_is_refused_with_what_is_allowed(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_start(20000, 10000))
    for use in (lambda path: load_image(path, 8, 8), lambda path: size_for(path, 64, 8)):
        with pytest.raises(UserError, match=r"bomb\.png: over 178 million pixels came; up to that many are allowed"):
            use(tmp_path / "bomb.png")


def test_sizes_that_pil_only_warns_of_are_taken_without_a_word(tmp_path):
    (tmp_path / "large.pbm").write_bytes(b"P4\n12000 9000\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert size_for(tmp_path / "large.pbm", 480 * 640, 32) == (480, 640)


def test_what_is_no_image_gets_one_line(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.jpg").touch()
    Image.fromarray(picture(80, 80)).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    for name, message in {
        "text.png": r"text\.png: not a readable image",
        "empty.jpg": r"empty\.jpg: not a readable image",
        "half.png": r"half\.png: not a readable image",
        "gone.png": r"gone\.png: no such file; give the path of an image",
        ".": "not a readable image",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            load_image(tmp_path / name, 8, 8)
        assert "\n" not in str(caught.value)
    with Image.open(tmp_path / "half.png") as image, pytest.raises(UserError, match="the image: not a readable image"):
        load_image(image, 8, 8)


def test_floats_and_impossible_sizes_are_refused():
    with pytest.raises(UserError, match="the image: its pixels are floats of unknown range"):
        load_image(Image.new("F", (4, 4)), 4, 4)
    with pytest.raises(UserError, match="0 x 8 pixels: both sides must be at least 1"):
        load_image(Image.new("RGB", (4, 4)), 0, 8)


def test_the_image_that_came_stays_as_it_is(tmp_path):
    image = Image.fromarray(picture(200, 300))
    image.getexif()[0x0112] = 6
    before = image.tobytes()
    load_image(image, 16, 16)
    assert (image.size, image.mode, image.tobytes()) == ((300, 200), "RGB", before)
    assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize(
    ("height", "width", "budget", "multiple", "expected"),
    [
        (480, 832, 480 * 832, 32, (480, 832)),
        (1080, 1920, 480 * 832, 32, (480, 832)),
        (1920, 1080, 480 * 832, 32, (832, 480)),
        (300, 300, 480 * 832, 32, (608, 608)),
        (1080, 1920, 720 * 1280, 2, (720, 1280)),
        (1, 20000, 480 * 832, 32, (32, 12480)),
        (20000, 1, 480 * 832, 32, (12480, 32)),
        (3, 4, 1024, 32, (32, 32)),
        (2, 3, 7, 1, (2, 3)),
    ],
)
def test_the_size_follows_the_image_at_a_budget(height, width, budget, multiple, expected):
    assert size_for(Image.new("L", (width, height)), budget, multiple) == expected


@pytest.mark.parametrize("multiple", [1, 16, 32, 64])
def test_sizes_stay_in_the_budget_and_near_the_shape(multiple):
    budget = 512 * 512
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(200, 1000, 2).tolist()
        found = size_for(Image.new("1", (width, height)), budget, multiple)
        assert found[0] % multiple == found[1] % multiple == 0
        assert budget - 2 * multiple * sum(found) <= found[0] * found[1] <= budget
        assert abs(found[0] / found[1] * width / height - 1) <= 1.5 * multiple / min(found)


def test_a_budget_that_holds_no_size_is_refused():
    for budget, multiple in ((1023, 32), (100, 0)):
        with pytest.raises(UserError, match=r"a budget of .* pixels for sides that are multiples of"):
            size_for(Image.new("L", (4, 4)), budget, multiple)
