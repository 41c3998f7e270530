"""The data sources that Spark calls. They pass its calls on to `planner` and `reader`.

Spark calls `initialOffset`, `latestOffset` and `partitions` in a Python process beside the driver, and `read` in the
workers, with a pickled partition. Other processes only create and pickle the source, so botocore, the planner and the
reader are imported when they are first used.

`kinesis` yields records. `kinesis-ranges` plans the same batches and yields one row a task; `RecordsOfTasks` reads the
records that the row names, so that no record passes through the JVM (docs/adr/0015).
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition

from spark_kinesis.offset import Offset, ShardRange, parse_offset
from spark_kinesis.options import KinesisOptions, parse_options

if TYPE_CHECKING:
    from spark_kinesis.batch_limits import Cap
    from spark_kinesis.planner import Planner

try:  # Spark 4.2
    from pyspark.sql.streaming.datasource import (
        ReadAllAvailable,
        ReadMaxBytes,
        ReadMaxRows,
        SupportsTriggerAvailableNow,
    )
except ImportError:  # Spark 4.0, 4.1: no admission control for Python sources
    ReadAllAvailable = ReadMaxBytes = ReadMaxRows = None

    class SupportsTriggerAvailableNow:  # type: ignore[no-redef]
        """Replaces the interface that this Spark lacks."""


COLUMNS = (
    "data binary, shard_id string, sequence_number string, partition_key string, arrival_time timestamp, stream string"
)
TASK = "task"


class KinesisDataSource(DataSource):
    """`spark.readStream.format("kinesis")`: the records of one Kinesis stream, each exactly once per checkpoint."""

    @classmethod
    def name(cls) -> str:
        return "kinesis"

    def schema(self) -> str:
        return COLUMNS

    def streamReader(self, schema: Any) -> KinesisStreamReader:
        options = parse_options(self.options)
        if options.deaggregate:
            from spark_kinesis.kpl import Deaggregator

            Deaggregator()  # raises before the first batch if the package is missing
        return KinesisStreamReader(options)


class ShardTask(InputPartition):
    """One Spark task's ranges."""

    def __init__(self, ranges: tuple[ShardRange, ...]) -> None:
        super().__init__(ranges)
        self.ranges = ranges


class KinesisStreamReader(DataSourceStreamReader, SupportsTriggerAvailableNow):  # type: ignore[misc]
    """Passes Spark's calls to the planner (driver) and to the range reader (workers). Pickles until it has planned."""

    def __init__(self, options: KinesisOptions) -> None:
        self.options = options
        self._planner: Planner | None = None
        self._position: Offset | None = None
        self._ending = options.ending

    # On the driver

    def initialOffset(self) -> dict[str, Any]:
        """Names no record, so it is the same if Spark asks again after batch 0 was planned but not committed."""
        return self.options.initial_offset.to_json()

    def latestOffset(self, start: Any = None, limit: Any = None) -> dict[str, Any]:
        """Where the next batch ends. Spark 4.2 gives its start and limit; 4.0 and 4.1 call without arguments."""
        if start is not None:
            self._position = parse_offset(start, self.options.stream)
        if self.options.ends_at_tip:
            self.prepareForTriggerAvailableNow()
        position = self._position or self.options.initial_offset
        self._position = self.planner.latest(position, cap=self.cap(limit), ending=self._ending)
        return self._position.to_json()

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> Sequence[InputPartition]:
        """The tasks of the batch (start, end].

        Example: from offset 5 to offset 9 in a shard are the records 6 to 9. After a restart, Spark 4.0 and 4.1 first
        pass the last offset as both: an empty batch that tells how far the query has read.
        """
        stream = self.options.stream
        ending = parse_offset(end, stream)
        tasks = self.planner.tasks(parse_offset(start, stream), ending)
        self._position = ending
        return [ShardTask(ranges) for ranges in tasks]

    def getDefaultReadLimit(self) -> Any:
        """The limit of a batch, for Spark 4.2. `latestOffset` applies the caps."""
        options = self.options
        if options.max_records:
            return ReadMaxRows(options.max_records)
        if options.max_bytes or options.max_seconds:
            return ReadMaxBytes(options.max_bytes or 2**62)
        return ReadAllAvailable()

    def prepareForTriggerAvailableNow(self) -> None:
        """Fixes the tip at which the query ends. Spark 4.2 calls it for available-now; later calls change nothing."""
        if self._ending is None:
            self._ending = self.planner.tip()

    def stop(self) -> None:
        if self._planner is not None:
            self._planner.close()

    def cap(self, limit: Any) -> Cap:
        """The cap of one batch: Spark's `limit` on records if there is one, otherwise the options'."""
        from spark_kinesis.batch_limits import Cap

        options = self.options
        if limit is not None and isinstance(limit, ReadAllAvailable):
            return Cap()
        records = limit.max_rows if limit is not None and isinstance(limit, ReadMaxRows) else options.max_records
        return Cap(records, options.max_bytes, options.max_seconds, options.exact_caps)

    @property
    def planner(self) -> Planner:
        if self._planner is None:
            self._planner = self.make_planner()
        return self._planner

    def make_planner(self) -> Planner:
        """A planner on AWS. Tests override it."""
        from spark_kinesis.boto_client import BotoStreamClient
        from spark_kinesis.client import RetryingClient
        from spark_kinesis.planner import Planner

        client = BotoStreamClient(self.options, connections=self.options.planning_threads)
        return Planner(self.options, RetryingClient(client, seconds=self.options.retry_seconds))

    # In the workers

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        assert isinstance(partition, ShardTask)  # noqa: S101 - Spark passes what `partitions` returned
        yield from read_task(self.options, partition)


def read_task(
    options: KinesisOptions, task: ShardTask, counters: Counter[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """A task's records, as Arrow batches of COLUMNS. Raises as `RangeReader.read` does.

    counters  counts the calls to Kinesis that were retried ("retries"), those of them that were throttled
              ("throttles"), and the user records of KPL aggregates that were dropped, because they are sent again
              ("resent")
    """
    from spark_kinesis.boto_client import worker_client
    from spark_kinesis.client import RetryingClient
    from spark_kinesis.reader import RangeReader

    deaggregator = None
    if options.deaggregate:
        from spark_kinesis.kpl import Deaggregator

        deaggregator = Deaggregator(counters)
    reader = RangeReader(
        RetryingClient(worker_client(options), seconds=options.retry_seconds, counters=counters),
        options.stream,
        fail_on_data_loss=options.fail_on_data_loss,
        records_per_call=options.records_per_call,
        deaggregator=deaggregator,
    )
    yield from reader.read_all(task.ranges)


class KinesisRangesDataSource(KinesisDataSource):
    """`format("kinesis-ranges")`: one row a Spark task, `task binary`, for `RecordsOfTasks`. Options as `kinesis`."""

    @classmethod
    def name(cls) -> str:
        return "kinesis-ranges"

    def schema(self) -> str:
        return f"{TASK} binary"

    def streamReader(self, schema: Any) -> KinesisStreamReader:
        super().streamReader(schema)  # checks the options
        return _RangesStreamReader(parse_options(self.options))


class _RangesStreamReader(KinesisStreamReader):
    """Yields the task itself instead of its records."""

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({TASK: pa.array([pickle.dumps(partition)], pa.binary())})


@dataclass(frozen=True)
class RecordsOfTasks:
    """Reads the records that rows of `kinesis-ranges` name, in a Spark worker: takes batches of `task binary`, yields
    batches of COLUMNS.

    Pickles. `counters` and errors are those of `read_task`.
    """

    options: KinesisOptions

    def __call__(
        self, tasks: Iterable[pa.RecordBatch], counters: Counter[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        for batch in tasks:
            for task in batch[TASK].to_pylist():
                # The bytes come from this query's own driver through Spark, as every partition does.
                yield from read_task(self.options, pickle.loads(task), counters)  # noqa: S301
