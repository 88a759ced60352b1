from xml.etree import ElementTree

import pytest

from dcvideogen.evaluation.svg import Series, bar_plot, line_plot, nice_ticks


def parts(drawing: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(drawing).iter(tag))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (21.3, 24.9, [21, 22, 23, 24, 25]), (-0.3, 0.4, [-0.4, -0.2, 0, 0.2, 0.4])],
)
def test_ticks_are_round_and_cover_the_range(low, high, expected):
    assert nice_ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 5.0, -3e-9])
def test_a_range_of_one_point_has_ticks_around_it(value):
    ticks = nice_ticks(value, value)
    assert ticks[0] <= value <= ticks[-1]
    assert len(ticks) >= 2


def test_lines_stay_inside_break_at_gaps_and_names_are_escaped():
    series = [Series("a<b", range(6), [30, 31, None, 28, None, 33], 1), Series("c", range(6), [20.0] * 6, 7)]
    drawing = line_plot("PSNR & co", series, "frame", "dB", marks=[3])
    lines = parts(drawing, "polyline")
    assert [line.get("class") for line in lines] == ["line s1", "line s1", "line s1", "line s1"]
    for line in lines:
        for point in line.get("points").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 460
            assert 0 <= y <= 240
    assert len(parts(drawing, "circle")) == 2  # points that stand alone
    assert "a&lt;b" in drawing
    assert len([line for line in parts(drawing, "line") if line.get("class") == "mark"]) == 1


def test_higher_values_are_drawn_higher():
    drawing = line_plot("", [Series("a", [0, 1], [1, 2])], "x", "y", dots=True)
    first, second = parts(drawing, "circle")
    assert float(first.get("cy")) > float(second.get("cy"))
    assert float(first.get("cx")) < float(second.get("cx"))


def test_bars_are_as_high_as_their_values():
    bars = parts(bar_plot("", [1, 0, 4, -2], "x", "y", start=10), "rect")
    heights = [float(bar.get("height")) for bar in bars]
    assert heights == pytest.approx([heights[0], 4 * heights[0], 2 * heights[0]], abs=0.05)
    assert bars[0].find("title").text == "10: 1"


def test_nothing_to_draw_is_no_drawing():
    assert line_plot("", [Series("a", [0, 1], [None, None])], "x", "y") == ""
    assert bar_plot("", [], "x", "y") == ""
