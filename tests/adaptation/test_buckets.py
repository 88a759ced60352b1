import math

import pytest

from dcvideogen.adaptation.buckets import bucket_sizes, nearest_bucket
from dcvideogen.errors import UserError


@pytest.mark.parametrize(
    ("height", "width", "multiple"),
    [(480, 832, 32), (480, 832, 64), (704, 1280, 32), (1088, 1920, 32), (2176, 3840, 64), (128, 128, 32)],
)
def test_every_size_is_whole_near_the_area_and_in_the_range_of_shapes(height, width, multiple):
    sizes = bucket_sizes(height, width, multiple)
    for rows, columns in sizes:
        assert rows % multiple == columns % multiple == 0
        assert 0.5 <= rows / columns <= 2.0
        # Half a step of the width is the most that rounding may take.
        assert abs(rows * columns - height * width) <= rows * multiple / 2
    widths = [columns for _, columns in sizes]
    assert len(set(widths)) == len(widths)


def test_the_480p_table():
    assert bucket_sizes(480, 832, 32) == (
        (896, 448), (832, 480), (768, 512), (736, 544), (704, 576), (672, 608), (640, 640), (608, 672), (576, 704),
        (544, 736), (512, 768), (480, 832), (448, 896),
    )  # fmt: skip


def test_the_table_holds_the_size_that_it_was_made_of():
    for height, width, multiple in [(480, 832, 32), (512, 832, 64), (736, 1280, 32), (1088, 1920, 64), (128, 128, 32)]:
        assert (height, width) in bucket_sizes(height, width, multiple)


def test_the_range_of_shapes_can_be_one():
    assert bucket_sizes(128, 128, 32, min_aspect=1, max_aspect=1) == ((128, 128),)


@pytest.mark.parametrize(
    ("clip", "size"),
    [((128, 128), (640, 640)), ((1080, 1920), (480, 832)), ((1920, 1080), (832, 480)), ((100, 1000), (448, 896))],
)
def test_a_clip_goes_where_least_is_cropped(clip, size):
    sizes = bucket_sizes(480, 832, 32)
    assert nearest_bucket(*clip, sizes) == size
    aspect = math.log(clip[0] / clip[1])
    assert all(abs(math.log(h / w) - aspect) >= abs(math.log(size[0] / size[1]) - aspect) for h, w in sizes)


def test_an_area_too_small_for_its_multiple_is_refused():
    with pytest.raises(UserError, match="no size of about 8x8 pixels has sides that are multiples of 64"):
        bucket_sizes(8, 8, 64, min_aspect=1.5)


@pytest.mark.parametrize("arguments", [(0, 8, 8, 0.5, 2), (8, 8, 0, 0.5, 2), (8, 8, 8, 0, 2), (8, 8, 8, 2, 1)])
def test_numbers_that_make_no_table_are_refused(arguments):
    with pytest.raises(UserError, match="0 < min_aspect <= max_aspect are allowed"):
        bucket_sizes(*arguments[:3], min_aspect=arguments[3], max_aspect=arguments[4])
