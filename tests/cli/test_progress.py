import io

import pytest
from rich.console import Console

from dcvideogen.cli import console, progress


@pytest.fixture
def shown(monkeypatch):
    """What goes to stderr, as a terminal or not."""

    def make(terminal: bool) -> io.StringIO:
        stream = io.StringIO()
        monkeypatch.setattr(console, "err", Console(file=stream, force_terminal=terminal, width=100))
        return stream

    return make


def count_to(total: int | None, stages=("reading", "encoding")) -> dict[str, int]:
    with progress.StageProgress("clip [1].mp4", stages, total) as bars:
        for _ in range(10):
            bars.advance("reading")
        bars.advance("encoding", 12)
    return bars.counts


def test_a_terminal_shows_a_bar_per_stage(shown):
    stream = shown(terminal=True)
    count_to(10)
    assert "clip (1).mp4: reading" in stream.getvalue()
    assert "clip (1).mp4: encoding" in stream.getvalue()
    assert "10/10" in stream.getvalue()


def test_elsewhere_a_line_comes_now_and_then(shown, monkeypatch):
    stream = shown(terminal=False)
    count_to(10)
    assert stream.getvalue() == ""
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0.0)
    count_to(10)
    assert stream.getvalue().splitlines()[0] == "note: clip [1].mp4: reading 1, encoding 0 of 10 frames"


def test_counts_end_at_the_end_of_the_clip_where_it_is_known(shown):
    shown(terminal=False)
    assert count_to(10) == {"reading": 10, "encoding": 10}
    assert count_to(None) == {"reading": 10, "encoding": 12}
