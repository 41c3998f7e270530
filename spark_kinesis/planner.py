"""Plans batches on the driver: from the offset read so far to the next one, and the ranges between two offsets.

`data_source` calls it as Spark does; it asks `shards` what may be read, `tips` where each shard ends, `loss`
whether something is missing. Its memory (iterators, the shard list) is a cache: everything that decides what a
batch holds stands in the two offsets.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from spark_kinesis.batch_limits import search_all
from spark_kinesis.client import StreamClient
from spark_kinesis.cursor import Cap, Cursor, Found
from spark_kinesis.errors import DataLossError, SourceConfigurationError, SourceError
from spark_kinesis.input_partitions import ShardRange, ranges_between
from spark_kinesis.offset import SHARD_END, TRIM_HORIZON, Offset, Position, parse_position
from spark_kinesis.options import KinesisOptions, starts_in_the_future
from spark_kinesis.rate_limiter import Pace
from spark_kinesis.reckoning import Progress, Reckoning
from spark_kinesis.shard_discovery import Discovery
from spark_kinesis.shards import ShardGraph
from spark_kinesis.tips import Tips, Turn

_log = logging.getLogger(__name__)


class Planner:
    """One query's planner. Not thread-safe; its searches run in a pool of its own.

    `clock` gives seconds since 1970.
    """

    def __init__(
        self,
        options: KinesisOptions,
        client: StreamClient,
        *,
        clock: Callable[[], float] = time.time,
        pace: Pace | None = None,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self._options = options
        self._client = client
        self._clock = clock
        self._tips = Tips(client, pace or Pace(options.planning_calls_per_second), page_limit=options.records_per_call)
        self._pool = pool or ThreadPoolExecutor(options.planning_threads, thread_name_prefix="kinesis-plan")
        self._sizes: dict[tuple[str, Position], Found] = {}
        self._discovery = Discovery(client, options.discovery_seconds, clock)
        self._reckoning = Reckoning(options, self._discovery, self._now, lambda at: self._each(self._tips.peek, at))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def latest(self, start: Offset, *, cap: Cap | None = None, ending: Offset | None = None) -> Offset:
        """The next batch's end: each readable shard's tip, or less where `cap` (for the whole batch) or `ending`
        says so. Returns `start` itself where nothing is new.

        A new query at LATEST gets the tips of this moment, pinned: its first batch is empty.
        """
        now = self._now()
        graph = self._discovery.graph(start)
        if start.initial == "LATEST":
            return self._pinned(graph, now)
        if self._discovery.recreated_since(start):
            start = self._begin_again(start)
        known = self._known(start, graph)
        progress = Progress(dict(known), {}, start.losses)
        self._drop_vanished(progress, known, start, graph)
        for shard_id in graph.retired(known):
            del progress.shards[shard_id]
        self._advance(progress, known, start, graph, cap or Cap(), ending)
        self._forget(progress.shards)

        moved = progress.shards != dict(start.shards) or start.initial is not None
        if not moved and not self._reckoning.wants_proof(start, progress, now) and progress.losses == start.losses:
            return start
        sizes = {
            shard_id: self._sizes[shard_id, end].bytes
            for shard_id, end in progress.shards.items()
            if end != known.get(shard_id) and (shard_id, end) in self._sizes
        }
        return Offset(self._options.stream, progress.shards, now, progress.behind, bytes=sizes, losses=progress.losses)

    def tip(self) -> Offset:
        """Every listed shard's tip at this moment: SHARD_END for closed shards, TRIM_HORIZON for empty ones."""
        now = self._now()
        graph = self._discovery.list_now()
        return self._pinned(graph, now, closed=True)

    def ranges(self, start: Offset, end: Offset) -> list[ShardRange]:
        """What a batch reads: exactly the records between two offsets, shard by shard."""
        if start.initial == "LATEST" or start.to_json() == end.to_json():
            return []
        if self._discovery.recreated_since(start) and not self._discovery.recreated_since(end):
            start = replace(start, shards={}, behind={})
        found = ranges_between(start, end, _entry(start))
        graph = self._discovery.known() if any(part.end == SHARD_END for part in found) else None
        return [
            replace(
                part,
                complete_until=self._reckoning.complete_until(part.shard_id, part.start, start),
                retention_hours=self._discovery.retention_hours(),
                ending_sequence=graph.ending_sequence(part.shard_id) if graph else None,
                bytes=end.bytes.get(part.shard_id),
                records=size.records if size else None,
            )
            for part, size in ((part, self._sizes.get((part.shard_id, part.end))) for part in found)
        ]

    def _known(self, start: Offset, graph: ShardGraph) -> dict[str, Position]:
        """The offset's shards and those that join it now."""
        if starts_in_the_future(self._options, self._now()) and start.initial is not None:
            raise SourceConfigurationError(f"option 'startingPosition': {start.initial} lies in the future")
        known = dict(start.shards)
        missing = sorted(set(known) - set(graph.shards))
        if start.initial is not None and missing:
            raise SourceConfigurationError(
                f"option 'startingPosition': stream {self._options.stream} has no shard {', '.join(missing)}"
            )
        for shard_id in graph.joining(known):
            known[shard_id] = _entry(start)
        return known

    def _begin_again(self, start: Offset) -> Offset:
        """The stream was deleted and created anew: its old positions mean nothing, all it holds is new."""
        message = (
            f"stream {self._options.stream} was deleted and created again since {start.planned_at}; what the earlier "
            "one still held is lost"
        )
        if self._options.fail_on_data_loss:
            raise DataLossError(f"{message}. Start a new checkpoint, or read the new stream with failOnDataLoss=false")
        _log.warning("%s. Going on, because failOnDataLoss=false", message)
        self._reckoning.cursors.clear()
        return replace(start, shards={}, behind={}, losses=start.losses + 1)

    def _drop_vanished(
        self, progress: Progress, known: Mapping[str, Position], start: Offset, graph: ShardGraph
    ) -> None:
        for shard_id in graph.vanished(known):
            # All that was in it has expired, so what was read up to less than the retention ago was all there was.
            if self._reckoning.start_is_lost(shard_id, known[shard_id], start, is_there=False):
                self._reckoning.lose(progress, shard_id, known[shard_id], start, None)
            del progress.shards[shard_id]

    # Tips

    def _advance(
        self,
        progress: Progress,
        known: Mapping[str, Position],
        start: Offset,
        graph: ShardGraph,
        cap: Cap,
        ending: Offset | None,
    ) -> None:
        to_search: list[str] = []
        to_weigh: list[str] = []
        to_close: list[str] = []
        readable = [shard_id for shard_id in graph.readable(known) if shard_id in progress.shards]
        for shard_id in readable:
            target = None if ending is None else ending.shards.get(shard_id, TRIM_HORIZON)
            if target is not None and target <= known[shard_id]:
                continue
            # Whether a shard that starts at a time has anything to read up to its target, only a search can tell.
            starts_at_time = known[shard_id].moment is not None
            if not cap.is_set and target is not None and target.is_record and not starts_at_time:
                progress.shards[shard_id] = target
                to_weigh.append(shard_id)
            elif not cap.is_set and graph.is_closed(shard_id) and (target is None or target == SHARD_END):
                progress.shards[shard_id] = SHARD_END
                to_close.append(shard_id)
            else:
                to_search.append(shard_id)
        self._reckoning.check_starts(progress, to_weigh + to_close, known, start)
        self._weigh(to_weigh, known, progress.shards)
        # A run that ends must not take a long stretch without records for its end.
        for shard_id, found in zip(to_search, self._search(to_search, known, start, cap, ending), strict=True):
            self._take(progress, shard_id, found, known[shard_id], start, graph, ending)
        searched = set(to_search)
        resting = [
            shard_id
            for shard_id, position in progress.shards.items()
            if position != SHARD_END and shard_id not in searched
        ]
        self._reckoning.rest(progress, resting, start, graph, ending)

    def _search(
        self, shard_ids: list[str], known: Mapping[str, Position], start: Offset, cap: Cap, ending: Offset | None
    ) -> list[Found]:
        cursors = [self._cursor(shard_id, known[shard_id], start, ending) for shard_id in shard_ids]
        return search_all(self._tips, cursors, cap, self._each, exhaustive=ending is not None)

    def _each(self, call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """`call` for each cursor or turn of a shard, in the pool. What it raises names stream, shard and position."""

        def named(item: Cursor | Turn) -> Any:
            try:
                return call(item)
            except SourceError as error:
                where = f"stream {self._options.stream}, shard {item.shard_id}, behind {item.position}"
                raise type(error)(f"{where}: {error}") from error

        return [named(item) for item in items] if len(items) < 2 else list(self._pool.map(named, items))

    def _weigh(self, shard_ids: list[str], known: Mapping[str, Position], ends: Mapping[str, Position]) -> None:
        """Keeps how much lies before ends that were not searched for, so that small ranges can share a task."""
        cursors = [Cursor(shard_id, known[shard_id]) for shard_id in shard_ids]
        for found in self._each(lambda cursor: self._tips.weigh(cursor, ends[cursor.shard_id]), cursors):
            if found is not None:
                self._sizes[(found.cursor.shard_id, found.cursor.position)] = found

    def _cursor(self, shard_id: str, position: Position, start: Offset, ending: Offset | None) -> Cursor:
        """Where the search begins. After a standstill so long that records can have expired, the position is looked
        at again."""
        cursor = self._reckoning.cursors.get(shard_id)
        stood_still = self._reckoning.start_is_lost(shard_id, position, start, is_there=False)
        if cursor is not None and cursor.position == position and not stood_still:
            return cursor
        until = start.complete_until(shard_id) if shard_id in start.shards else None
        if ending is not None and shard_id in start.behind:
            # It may rest on MillisBehindLatest, which is good enough for where to look, not for whether all was read.
            until = None
        return Cursor(shard_id, position, empty_to=until.timestamp() if until else 0.0)

    def _take(
        self,
        progress: Progress,
        shard_id: str,
        found: Found,
        position: Position,
        start: Offset,
        graph: ShardGraph,
        ending: Offset | None,
    ) -> None:
        progress.saw(shard_id, found)
        if self._reckoning.start_is_lost(shard_id, position, start, is_there=not found.gone):
            self._reckoning.lose(progress, shard_id, position, start, found.oldest)
        complete = self._reckoning.complete_until(shard_id, position, start)
        end = found.cursor.position
        # moto never ends a closed shard with a null iterator; caught up, it is at its end all the same.
        if found.at_tip and graph.is_closed(shard_id):
            end = SHARD_END
        target = None if ending is None else ending.shards.get(shard_id, TRIM_HORIZON)
        until = datetime.fromtimestamp(found.until, UTC)
        stops_short = False
        if ending is not None and target is not None and target < end:
            stops_short = True
            # The target may be older than the time that the shard starts at: then all before it is done with.
            nothing = position.moment is not None and not 0 < found.first <= target.number
            end = position if nothing else target
            until = ending.complete_until(shard_id) or complete or datetime.fromtimestamp(found.since, UTC)
        elif end == position and not found.at_tip:
            until = max(complete or until, until)
        if end == found.cursor.position:
            self._reckoning.remember(found)
        progress.shards[shard_id] = end
        if end != SHARD_END and (stops_short or not found.at_tip):
            progress.behind[shard_id] = until
        self._sizes[(shard_id, end)] = found

    def _pinned(self, graph: ShardGraph, now: datetime, *, closed: bool = False) -> Offset:
        """Each open shard's tip; with `closed`, SHARD_END for the others."""
        open_shards = [shard_id for shard_id in graph.shards if not graph.is_closed(shard_id)]
        cursors = [Cursor(shard_id, TRIM_HORIZON) for shard_id in open_shards]
        found = self._each(lambda cursor: self._tips.search(cursor, Cap(), exhaustive=True), cursors)
        shards = {each.cursor.shard_id: each.cursor.position for each in found}
        if closed:
            shards |= {shard_id: SHARD_END for shard_id in graph.shards if shard_id not in shards}
        return Offset(self._options.stream, shards, now)

    # What is known of time

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _forget(self, shards: Mapping[str, Position]) -> None:
        """Drops what is remembered of shards that are done, so that memory does not grow with the resharding."""
        self._reckoning.forget(shards)
        self._sizes = {key: size for key, size in self._sizes.items() if shards.get(key[0]) == key[1]}


def _entry(start: Offset) -> Position:
    """Where a shard that the offset does not name is begun."""
    if start.initial is not None and start.initial.startswith("AT_TIMESTAMP"):
        return parse_position(start.initial)
    return TRIM_HORIZON
