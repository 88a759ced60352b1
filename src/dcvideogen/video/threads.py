"""A reader thread and a writer thread, so that decoding, the network and encoding run side by side.

Both hold at most `depth` items, pass exceptions on to the caller's thread, and have ended when they are closed.
"""

import queue
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

Item = TypeVar("Item")

_END = object()


class Sink(Protocol):
    """What can be written to: a context manager with `write`, for example VideoWriter."""

    def __enter__(self) -> Any: ...
    def __exit__(self, kind: Any, error: Any, trace: Any) -> Any: ...
    def write(self, item: Any) -> Any: ...


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def prefetch(iterable: Iterable[Item], depth: int = 8) -> Iterator[Item]:
    """Iterates in a reader thread that works up to `depth` items ahead.

    The thread starts with the first `next()`. An exception of the iterable is raised here after the items before
    it. Closing the generator early (a `break`, `.close()`, or dropping it) stops the thread, closes the iterable in
    it, and waits for both.
    """
    if depth < 1:
        raise ValueError(f"depth {depth} came; at least 1 is allowed")
    items: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def produce() -> None:
        last: Any = _END
        try:
            iterator = iter(iterable)
            try:
                for item in iterator:
                    if stop.is_set():
                        break
                    items.put(item)
            finally:
                close = getattr(iterator, "close", None)
                if close is not None:
                    close()
        except BaseException as error:
            last = _Failure(error)
        items.put(last)

    thread = threading.Thread(target=produce, name="dcvideogen-reader", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        stop.set()
        _drain_until_ended(items, thread)


class BackgroundWriter:
    """Writes to a sink from a writer thread: `with BackgroundWriter(VideoWriter(...)) as out: out.write(frame)`.

    The sink is entered and left in the caller's thread and written to in the writer thread only. `write` waits while
    `depth` items are pending; items must not be changed after they were written. An exception of the sink is raised
    by the next `write` or on exit, and the sink's `__exit__` gets it, so that it can remove what is half-written.
    """

    def __init__(self, sink: Sink, depth: int = 8) -> None:
        if depth < 1:
            raise ValueError(f"depth {depth} came; at least 1 is allowed")
        self._sink = sink
        self._items: queue.Queue[Any] = queue.Queue(maxsize=depth)
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._consume, name="dcvideogen-writer", daemon=True)

    def __enter__(self) -> Self:
        self._sink.__enter__()
        self._thread.start()
        return self

    def write(self, item: Any) -> None:
        """Hands one item to the writer thread; raises what the sink raised for an earlier one."""
        if self._error is not None:
            raise self._error
        self._items.put(item)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stop.set()
        self._items.put(_END)
        self._thread.join()
        failure = error or self._error
        if failure is None:
            self._sink.__exit__(None, None, None)
            return
        self._sink.__exit__(type(failure), failure, failure.__traceback__)
        if error is None:
            raise failure

    def _consume(self) -> None:
        # After a failure it goes on taking items without writing them: a blocked `write` of the caller must return.
        while (item := self._items.get()) is not _END:
            if self._error is None and not self._stop.is_set():
                try:
                    self._sink.write(item)
                except BaseException as error:
                    self._error = error


def _drain_until_ended(items: "queue.Queue[Any]", thread: threading.Thread) -> None:
    while thread.is_alive():
        try:
            items.get(timeout=0.02)
        except queue.Empty:
            continue
    thread.join()
