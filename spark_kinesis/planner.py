"""Plans a query's batches on the driver.

    offset of the last batch                       {shard-0: 5, shard-1: SHARD_END, shard-2: TRIM_HORIZON}
      │  shards          which shards exist, join the offset, may be read now: shard-0 and shard-2
      │  data_loss       whether records expired unread
      │  tip_search      where each readable shard ends now, in a few small calls
      │  batch_limits    … or where the batch's cap ends it
      ▼
    offset of the next batch, which Spark keeps    {shard-0: 9, shard-1: SHARD_END, shard-2: 3}
      │  the ranges between the two offsets, small ones grouped
      ▼
    Spark tasks, which `reader` reads              (5, 9] of shard-0, (TRIM_HORIZON, 3] of shard-2

The planner's memory (iterators, the shard list) is a cache. What a batch holds depends on its two offsets alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from spark_kinesis.batch_limits import Cap, CappedSearch, find_ends
from spark_kinesis.client import StreamClient
from spark_kinesis.data_loss import LossDetector, OffsetBuilder
from spark_kinesis.errors import DataLossError, SourceConfigurationError, SourceError
from spark_kinesis.offset import SHARD_END, TRIM_HORIZON, Offset, Position, ShardRange, ranges_between
from spark_kinesis.options import KinesisOptions
from spark_kinesis.rate_limiter import RateLimiter
from spark_kinesis.shard_search import Cursor, SearchResult
from spark_kinesis.shards import ShardDiscovery, ShardGraph
from spark_kinesis.tip_search import ShardSearcher

_log = logging.getLogger(__name__)


class Planner:
    """The planner of one query. Not thread-safe; its searches run in a thread pool of its own.

    `clock` gives seconds since 1970.
    """

    def __init__(
        self,
        options: KinesisOptions,
        client: StreamClient,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        limiter: RateLimiter | None = None,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self._options = options
        self._clock = clock
        self._searcher = ShardSearcher(
            client, limiter or RateLimiter(options.planning_calls_per_second), page_limit=options.records_per_call
        )
        self._pool = pool or ThreadPoolExecutor(options.planning_threads, thread_name_prefix="kinesis-plan")
        self._sizes: dict[tuple[str, Position], SearchResult] = {}
        self._said_that_it_waits = False
        self._discovery = ShardDiscovery(client, options.discovery_seconds, clock, sleep)
        self._losses = LossDetector(
            options,
            self._discovery,
            self._now,
            lambda cursors: self._for_each(self._searcher.first_record, cursors),
        )

    @property
    def remembered_shards(self) -> frozenset[str]:
        """The shards that the planner's memory holds: those that are not read to their end."""
        return self._losses.remembered_shards | {shard_id for shard_id, _ in self._sizes}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def latest(self, start: Offset, *, cap: Cap | None = None, ending: Offset | None = None) -> Offset:
        """The end of the batch that starts after `start`; `start` itself if nothing is new.

        cap     the most that the batch may hold, in all shards together
        ending  no shard passes its position in this offset

        A new query at LATEST gets the present tips as its start: its first batch is empty.
        """
        now = self._now()
        graph = self._discovery.graph(start)
        if start.initial == "LATEST":
            return self._tips(graph, now)
        if self._waits_for_start(start, now, ending):
            return start
        evidence = self._discovery.created_again(start)
        if evidence is not None:
            self._report_new_stream(start, evidence)
            # The new stream is read from its start.
            start = replace(start, shards={}, behind={}, losses=start.losses + 1)
        graph = self._discovery.last_listed()
        known = self._positions(start, graph)
        planned = OffsetBuilder(dict(known), {}, start.losses)
        for shard_id in graph.vanished(known):
            # Everything in it has expired. If it was read up to a time within the retention, it was read whole.
            if self._losses.start_is_lost(shard_id, known[shard_id], start, is_there=False):
                self._losses.report_loss(planned, shard_id, known[shard_id], start, None)
            del planned.shards[shard_id]
        for shard_id in graph.retired(known):
            del planned.shards[shard_id]
        self._plan_shards(planned, known, start, graph, cap or Cap(), ending)
        self._forget(planned.shards)

        moved = planned.shards != dict(start.shards) or start.initial is not None
        if not moved and not self._losses.heartbeat_due(start, planned, now) and planned.losses == start.losses:
            return start
        sizes = {
            shard_id: self._sizes[shard_id, end].bytes
            for shard_id, end in planned.shards.items()
            if end != known.get(shard_id) and (shard_id, end) in self._sizes
        }
        return Offset(
            self._options.stream,
            planned.shards,
            now,
            planned.behind,
            bytes=sizes,
            losses=planned.losses,
            stream_created=self._discovery.created_at(),
        )

    def tip(self) -> Offset:
        """The present tip of every listed shard: SHARD_END for closed shards, TRIM_HORIZON for empty ones."""
        now = self._now()
        graph = self._discovery.list_now()
        tips = self._tips(graph, now)
        return replace(tips, shards={**dict.fromkeys(graph.shards, SHARD_END), **tips.shards})

    def tasks(self, start: Offset, end: Offset) -> list[tuple[ShardRange, ...]]:
        """The Spark tasks of a batch, each with its ranges: the records after `start`, up to and including `end`."""
        return group_ranges(self._ranges(start, end), self._options.bytes_per_task)

    def _ranges(self, start: Offset, end: Offset) -> list[ShardRange]:
        if start.initial == "LATEST" or start.to_json() == end.to_json():
            return []
        evidence = self._discovery.created_again(end)
        if evidence is not None:
            # The stream was replaced between the batch's plan and its reading.
            self._report_new_stream(end, evidence)
            return []
        if self._discovery.created_again(start) is not None:
            start = replace(start, shards={}, behind={})
        graph = self._discovery.last_listed()
        found = []
        for part in ranges_between(start, end):
            shard = graph.shards.get(part.shard_id)
            size = self._sizes.get((part.shard_id, part.end))
            found.append(
                replace(
                    part,
                    complete_until=self._losses.complete_until(part.shard_id, part.start, start),
                    retention_hours=self._discovery.retention_hours(),
                    ending_sequence=shard.ending_sequence if shard else None,
                    hash_keys=shard.hash_keys if shard else None,
                    bytes=end.bytes.get(part.shard_id),
                    records=size.records if size else None,
                )
            )
        return found

    # Which shards the batch covers

    def _positions(self, start: Offset, graph: ShardGraph) -> dict[str, Position]:
        """The positions in `start`, and those of the shards that join now."""
        known = dict(start.shards)
        missing = sorted(set(known) - set(graph.shards))
        if start.initial is not None and missing:
            raise SourceConfigurationError(
                f"option 'startingPosition': stream {self._options.stream} has no shard {', '.join(missing)}"
            )
        if start.initial is not None:
            self._check_given_positions(known, graph)
        return known | dict.fromkeys(graph.joining(known), start.default_position)

    def _check_given_positions(self, known: Mapping[str, Position], graph: ShardGraph) -> None:
        """Refuses positions of the option that cannot be this stream's: later they would look like a new stream."""
        for shard_id in graph.reopened(known):
            raise SourceConfigurationError(
                f"option 'startingPosition': shard {shard_id} is open, so SHARD_END is no position in it; give the "
                "last sequence number read, or TRIM_HORIZON"
            )
        for shard_id in graph.starting_after(known):
            raise SourceConfigurationError(
                f"option 'startingPosition': shard {shard_id} starts after {known[shard_id]}, which is a position in "
                "an earlier stream of this name; give TRIM_HORIZON to read the shard from its start"
            )

    def _waits_for_start(self, start: Offset, now: datetime, ending: Offset | None) -> bool:
        """Whether a new query's start time is still to come. GetShardIterator refuses such a time."""
        moment = start.default_position.moment if start.initial is not None else None
        if moment is None or moment <= now:
            return False
        if ending is not None:
            raise SourceConfigurationError(
                f"option 'startingPosition': {start.initial} is in the future, so a query that ends at a fixed "
                "position would read nothing; start earlier, or leave out endingPosition"
            )
        if not self._said_that_it_waits:
            _log.warning(
                "stream %s: option 'startingPosition': %s is in the future; the query reads nothing until then",
                self._options.stream,
                start.initial,
            )
            self._said_that_it_waits = True
        return True

    def _report_new_stream(self, since: Offset, evidence: str) -> None:
        """Raises DataLossError unless loss is allowed: the offset belongs to a stream that is gone."""
        message = (
            f"stream {self._options.stream} was deleted and created again since {since.planned_at}: {evidence}; what "
            "the earlier one still held is lost"
        )
        if self._options.fail_on_data_loss:
            raise DataLossError(f"{message}. Start a new checkpoint, or read the new stream with failOnDataLoss=false")
        _log.warning("%s. Continuing, because failOnDataLoss=false", message)
        self._losses.cursors.clear()

    # Where the batch ends in each shard

    def _plan_shards(
        self,
        planned: OffsetBuilder,
        known: Mapping[str, Position],
        start: Offset,
        graph: ShardGraph,
        cap: Cap,
        ending: Offset | None,
    ) -> None:
        """Sets the end of each readable shard. A fixed ending and a closed shard need no search."""
        to_search: list[str] = []
        to_measure: list[str] = []
        to_close: list[str] = []
        for shard_id in graph.readable(known):
            if shard_id not in planned.shards:
                continue
            target = _target(shard_id, ending)
            if target is not None and target <= known[shard_id]:
                continue
            # After a start time, only a search can tell whether there is anything to read before the target.
            starts_at_time = known[shard_id].moment is not None
            if not cap.is_set and target is not None and target.is_record and not starts_at_time:
                planned.shards[shard_id] = target
                to_measure.append(shard_id)
            elif not cap.is_set and graph.is_closed(shard_id) and target in (None, SHARD_END):
                planned.shards[shard_id] = SHARD_END
                to_close.append(shard_id)
            else:
                to_search.append(shard_id)
        self._losses.check_starts(planned, to_measure + to_close, known, start)
        self._measure(to_measure, known, planned.shards)
        cursors = [self._cursor(shard_id, known[shard_id], start, ending) for shard_id in to_search]
        # A run that ends at `ending` must not take a long stretch without records for its end: exhaustive.
        results = find_ends(self._searcher, cursors, cap, self._for_each, exhaustive=ending is not None)
        for shard_id, found in zip(to_search, results, strict=True):
            self._apply(planned, shard_id, found, known[shard_id], start, graph, ending)
        searched = set(to_search)
        not_searched = [
            shard_id
            for shard_id, position in planned.shards.items()
            if position != SHARD_END and shard_id not in searched
        ]
        self._losses.update_idle_shards(planned, not_searched, start, graph, ending)

    def _for_each(self, call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Calls `call` with each shard's cursor or search, in the pool. Errors name stream, shard and position."""

        def named(item: Cursor | CappedSearch) -> Any:
            try:
                return call(item)
            except SourceError as error:
                where = f"stream {self._options.stream}, shard {item.shard_id}, behind {item.position}"
                raise type(error)(f"{where}: {error}") from error

        return [named(item) for item in items] if len(items) < 2 else list(self._pool.map(named, items))

    def _measure(self, shard_ids: list[str], known: Mapping[str, Position], ends: Mapping[str, Position]) -> None:
        """Notes the sizes of ranges whose ends were not searched, so that small ones can share a task."""
        cursors = [Cursor(shard_id, known[shard_id]) for shard_id in shard_ids]
        for found in self._for_each(lambda cursor: self._searcher.measure(cursor, ends[cursor.shard_id]), cursors):
            if found is not None:
                self._sizes[(found.cursor.shard_id, found.cursor.position)] = found

    def _cursor(self, shard_id: str, position: Position, start: Offset, ending: Offset | None) -> Cursor:
        """Where the search begins: where the last one ended, unless records can have expired since."""
        cursor = self._losses.cursors.get(shard_id)
        may_be_lost = self._losses.start_is_lost(shard_id, position, start, is_there=False)
        if cursor is not None and cursor.position == position and not may_be_lost:
            return cursor
        until = start.complete_until(shard_id) if shard_id in start.shards else None
        if ending is not None and shard_id in start.behind:
            # The time may come from MillisBehindLatest, which is too vague for a run that must read everything.
            until = None
        return Cursor(shard_id, position, empty_until=until.timestamp() if until else 0.0)

    def _apply(
        self,
        planned: OffsetBuilder,
        shard_id: str,
        found: SearchResult,
        position: Position,
        start: Offset,
        graph: ShardGraph,
        ending: Offset | None,
    ) -> None:
        """Takes a search's result into the planned offset, no further than `ending`."""
        planned.observe(shard_id, found)
        if self._losses.start_is_lost(shard_id, position, start, is_there=not found.gone):
            self._losses.report_loss(planned, shard_id, position, start, found.oldest_arrival)
        complete_until = self._losses.complete_until(shard_id, position, start)
        end, until = found.cursor.position, _time(found.complete_until)
        if found.at_tip and graph.is_closed(shard_id):
            # moto never ends a closed shard with a null iterator, but a closed shard's tip is its end.
            end = SHARD_END
        target = _target(shard_id, ending)
        stops_short = ending is not None and target is not None and target < end
        if ending is not None and target is not None and stops_short:
            # The target may be older than the shard's start time: then nothing is left to read.
            nothing_left = position.moment is not None and not 0 < found.first_number <= target.number
            end = position if nothing_left else target
            until = ending.complete_until(shard_id) or complete_until or _time(found.first_arrival)
        elif end == position and not found.at_tip:
            until = max(complete_until or until, until)
        if end == found.cursor.position:
            self._losses.remember(found)
        planned.shards[shard_id] = end
        if end != SHARD_END and (stops_short or not found.at_tip):
            planned.behind[shard_id] = until
        self._sizes[(shard_id, end)] = found

    def _tips(self, graph: ShardGraph, now: datetime) -> Offset:
        """The present tip of each open shard."""
        cursors = [Cursor(shard_id, TRIM_HORIZON) for shard_id in graph.shards if not graph.is_closed(shard_id)]
        found = self._for_each(lambda cursor: self._searcher.find_tip(cursor, exhaustive=True), cursors)
        shards = {each.cursor.shard_id: each.cursor.position for each in found}
        return Offset(self._options.stream, shards, now, stream_created=self._discovery.created_at())

    def _now(self) -> datetime:
        return _time(self._clock())

    def _forget(self, shards: Mapping[str, Position]) -> None:
        """Keeps only what concerns unfinished shards and present ends, so that memory does not grow."""
        self._losses.forget(shards)
        self._sizes = {key: size for key, size in self._sizes.items() if shards.get(key[0]) == key[1]}


def _target(shard_id: str, ending: Offset | None) -> Position | None:
    """The position that the shard must not pass, or None. A shard that `ending` lacks is not read."""
    return None if ending is None else ending.shards.get(shard_id, TRIM_HORIZON)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def group_ranges(ranges: Iterable[ShardRange], bytes_per_task: int) -> list[tuple[ShardRange, ...]]:
    """Groups whole ranges into Spark tasks of at most `bytes_per_task`.

    A larger range, and one of unknown size, has a task of its own; with `bytes_per_task` 0 every range has.
    """
    tasks: list[tuple[ShardRange, ...]] = []
    open_task: list[ShardRange] = []
    size = 0
    for part in ranges:
        if part.bytes is None or part.bytes >= bytes_per_task:
            tasks.append((part,))
            continue
        if open_task and size + part.bytes > bytes_per_task:
            tasks.append(tuple(open_task))
            open_task, size = [], 0
        open_task.append(part)
        size += part.bytes
    if open_task:
        tasks.append(tuple(open_task))
    return tasks
