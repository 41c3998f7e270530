"""Reads ahead across batches: a range's reader has the next range's first page fetched in the background.

While Spark writes and commits a capped batch, its shards would lie idle. The next range starts where this one ends,
so what its reader will ask for first is known: it is asked for now, and the page waits at this host (`offers`) for
whichever worker gets the next range. It holds what the reader would have fetched itself, only earlier, so what the
reader makes of it (`reader`) does not depend on who guessed, or whether.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Protocol

from spark_kinesis.client import Page, Record, StreamClient
from spark_kinesis.input_partitions import ShardRange
from spark_kinesis.offset import Position

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

    def offer_next(self, part: ShardRange, last: Page[Record], limit: int) -> None:
        """Offers the first page, of about `limit` records, of the range that starts where `part` ends, if there is to
        be one. It begins with the end's own record, as a reader's does: that proves that nothing behind it has expired.

        last  the page that `part` ended in: what stands in it behind the end is passed on rather than read again
        """
        if not part.more or not part.run or not _is_whole(part.end):
            return
        behind, following = _from(part.end, last.records), last.next_iterator

        def fetch() -> Page[Record]:
            if not behind or following is None:
                return self._client.records(self._client.iterator(part.shard_id, part.end, inclusive=True), limit)
            page = self._client.records(following, max(1, limit - len(behind)))
            return replace(page, records=[*behind, *page.records], body_bytes=0)

        self._offers.offer(_key(part, part.end), fetch, min(part.bytes or 0, _PAGE_BYTES))


def _from(position: Position, records: Sequence[Record]) -> Sequence[Record]:
    """The position's own record and all behind it; empty where it is not among them."""
    place = len(records)
    while place and int(records[place - 1].sequence_number) >= position.number:
        place -= 1
    found = records[place:]
    return found if found and found[0].sequence_number == position.sequence else []


def _is_whole(position: Position) -> bool:
    """Whether the position names a record, and not a user record within an aggregate."""
    return position.is_record and position.sub is None


def _key(part: ShardRange, start: Position) -> str:
    """20 characters, as it is a file's name. No two queries, starts of a query, or streams share one: `run` differs."""
    return sha256(f"{part.run} {part.shard_id} {start}".encode()).hexdigest()[:20]
