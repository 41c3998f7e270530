"""Several sources read at a time, their items handed on in the sources' order, with a bound on what waits.

`reader` reads the ranges of one task through it. The source whose turn it is always goes on; those behind it fetch
ahead while less than `most_bytes` wait in all. So what is held depends on neither the number of sources nor on how
much each turns out to have.
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
# An item is hardly more than so many times as large as the one before it: so much room is kept while it is fetched.
GROWTH = 16
# A generator that fetches an item when it is asked for one, and nothing before.
Source = Generator[T, None, None]


def in_order(sources: Sequence[Source[T]], size: Callable[[T], int], *, at_a_time: int, most_bytes: int) -> Iterator[T]:
    """Each source's items, one source after the other. A source's error is raised in its turn."""
    board = _Board(size, most_bytes)
    pool = ThreadPoolExecutor(at_a_time, thread_name_prefix="kinesis-ranges")
    try:
        shelves: list[_Shelf[T]] = [_Shelf(place) for place in range(len(sources))]
        # They start in their order, so the one whose turn it is always has a thread.
        for shelf, source in zip(shelves, sources, strict=True):
            pool.submit(board.fill, shelf, source)
        for shelf in shelves:
            yield from board.emptied(shelf)
    finally:
        board.close()
        pool.shutdown(wait=False, cancel_futures=True)


@dataclass
class _Shelf(Generic[T]):
    """What one source has fetched and nobody has taken yet."""

    place: int
    items: deque[tuple[T, int]] = field(default_factory=deque)
    done: bool = False
    error: BaseException | None = None


class _Board(Generic[T]):
    def __init__(self, size: Callable[[T], int], most_bytes: int) -> None:
        self._size = size
        self._most = most_bytes
        self._changed = threading.Condition()
        self._turn = 0
        self._held = 0
        self._closed = False

    def fill(self, shelf: _Shelf[T], source: Source[T]) -> None:
        """In a thread of its own: fetches the source's items and puts them on its shelf, as far as there is room."""
        try:
            with closing(source) as items:
                expected = 0
                while self._keep_room(shelf, expected):
                    try:
                        item = next(items, None)
                    finally:
                        self._give_room_back(expected)
                    if item is None:
                        return
                    expected = GROWTH * self._put(shelf, item)
        except BaseException as error:  # noqa: BLE001 raised again where the items are taken
            shelf.error = error
        finally:
            with self._changed:
                shelf.done = True
                self._changed.notify_all()

    def _keep_room(self, shelf: _Shelf[T], expected: int) -> bool:
        """Waits until the next item may be fetched; False once nobody wants it."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(shelf))
            self._held += expected
            return not self._closed

    def _has_room(self, shelf: _Shelf[T]) -> bool:
        # In its turn a source waits for nobody but the taker, or all might wait for each other.
        return not shelf.items if shelf.place == self._turn else self._held < self._most

    def _give_room_back(self, expected: int) -> None:
        with self._changed:
            self._held -= expected
            self._changed.notify_all()

    def _put(self, shelf: _Shelf[T], item: T) -> int:
        size = self._size(item)
        with self._changed:
            shelf.items.append((item, size))
            self._held += size
            self._changed.notify_all()
        return size

    def emptied(self, shelf: _Shelf[T]) -> Iterator[T]:
        """The shelf's items as they come, to its end; then it is the next one's turn."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: shelf.items or shelf.done)
                if not shelf.items:
                    break
                item, size = shelf.items.popleft()
                self._held -= size
                self._changed.notify_all()
            yield item
        if shelf.error is not None:
            raise shelf.error
        with self._changed:
            self._turn += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the threads at their next item: nobody wants what they fetch."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
