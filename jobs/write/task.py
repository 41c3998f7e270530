"""One Spark task's part of a batch: records come in as Arrow, three kinds of files go out in the same pass.

`WriteTask` is given to `DataFrame.mapInArrow`, so a record is read, parsed and written once, without a copy in
Spark's cache; what comes back to the driver is one small report a task. Where a batch has several tasks, `join` makes
one file of what is small.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import TaskContext

from jobs.common.fault_points import fault_point
from jobs.lake.store import lake_at
from jobs.lake.task_report import SequenceRange, TableName, TaskReport, sum_reports
from jobs.schema.record_parser import Parser
from jobs.schema.rejections import Rejection
from jobs.schema.table import TableContract
from jobs.settings.sections import SinkSettings
from jobs.write.processed import ROW_GROUP_BYTES, ROW_GROUP_SHARE, GrowingParquet, SortedParquet, by_partition
from jobs.write.quarantine import quarantine_lines
from jobs.write.raw import GzipLines, by_hour, lines, runs
from jobs.write.rebatch import BYTES, blocks
from jobs.write.rolling_files import Encoder, Part, RollingFiles

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

REPORT_SCHEMA = "report binary"
# Reads the records that Spark's batches only name, and counts the calls that it retried: "retries", "throttles".
ReadRecords = Callable[[Iterator[pa.RecordBatch], Counter[str]], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class WriteTask:
    """Writes the records of one task; pickles, and makes its clients where it runs.

    `batch` is `<query>-<batch>`: it prefixes the files' names and stands in every row.
    """

    lake: str
    batch: str
    contract: TableContract
    sink: SinkSettings
    parser: type[Parser]
    # The batch path writes the same rows to a table of its own, and no raw lines: it reads them from files.
    table: TableName = "processed"
    keeps_raw: bool = True
    stage: str = "transform"
    # Partitions of `table` that do not lie in their plain folder.
    locations: Mapping[str, str] = field(default_factory=dict)
    # None: what Spark hands over is the records themselves. Pickles.
    records: ReadRecords | None = None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Batches of records, or what `records` makes into them → one row of REPORT_SCHEMA: a `TaskReport` as JSON.

        Records have the columns `data binary, shard_id string, sequence_number string, partition_key string,
        arrival_time timestamp`.
        """
        report, _ = self.in_spark(batches, 0)
        yield report_row(msgspec.json.encode(report))

    def in_spark(self, batches: Iterator[pa.RecordBatch], small_file_bytes: int) -> tuple[TaskReport, list[Part]]:
        """What `__call__` does, but for what is smaller than `small_file_bytes` bytes: it is not put, but returned."""
        free_memory_at_once()
        name = f"{self.batch}-{task_number():05d}"
        if self.records is None:
            return self._write(batches, name, small_file_bytes)
        counters = Counter[str]()
        report, parts = self._write(self.records(batches, counters), name, small_file_bytes)
        report.retries, report.throttles = counters["retries"], counters["throttles"]
        return report, parts

    def write(self, batches: Iterator[pa.RecordBatch], name: str) -> TaskReport:
        """Writes all batches of records to files that start with `name`."""
        report, _ = self._write(batches, name, 0)
        return report

    def parquet(self) -> Callable[[BinaryIO], SortedParquet]:
        """Opens a file of `table`."""
        return partial(
            SortedParquet,
            contract=self.contract,
            compression=self.sink.parquet_compression,
            row_group_bytes=min(ROW_GROUP_BYTES, ROW_GROUP_SHARE * self.sink.target_file_bytes),
        )

    def _write(
        self, batches: Iterator[pa.RecordBatch], name: str, small_file_bytes: int
    ) -> tuple[TaskReport, list[Part]]:
        fault_point("task.started")
        lake, report, seconds = lake_at(self.lake), TaskReport(), defaultdict[str, float](float)
        parser = self.parser(self.contract)
        target = self.sink.target_file_bytes
        small_file_bytes = min(small_file_bytes, target)
        gzip = partial(GzipLines, level=self.sink.raw_compression_level, small_file_bytes=small_file_bytes)
        parquet: Callable[[BinaryIO], Encoder] = self.parquet()
        if small_file_bytes:
            parquet = partial(GrowingParquet, parquet=self.parquet(), small_file_bytes=small_file_bytes)
        raw = RollingFiles(lake, "raw", name, gzip, target)
        processed = RollingFiles(lake, self.table, name, parquet, target, self.locations)
        quarantine = RollingFiles(lake, "quarantine", name, gzip, target)
        for records in blocks(batches, min(BYTES, target)):
            clock = time.perf_counter()
            parsed = parser.parse(records["data"])
            clock = _lap(seconds, "parse", clock)
            if self.keeps_raw:
                raw_lines = lines(records["data"])
                for partition, mask in by_hour(records["arrival_time"]):
                    places = [records["shard_id"], records["sequence_number"]]
                    chosen = [part if mask is None else part.filter(mask) for part in (raw_lines, *places)]
                    raw.write(partition, chosen[0], runs(*chosen[1:]))
            clock = _lap(seconds, "raw", clock)
            rows = self._rows(records, parsed.columns, parsed.rejections)
            if rows.num_rows:
                for partition, part in by_partition(rows, self.contract):
                    processed.write(partition, part)
            clock = _lap(seconds, "processed", clock)
            if parsed.rejections:
                rejected = quarantine_lines(records, parsed.rejections, self.batch, self.stage)
                arrival = records["arrival_time"].take(pa.array(sorted(parsed.rejections), pa.int64()))
                for partition, mask in by_hour(arrival):
                    day = partition.partition("/")[0]
                    quarantine.write(day, rejected if mask is None else rejected.filter(mask))
                _lap(seconds, "quarantine", clock)
            report.read += records.num_rows
            report.read_bytes += pc.sum(pc.binary_length(records["data"])).as_py()
            report.rescued += parsed.rescued
            _count(report, records, parsed.rejections)
            fault_point("task.batch_written")
        clock = time.perf_counter()
        for files in (raw, processed, quarantine):
            files.close()
        fault_point("task.files_put")
        _lap(seconds, "finish", clock)
        count_files(report, raw, processed, quarantine)
        report.seconds = {stage: round(spent, 4) for stage, spent in seconds.items()}
        return report, [*raw.parts, *processed.parts, *quarantine.parts]

    def _rows(self, records: pa.RecordBatch, columns: pa.RecordBatch, rejections: Mapping[int, Rejection]) -> pa.Table:
        """The accepted rows: the contract's columns and where each came from."""
        batch = pa.repeat(pa.scalar(self.batch, pa.string()), records.num_rows)
        arrays = {name: columns[name] for name in columns.schema.names}
        arrays |= {name: records[name] for name in ("shard_id", "sequence_number", "arrival_time")} | {"batch": batch}
        partitions = [name for name, _, _ in self.contract.partition_columns]
        rows = pa.table({name: arrays[name] for name in [*partitions, *(n for n, _, _ in self.contract.table_columns)]})
        if rejections:
            accepted = pc.invert(pc.is_in(pa.array(range(records.num_rows)), value_set=pa.array(list(rejections))))
            rows = rows.filter(accepted)
        return rows


def report_row(report: bytes) -> pa.RecordBatch:
    """A task's report, a `TaskReport` as JSON, as the one row of REPORT_SCHEMA that Spark takes to the driver."""
    return pa.record_batch({"report": pa.array([report], pa.binary())})


def collect_reports(reports: DataFrame) -> TaskReport:
    """Runs the tasks behind a frame of REPORT_SCHEMA; their reports, added up."""
    return sum_reports(msgspec.json.decode(row.report, type=TaskReport) for row in reports.collect())


def free_memory_at_once() -> None:
    """Has this process give back what it freed: Arrow's default keeps it, and a worker took 50 MB more."""
    if "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())


def task_number() -> int:
    """Which of its stage's tasks this is; 0 outside Spark."""
    context = TaskContext.get()
    return context.partitionId() if context else 0


def count_files(report: TaskReport, raw: RollingFiles, processed: RollingFiles, quarantine: RollingFiles) -> None:
    """Takes in what was put into the lake."""
    for files in (raw, processed, quarantine):
        report.files += files.written
    report.raw, report.processed, report.quarantined = (
        sum(file.rows for file in files.written) for files in (raw, processed, quarantine)
    )


def _lap(seconds: dict[str, float], stage: str, since: float) -> float:
    now = time.perf_counter()
    seconds[stage] += now - since
    return now


def _count(report: TaskReport, records: pa.RecordBatch, rejections: Mapping[int, Rejection]) -> None:
    """Counts a batch's rejections by reason, and takes in its shards' sequence ranges."""
    for rejection in rejections.values():
        report.reasons[rejection.reason] = report.reasons.get(rejection.reason, 0) + 1
    # A task's records stand in their shard's order, so a shard's first and last row are its range.
    shards = records["shard_id"].dictionary_encode()
    for code, shard in enumerate(shards.dictionary.to_pylist()):
        positions = pc.indices_nonzero(pc.equal(shards.indices, code))
        numbers = records["sequence_number"]
        first, last = positions[0].as_py(), positions[-1].as_py()
        arrived = records["arrival_time"][last].as_py()
        found = SequenceRange(numbers[first].as_py(), numbers[last].as_py(), len(positions), arrived)
        if shard in report.shards:
            report.shards[shard].extend(found)
        else:
            report.shards[shard] = found
