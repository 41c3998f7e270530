"""What Spark does to a source, without Spark: an offset log, a commit log, replays, restarts.

Follows MicroBatchExecution: the end offset is logged before a batch runs; after a restart the last logged batch
is run again unless it was committed; on 4.0/4.1 the reader is told the last logged offset by
`partitions(offset, offset)`.
"""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tenacity import wait_exponential

from spark_kinesis.client import FIRST_PAUSE, LONGEST_PAUSE, RetryingClient
from spark_kinesis.data_source import KinesisStreamReader
from spark_kinesis.kpl import Deaggregator
from spark_kinesis.options import KinesisOptions
from spark_kinesis.planner import Planner
from spark_kinesis.rate_limiter import RateLimiter
from spark_kinesis.reader import RangeReader
from tests.helpers.scripted import ScriptedClient, ScriptedStream, as_time

Row = tuple[str, str, str]


class ScriptedReader(KinesisStreamReader):
    """The reader that Spark calls, on a scripted client.

    deaggregator   splits KPL aggregates, if a test sets it; `counters` are for it
    """

    def __init__(self, options: KinesisOptions, client: ScriptedClient) -> None:
        super().__init__(options)
        self.stream: ScriptedStream = client.stream
        self.counters = Counter[str]()
        self.deaggregator: Deaggregator | None = None
        self.client = RetryingClient(
            client,
            seconds=60,
            sleep=self._sleep,
            clock=lambda: self.stream.now,
            wait=wait_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE),  # no jitter: a test is its seed's
        )

    def _sleep(self, seconds: float) -> None:
        self.stream.now += seconds

    def make_planner(self) -> Planner:
        return Planner(
            self.options,
            self.client,
            clock=lambda: self.stream.now,
            sleep=self._sleep,
            limiter=RateLimiter(10_000, clock=lambda: self.stream.now, sleep=self._sleep),
            pool=_Inline(),
        )

    def read(self, partition: Any) -> Iterator[Any]:
        yield from self._range_reader().read_all(partition.ranges)

    def _range_reader(self) -> RangeReader:
        return RangeReader(
            self.client,
            self.options.stream,
            fail_on_data_loss=self.options.fail_on_data_loss,
            records_per_call=self.options.records_per_call,
            clock=lambda: as_time(self.stream.now),
            sleep=self._sleep,
            prefetch=False,
            deaggregator=self.deaggregator,
        )


class _Inline:
    """A pool that runs in the caller's thread, so that a test's order is its seed's."""

    def map(self, call: Any, items: Any) -> Any:
        return [call(item) for item in items]

    def shutdown(self, **_: Any) -> None:
        return None


class FakeSpark:
    """One query. `rows` holds each batch's rows (shard, sequence number, value), in the order read."""

    def __init__(self, options: KinesisOptions, client: ScriptedClient, *, with_start: bool) -> None:
        self.options = options
        self.client = client
        self.with_start = with_start
        self.offsets: list[str] = []
        self.committed = 0
        self.rows: dict[int, list[Row]] = {}
        self.reader = ScriptedReader(options, client)

    @property
    def planner(self) -> Planner:
        return self.reader.planner

    def restart(self) -> None:
        """A new process: nothing survives but the offset log and the commit log."""
        self.reader.stop()
        self.reader = ScriptedReader(self.options, self.client)
        if self.offsets:
            last = json.loads(self.offsets[-1])
            assert self.reader.partitions(last, last) == []
        if self.committed < len(self.offsets):
            self.run_batch()
            self.commit()

    def start_of(self, batch: int) -> str:
        return self.offsets[batch - 1] if batch else json.dumps(self.reader.initialOffset())

    def plan(self) -> bool:
        """Plans the next batch; False where nothing is new."""
        assert self.committed == len(self.offsets)
        start = self.start_of(len(self.offsets))
        end = self.reader.latestOffset(json.loads(start)) if self.with_start else self.reader.latestOffset()
        if json.dumps(end) == start:
            return False
        self.offsets.append(json.dumps(end))
        return True

    def run_batch(self, *, stop_after: int | None = None) -> list[Row]:
        """Reads the planned batch. A batch that was read before must give the same rows again."""
        batch = len(self.offsets) - 1
        start, end = json.loads(self.start_of(batch)), json.loads(self.offsets[batch])
        rows: list[Row] = []
        for task in self.reader.partitions(start, end):
            for found in self.reader.read(pickle.loads(pickle.dumps(task))):
                for row in found.to_pylist():
                    rows.append((row["shard_id"], row["sequence_number"], row["data"].decode()))
                    if stop_after is not None and len(rows) >= stop_after:
                        return rows
        if batch in self.rows:
            assert sorted(rows) == sorted(self.rows[batch]), "a replay read other records"
        self.rows[batch] = rows
        return rows

    def commit(self) -> None:
        self.committed = len(self.offsets)

    def step(self) -> bool:
        """One trigger."""
        if not self.plan():
            return False
        self.run_batch()
        self.commit()
        return True

    def drain(self, at_most: int = 500) -> None:
        for _ in range(at_most):
            if not self.step():
                return
        raise AssertionError(f"the query does not come to an end: {self.offsets[-2:]}")

    @property
    def values(self) -> list[str]:
        return [value for batch in sorted(self.rows) for _, _, value in self.rows[batch]]


DAY = 24 * 3600
SHARD = "shardId-000000000000"


def query(stream: ScriptedStream, *, with_start: bool = False, **options: Any) -> FakeSpark:
    """A query that starts at the stream's oldest record."""
    given = {"stream": "s", "initial": "TRIM_HORIZON", "discovery_seconds": 0, **options}
    return FakeSpark(KinesisOptions(**given), ScriptedClient(stream), with_start=with_start)


def put(stream: ScriptedStream, count: int, *, every: float = 0.0, key: str = "k", begin: int = 0) -> list[str]:
    """Puts `count` records, one each `every` seconds; their values are consecutive numbers from `begin`."""
    values = [f"{number:06}" for number in range(begin, begin + count)]
    for value in values:
        stream.put(key, value)
        stream.now += every
    return values


def having_read(count: int, **options: Any) -> tuple[ScriptedStream, FakeSpark]:
    """A stream of one shard, and a query that has read the `count` records that are in it."""
    stream = ScriptedStream(1)
    spark = query(stream, **options)
    put(stream, count)
    spark.drain()
    return stream, spark


def reader(client: ScriptedClient, *, seconds: float = 60, **options: Any) -> RangeReader:
    """A worker's reader of the stream, whose pauses take no time."""

    def sleep(pause: float) -> None:
        client.stream.now += pause

    retrying = RetryingClient(client, seconds=seconds, sleep=sleep, clock=lambda: client.stream.now)
    return RangeReader(retrying, "s", clock=lambda: as_time(client.stream.now), sleep=sleep, **options)


def values(batches: Any) -> list[str]:
    """The records' values in Arrow batches."""
    return [bytes(value).decode() for batch in batches for value in batch.column("data").to_pylist()]
