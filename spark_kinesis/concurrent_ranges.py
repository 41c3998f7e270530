"""Fetches several sources at once and yields their items in the order of the sources, with bounded memory.

`reader` reads the small ranges of one task through it. The first unfinished source always runs; the sources after it
prefetch while less than `max_bytes` wait in all. So memory does not grow with the number or
the size of the sources.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
# An item is rarely more than this many times as large as the one before it: room is reserved accordingly.
MAX_GROWTH = 16
# A generator that fetches an item when it is asked for one, and nothing earlier.
Source = Generator[T, None, None]


def fetch_concurrently(
    sources: Sequence[Source[T]], size: Callable[[T], int], *, max_concurrent: int, max_bytes: int
) -> Iterator[T]:
    """Each source's items, one source after the other. A source's error is raised when its turn comes.

    size  an item's size in bytes
    """
    buffers = _Buffers(size, max_bytes)
    pool = ThreadPoolExecutor(max_concurrent, thread_name_prefix="kinesis-ranges")
    try:
        queues: list[_Queue[T]] = [_Queue(number) for number in range(len(sources))]
        # Started in order, so the first unfinished source always has a thread.
        for queue, source in zip(queues, sources, strict=True):
            pool.submit(buffers.fill, queue, source)
        for queue in queues:
            yield from buffers.drain(queue)
    finally:
        buffers.close()
        pool.shutdown(wait=False, cancel_futures=True)


@dataclass
class _Queue(Generic[T]):
    """The items of one source that were fetched and not yet taken, each with its size."""

    number: int
    items: deque[tuple[T, int]] = field(default_factory=deque)
    done: bool = False
    error: BaseException | None = None


class _Buffers(Generic[T]):
    """The queues' common budget."""

    def __init__(self, size: Callable[[T], int], max_bytes: int) -> None:
        self._size = size
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._current = 0  # the number of the queue that is being drained
        self._used = 0
        self._closed = False

    def fill(self, queue: _Queue[T], source: Source[T]) -> None:
        """Runs in a thread of its own: fetches the source's items while there is room."""
        try:
            with closing(source) as items:
                expected = 0
                while self._reserve(queue, expected):
                    try:
                        item = next(items, None)
                    finally:
                        self._release(expected)
                    if item is None:
                        return
                    expected = MAX_GROWTH * self._put(queue, item)
        except BaseException as error:  # noqa: BLE001 raised again where the items are taken
            queue.error = error
        finally:
            with self._changed:
                queue.done = True
                self._changed.notify_all()

    def _reserve(self, queue: _Queue[T], expected: int) -> bool:
        """Waits until the next item may be fetched; False once the buffers are closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(queue))
            self._used += expected
            return not self._closed

    def _has_room(self, queue: _Queue[T]) -> bool:
        # The current queue ignores the budget: otherwise every thread could wait for the others.
        return not queue.items if queue.number == self._current else self._used < self._max_bytes

    def _release(self, expected: int) -> None:
        with self._changed:
            self._used -= expected
            self._changed.notify_all()

    def _put(self, queue: _Queue[T], item: T) -> int:
        size = self._size(item)
        with self._changed:
            queue.items.append((item, size))
            self._used += size
            self._changed.notify_all()
        return size

    def drain(self, queue: _Queue[T]) -> Iterator[T]:
        """The queue's items as they arrive, until its source ends; then the next queue is the current one."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: queue.items or queue.done)
                if not queue.items:
                    break
                item, size = queue.items.popleft()
                self._used -= size
                self._changed.notify_all()
            yield item
        if queue.error is not None:
            raise queue.error
        with self._changed:
            self._current += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the threads at their next item."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
