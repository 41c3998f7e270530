"""The data source as Spark sees it: thin, every decision is made in `planner` and `reader`.

Spark calls `initialOffset`, `latestOffset` and `partitions` in one Python process beside the driver, and `read`
in the workers, with a partition that was pickled on the way. Two more processes of a query only make the source and
pickle it: so botocore, the planner and the reader are imported where they are first used.

`kinesis` yields records. `kinesis-ranges` plans the same batches, but yields what there is to read: one row a task,
which `RecordsOfTasks` reads where the rows are used, so that no record passes through the JVM (docs/adr/0015).
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition

from spark_kinesis.batch_limits import Cap
from spark_kinesis.input_partitions import ShardRange, into_tasks
from spark_kinesis.kpl import Deaggregator
from spark_kinesis.offset import Offset, parse_offset
from spark_kinesis.options import KinesisOptions, parse_options

if TYPE_CHECKING:
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
        """Stands in where Spark has no such interface."""


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
            Deaggregator()  # a missing package is an error here, before the first batch
        return KinesisStreamReader(options)


class ShardTask(InputPartition):
    """One Spark task's ranges."""

    def __init__(self, ranges: tuple[ShardRange, ...]) -> None:
        super().__init__(ranges)
        self.ranges = ranges


class KinesisStreamReader(DataSourceStreamReader, SupportsTriggerAvailableNow):  # type: ignore[misc]
    """Carries Spark's calls to the planner (driver) and to the range reader (workers). Pickles before first use."""

    def __init__(self, options: KinesisOptions) -> None:
        self._options = options
        self._planner: Planner | None = None
        self._position: Offset | None = None
        self._ending = options.ending

    # On the driver

    def initialOffset(self) -> dict[str, Any]:
        """Symbolic, so that it is the same when Spark asks again for a batch 0 that was planned, not committed."""
        return self._options.initial_offset.to_json()

    def latestOffset(self, start: Any = None, limit: Any = None) -> dict[str, Any]:
        """Where the next batch ends. Spark 4.2 says from where and how much; 4.0 and 4.1 call without arguments."""
        if start is not None:
            self._position = parse_offset(start, self._options.stream)
        if self._options.ends_at_tip:
            self.prepareForTriggerAvailableNow()
        position = self._position or self._options.initial_offset
        self._position = self._plan().latest(position, cap=self._cap(limit), ending=self._ending)
        return self._position.to_json()

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> Sequence[InputPartition]:
        """The tasks of the batch (start, end]. A restarted query on 4.0/4.1 first gives its last offset as both."""
        stream = self._options.stream
        ending = parse_offset(end, stream)
        found = self._plan().ranges(parse_offset(start, stream), ending)
        self._position = ending
        return [ShardTask(ranges) for ranges in into_tasks(found, self._options.bytes_per_task)]

    def getDefaultReadLimit(self) -> Any:
        """Spark 4.2 asks how much a batch may hold; the caps themselves are applied in `latestOffset`."""
        options = self._options
        if options.max_records:
            return ReadMaxRows(options.max_records)
        if options.max_bytes or options.max_seconds:
            return ReadMaxBytes(options.max_bytes or 2**62)
        return ReadAllAvailable()

    def prepareForTriggerAvailableNow(self) -> None:
        """Fixes the tip that the query ends at, once. Spark 4.2 calls it for available-now."""
        if self._ending is None:
            self._ending = self._plan().tip()

    def stop(self) -> None:
        if self._planner is not None:
            self._planner.close()

    def _cap(self, limit: Any) -> Cap:
        options = self._options
        if limit is not None and isinstance(limit, ReadAllAvailable):
            return Cap()
        records = limit.max_rows if limit is not None and isinstance(limit, ReadMaxRows) else options.max_records
        return Cap(records, options.max_bytes, options.max_seconds, options.exact_caps)

    def _plan(self) -> Planner:
        if self._planner is None:
            from spark_kinesis.boto_client import BotoStreamClient
            from spark_kinesis.planner import Planner
            from spark_kinesis.retrying_client import RetryingClient

            options = self._options
            client = BotoStreamClient(options, connections=options.planning_threads)
            self._planner = Planner(options, RetryingClient(client, seconds=options.retry_seconds))
        return self._planner

    # In the workers

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        assert isinstance(partition, ShardTask)  # noqa: S101 - Spark passes what `partitions` returned
        yield from read_task(self._options, partition)


def read_task(
    options: KinesisOptions, task: ShardTask, counters: Counter[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """A task's records, as Arrow batches of COLUMNS. Raises as `RangeReader.read` does.

    counters  counts the calls to Kinesis that were retried ("retries") and those of them that were throttled
              ("throttles")
    """
    from spark_kinesis.boto_client import worker_client
    from spark_kinesis.reader import RangeReader
    from spark_kinesis.retrying_client import RetryingClient

    client = RetryingClient(worker_client(options), seconds=options.retry_seconds, counters=counters)
    reader = RangeReader(
        client,
        options.stream,
        fail_on_data_loss=options.fail_on_data_loss,
        records_per_call=options.records_per_call,
        deaggregator=Deaggregator() if options.deaggregate else None,
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
    """Hands a task on instead of reading it."""

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({TASK: pa.array([pickle.dumps(partition)], pa.binary())})


@dataclass(frozen=True)
class RecordsOfTasks:
    """Reads what rows of `kinesis-ranges` name: batches of `task binary` → batches of COLUMNS, in a Spark worker.

    Pickles. `counters` and errors are those of `read_task`.
    """

    options: KinesisOptions

    def __call__(
        self, tasks: Iterable[pa.RecordBatch], counters: Counter[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        for batch in tasks:
            for task in batch[TASK].to_pylist():
                # Its bytes come from this query's own plan, over Spark's channel, as partitions always do.
                yield from read_task(self.options, pickle.loads(task), counters)  # noqa: S301
