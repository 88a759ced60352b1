"""The reader and the writer thread: order, limits, exceptions, and that they end."""

import threading
import time

import numpy as np
import pytest
from video_files import make_file, number_of, numbered_frame

from dcvideogen.errors import UserError
from dcvideogen.video import BackgroundWriter, VideoWriter, iterate_frames, prefetch


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class ListSink:
    """Collects items; fails at one of them if asked to; remembers how it was left."""

    def __init__(self, fail_at=None, seconds=0.0):
        self.items, self.fail_at, self.seconds, self.left_with = [], fail_at, seconds, "not left"
        self.threads = set()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.left_with = error

    def write(self, item):
        time.sleep(self.seconds)
        self.threads.add(threading.current_thread())
        if item == self.fail_at:
            raise UserError(f"cannot write {item}")
        self.items.append(item)


def test_prefetch_keeps_order_and_works_in_another_thread():
    seen = set()

    def produce():
        for item in range(100):
            seen.add(threading.current_thread())
            yield item

    assert list(prefetch(produce(), depth=3)) == list(range(100))
    assert threading.current_thread() not in seen
    assert len(seen) == 1


def test_prefetch_works_ahead_but_not_further_than_its_depth():
    produced = []

    def produce():
        for item in range(100):
            produced.append(item)
            yield item

    items = prefetch(produce(), depth=4)
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(produced) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    # One is out, four wait, one is in the producer's hand.
    assert len(produced) == 6
    items.close()


def test_prefetch_raises_the_producers_error_after_the_items_before_it():
    def produce():
        yield from range(5)
        raise UserError("breaks at frame 5")

    items = prefetch(produce(), depth=2)
    assert [next(items) for _ in range(5)] == list(range(5))
    with pytest.raises(UserError, match="breaks at frame 5"):
        next(items)


def test_an_iterable_that_cannot_start_raises_too():
    with pytest.raises(TypeError, match="not iterable"):
        next(prefetch(5))


@pytest.mark.parametrize("how", ["close", "break", "drop"])
def test_leaving_early_stops_and_closes_the_producer(how):
    closed = threading.Event()

    def produce():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    items = prefetch(produce(), depth=2)
    for _ in items:
        break
    if how == "close":
        items.close()
    del items
    assert closed.is_set()


def test_a_video_can_be_read_ahead_and_left_early(tmp_path):
    path = make_file(tmp_path / "a.mp4", 40)
    assert [number_of(frame) for frame in prefetch(iterate_frames(path))] == list(range(40))
    frames = prefetch(iterate_frames(path))
    assert number_of(next(frames)) == 0
    frames.close()
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match="breaks"):
        list(prefetch(iterate_frames(path)))


def test_the_writer_thread_writes_everything_in_order():
    sink = ListSink()
    with BackgroundWriter(sink, depth=2) as out:
        for item in range(50):
            out.write(item)
    assert sink.items == list(range(50))
    assert sink.left_with is None
    assert threading.current_thread() not in sink.threads


def test_the_writer_takes_no_more_than_its_depth():
    sink = ListSink(seconds=0.05)
    with BackgroundWriter(sink, depth=2) as out:
        start = time.monotonic()
        for item in range(8):
            out.write(item)
        # Eight were taken, so at least five are written: one is in work, two wait.
        assert time.monotonic() - start > 0.2
        assert len(sink.items) >= 5


def test_a_writers_error_reaches_the_caller_and_the_sink():
    sink = ListSink(fail_at=3)
    with pytest.raises(UserError, match="cannot write 3"), BackgroundWriter(sink, depth=2) as out:  # noqa: PT012
        for item in range(1000):
            out.write(item)
        pytest.fail("the error came too late")
    assert isinstance(sink.left_with, UserError)
    assert sink.items == [0, 1, 2]


def test_an_error_at_the_last_item_is_raised_on_exit():
    sink = ListSink(fail_at=0, seconds=0.05)
    with pytest.raises(UserError, match="cannot write 0"), BackgroundWriter(sink) as out:
        out.write(0)
    assert isinstance(sink.left_with, UserError)


def test_the_callers_error_stops_the_writer_and_reaches_the_sink():
    sink = ListSink(seconds=0.05)
    with pytest.raises(ZeroDivisionError), BackgroundWriter(sink, depth=8) as out:  # noqa: PT012
        for item in range(8):
            out.write(item)
        raise ZeroDivisionError
    assert isinstance(sink.left_with, ZeroDivisionError)
    assert len(sink.items) < 4


def test_video_files_are_whole_or_absent(tmp_path):
    path = tmp_path / "a.mkv"
    with BackgroundWriter(VideoWriter(path, fps=25)) as out:
        for index in range(20):
            out.write(numbered_frame(index))
    assert [number_of(frame) for frame in iterate_frames(path)] == list(range(20))
    path.unlink()
    with pytest.raises(UserError, match="frame 5 is 9x9"), BackgroundWriter(VideoWriter(path, fps=25)) as out:  # noqa: PT012
        for index in range(20):
            out.write(numbered_frame(index) if index != 5 else np.zeros((9, 9, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_depth_must_be_positive():
    with pytest.raises(ValueError, match="depth 0"):
        next(prefetch([1], depth=0))
    with pytest.raises(ValueError, match="depth 0"):
        BackgroundWriter(ListSink(), depth=0)
