"""Reads ahead across batches: a range's reader has the next range's first page fetched in the background.

While Spark writes and commits a capped batch, its shards would lie idle. The next range starts where this one ends,
so the call that its reader will make first is known: it is made now, and the page waits at this host (`offers`) for
whichever worker gets the next range. It is the page that the reader would have fetched itself, only earlier, so
what the reader makes of it (`reader`) does not depend on who guessed, or whether.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Protocol

from jobs.source.kinesis.client import Page, Record, StreamClient
from jobs.source.kinesis.position import Position
from jobs.source.kinesis.ranges import ShardRange

# AWS: the most that one answer of GetRecords holds.
_PAGE_BYTES = 10 * 1024 * 1024


class Offers(Protocol):
    """Where pages wait for the reader that wants them."""

    def offer(self, key: str, fetch: Callable[[], Page[Record]], size: int) -> None:
        """Has `fetch` called in the background, and its page, of about `size` bytes, kept for a while."""
        ...

    def take(self, key: str) -> Page[Record] | None:
        """The page that was offered as `key`, once; None where there is none, or none that comes in time."""
        ...


class ReadAhead:
    """What a range's reader asks for and offers. `client` makes single attempts: a guess is not worth a second."""

    def __init__(self, client: StreamClient, offers: Offers) -> None:
        self._client = client
        self._offers = offers

    def first_page(self, part: ShardRange) -> Page[Record] | None:
        """The range's first page, where the reader of the range before it has offered it."""
        if not part.run or not _is_whole(part.start):
            return None
        return self._offers.take(_key(part, part.start))

    def offer_next(self, part: ShardRange, limit: int) -> None:
        """Offers the first page, of `limit` records, of the range that starts where `part` ends, if there is to be
        one. It opens at the end's own record, as `reader` does: that proves that nothing behind it has expired."""
        if not part.more or not part.run or not _is_whole(part.end):
            return

        def fetch() -> Page[Record]:
            return self._client.records(self._client.iterator(part.shard_id, part.end, inclusive=True), limit)

        self._offers.offer(_key(part, part.end), fetch, min(part.bytes or 0, _PAGE_BYTES))


def _is_whole(position: Position) -> bool:
    """Whether the position names a record, and not a user record within an aggregate."""
    return position.is_record and position.sub is None


def _key(part: ShardRange, start: Position) -> str:
    """No two queries, starts of a query, or streams share a key: `run` differs."""
    return sha256(f"{part.run} {part.shard_id} {start}".encode()).hexdigest()[:32]
