"""The world's words, numbers and split, against its specification."""

from collections import Counter

import pytest

from dcvideogen.errors import UserError
from dcvideogen.shapes_world import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLORS,
    MOTIONS,
    SHAPES,
    SIZES,
    Combination,
    caption,
    combinations,
    is_test,
    parse_caption,
)

RED = Combination("small", "red", "circle", "moves left", "black")


def test_the_tables_are_those_of_the_specification():
    assert SIZES == {"small": 0.14, "large": 0.24}
    assert list(COLORS.items()) == [
        ("red", (230, 40, 40)), ("green", (40, 190, 70)), ("blue", (50, 80, 230)), ("yellow", (240, 210, 50)),
        ("cyan", (60, 210, 220)), ("magenta", (215, 60, 210)),
    ]  # fmt: skip
    assert SHAPES == ("circle", "square", "triangle")
    assert list(MOTIONS) == ["moves left", "moves right", "moves up", "moves down", "stays still"]
    assert list(BACKGROUNDS.items()) == [("black", (10, 10, 10)), ("gray", (128, 128, 128)), ("navy", (15, 25, 90))]


def test_combinations_come_in_the_order_of_their_indices():
    every = combinations("all")
    assert [one.index for one in every] == list(range(540))
    assert len(set(every)) == 540
    assert every[0] == RED
    assert every[1].background == "gray"
    assert every[-1] == Combination("large", "magenta", "triangle", "stays still", "navy")
    assert every[-1].indices == (1, 5, 2, 4, 2)


def test_train_and_test_share_no_combination_and_miss_none():
    train, test = combinations("train"), combinations("test")
    assert (len(train), len(test)) == (467, 73)
    assert sorted(train + test) == sorted(combinations("all"))
    assert all(sum(one.indices) % 7 == 3 for one in test)
    assert not any(is_test(one) for one in train)
    assert is_test(Combination("small", "red", "circle", "moves down", "black"))


def test_both_splits_show_every_name():
    for split in ("train", "test"):
        for attribute, names in ATTRIBUTES.items():
            assert set(Counter(getattr(one, attribute) for one in combinations(split))) == set(names)


def test_captions_read_back_as_what_they_were_made_of():
    assert caption(RED) == "a small red circle moves left on a black background"
    assert caption(combinations("all")[-1]) == "a large magenta triangle stays still on a navy background"
    for one in combinations("all"):
        assert parse_caption(caption(one)) == one
    assert parse_caption("  A small RED circle  moves left on a black background. ") == RED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "only 'a {size} {color}"),
        ("a small red circle on a black background", "only 'a {size} {color}"),
        ("the small red circle moves left on a black background", "only 'a {size} {color}"),
        ("a small red circle moves left on a black background, slowly", "only 'a {size} {color}"),
        ("a tiny red circle moves left on a black background", "size 'tiny' came; small, large are allowed"),
        ("a small red star moves left on a black background", "shape 'star' came; circle, square, triangle"),
        ("a small red circle moves still on a black background", "motion 'moves still' came; moves left"),
        ("a red small circle moves left on a black background", "size 'red' came"),
    ],
)
def test_other_texts_are_refused_with_what_is_allowed(text, message):
    with pytest.raises(UserError, match=message):
        parse_caption(text)


def test_names_that_are_in_no_table_are_refused():
    with pytest.raises(UserError, match="color 'orange' came; red, green, blue, yellow, cyan, magenta are allowed"):
        Combination("small", "orange", "circle", "moves left", "black")
    with pytest.raises(UserError, match="split 'validation' came; train, test, all are allowed"):
        combinations("validation")
