"""One Spark task of a batch: records come in as Arrow; raw, processed and quarantine files go out in one pass.

`WriteTask` is passed to `DataFrame.mapInArrow`, so each record is read, parsed and written once, without a copy in
Spark's cache. The driver gets one small report from each task. If a batch has several tasks, `merge_small_files` merges
their small files.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import TaskContext

from jobs.common.fault_points import fault_point
from jobs.lake.store import lake_at
from jobs.lake.task_report import SequenceRange, TableName, TaskReport, add_counts, decode_report, sum_reports
from jobs.schema.on_fail import count_failed
from jobs.schema.privacy import Salt, privacy_salt
from jobs.schema.record_parser import RecordParser, derive
from jobs.schema.redaction import readable, redacted
from jobs.schema.rejections import Rejection
from jobs.schema.table import TableContract
from jobs.settings.sections import SinkSettings
from jobs.write.decode import decoded
from jobs.write.new_partitions import PartitionGate, PartitionLimit
from jobs.write.processed import (
    ROW_GROUP_BYTES,
    ROW_GROUPS_PER_TARGET,
    GrowingParquet,
    SortedParquet,
    split_by_partition,
)
from jobs.write.quarantine import quarantine_lines
from jobs.write.raw import GzipLines, record_runs, split_by_hour, to_lines
from jobs.write.rebatch import MAX_BYTES, rebatch
from jobs.write.rolling_files import FileEncoder, RollingFiles, SmallFile

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

REPORT_SCHEMA = "report binary"
# Reads the records that Spark's batches only name. Counts the calls that it repeated ("retries", "throttles"), and user
# records of KPL aggregates that it dropped because they were sent again ("resent").
ReadRecords = Callable[[Iterable[pa.RecordBatch], Counter[str]], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class WriteTask:
    """Writes the records of one task. It is pickled to the worker, and creates its clients there.

    batch       `<query>-<batch>`: the start of the files' names, and the column `batch` of every row
    table       the table that accepted rows are written to; `processed_batch` for the batch path
    write_raw   whether raw lines are written; the batch path reads its records from such files
    stage       the column `stage` of quarantine
    locations   folders of moved partitions of `table`
    records     reads the records that Spark's batches name; None: the batches are the records
    limit       bounds the new partitions; None: no bound
    first_task  number of the first task in file names
    salt        of private columns; None: from the environment, if the contract needs one
    """

    lake: str
    batch: str
    contract: TableContract
    sink: SinkSettings
    table: TableName = "processed"
    write_raw: bool = True
    stage: str = "transform"
    locations: Mapping[str, str] = field(default_factory=dict)
    records: ReadRecords | None = None
    limit: PartitionLimit | None = None
    first_task: int = 0
    salt: Salt | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # On the driver: the task is pickled with its salt.
        if self.salt is None:
            object.__setattr__(self, "salt", privacy_salt(self.contract.columns))

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Writes the task's records; yields one row of REPORT_SCHEMA, a `TaskReport` as JSON.

        Records have the columns `data binary, shard_id string, sequence_number string, partition_key string,
        arrival_time timestamp`.
        """
        report, _ = self.run(batches)
        yield report_row(msgspec.json.encode(report))

    def run(self, batches: Iterable[pa.RecordBatch], small_file_bytes: int = 0) -> tuple[TaskReport, list[SmallFile]]:
        """Writes the task's records, except files smaller than `small_file_bytes`: these are returned."""
        return_memory_to_system()
        name = f"{self.batch}-{self.first_task + task_number():05d}"
        if self.records is None:
            return self._write(batches, name, small_file_bytes)
        counters = Counter[str]()
        report, small_files = self._write(self.records(batches, counters), name, small_file_bytes)
        report.retries, report.throttles = counters["retries"], counters["throttles"]
        report.resent = counters["resent"]
        return report, small_files

    def write(self, batches: Iterable[pa.RecordBatch], name: str) -> TaskReport:
        """Writes batches of records into files whose names start with `name`."""
        report, _ = self._write(batches, name, 0)
        return report

    def _write(
        self, batches: Iterable[pa.RecordBatch], name: str, small_file_bytes: int
    ) -> tuple[TaskReport, list[SmallFile]]:
        fault_point("task.started")
        output = _TaskOutput(self, name, small_file_bytes)
        blocks = redacted(decoded(batches, self.contract), self.contract, self.salt)
        for records in rebatch(blocks, min(MAX_BYTES, self.sink.target_file_bytes)):
            output.write(records)
            fault_point("task.batch_written")
        return output.close()

    def parquet_encoder(self) -> Callable[[BinaryIO], SortedParquet]:
        """Opens the encoder of a file of `table`."""
        return partial(
            SortedParquet,
            contract=self.contract,
            compression=self.sink.parquet_compression,
            row_group_bytes=min(ROW_GROUP_BYTES, ROW_GROUPS_PER_TARGET * self.sink.target_file_bytes),
        )


class _TaskOutput:
    """The files and the report of a task that is being written."""

    def __init__(self, task: WriteTask, name: str, small_file_bytes: int) -> None:
        self._task = task
        self._parser = RecordParser(readable(task.contract), task.salt)
        self._report = TaskReport()
        if task.salt is not None and task.contract.raw == "redacted":
            self._report.redacted_with = task.salt.fingerprint
        self._seconds = defaultdict[str, float](float)
        lake, target = lake_at(task.lake), task.sink.target_file_bytes
        small_file_bytes = min(small_file_bytes, target)
        gzip = partial(GzipLines, level=task.sink.raw_compression_level, small_file_bytes=small_file_bytes)
        parquet: Callable[[BinaryIO], FileEncoder] = task.parquet_encoder()
        if small_file_bytes:
            parquet = partial(GrowingParquet, parquet=task.parquet_encoder(), small_file_bytes=small_file_bytes)
        self._raw = RollingFiles(lake, "raw", name, gzip, target)
        self._processed = RollingFiles(lake, task.table, name, parquet, target, task.locations)
        self._quarantine = RollingFiles(lake, "quarantine", name, gzip, target)
        self._gate = PartitionGate(task.limit, lake, task.batch, name) if task.limit else None

    def write(self, records: pa.RecordBatch) -> None:
        """Writes a block of records to all three tables, and counts them."""
        with self._measured("parse"):
            parsed = self._parser.parse(records["data"])
        with self._measured("raw"):
            if self._task.write_raw:
                self._write_raw(records)
        with self._measured("processed"):
            refused = self._write_processed(records, parsed.columns, parsed.rejections)
            positions = [at for each in refused.values() for at in each]
            if refused and self._gate:
                unnamed = parsed.columns[self._task.contract.rescued_column].take(pa.array(positions, pa.int64()))
                parsed.rescued -= len(unnamed) - unnamed.null_count
                parsed.rejections.update(self._gate.refuse(records, refused))
        if parsed.rejections:
            with self._measured("quarantine"):
                self._write_quarantine(records, parsed.rejections)
        self._report.read += records.num_rows
        self._report.read_bytes += pc.sum(pc.binary_length(records["data"])).as_py()
        self._report.rescued += parsed.rescued
        for rejection in parsed.rejections.values():
            self._report.reasons[rejection.reason] = self._report.reasons.get(rejection.reason, 0) + 1
        if parsed.failed:
            others = [*parsed.rejections, *positions]
            add_counts(self._report.nulled, count_failed(parsed.failed, others, "null"))
            add_counts(self._report.warned, count_failed(parsed.failed, others, "warn"))
        _add_ranges(self._report.shards, records)

    def close(self) -> tuple[TaskReport, list[SmallFile]]:
        """Puts the open files into the lake; returns the report and the files that stayed small."""
        with self._measured("finish"):
            for files in (self._raw, self._processed, self._quarantine):
                files.close()
            self._report.new_partitions = self._gate.close() if self._gate else None
            fault_point("task.files_put")
        add_files(self._report, self._raw, self._processed, self._quarantine)
        self._report.seconds = {stage: round(seconds, 4) for stage, seconds in self._seconds.items()}
        return self._report, [
            *self._raw.small_files,
            *self._processed.small_files,
            *self._quarantine.small_files,
        ]

    def _write_raw(self, records: pa.RecordBatch) -> None:
        columns = [to_lines(records["data"]), records["shard_id"], records["sequence_number"]]
        for partition, mask in split_by_hour(records["arrival_time"]):
            lines, shards, sequences = [column if mask is None else column.filter(mask) for column in columns]
            self._raw.write(partition, lines, record_runs(shards, sequences))

    def _write_processed(
        self, records: pa.RecordBatch, columns: pa.RecordBatch, rejections: Mapping[int, Rejection]
    ) -> dict[str, list[int]]:
        """Writes the accepted rows: the contract's columns, and where each record came from.

        Returns the positions of the records, by partition, that the limit of new partitions keeps out.
        """
        contract = self._task.contract
        arrays = {name: columns[name] for name in columns.schema.names}
        arrays |= {name: records[name] for name in ("shard_id", "sequence_number", "arrival_time")}
        arrays |= {column.column: records[str(column.metadata)] for column in contract.metadata_columns}
        for column in contract.late_columns:
            derive(column, arrays, records.num_rows)
        arrays["batch"] = pa.repeat(pa.scalar(self._task.batch, pa.string()), records.num_rows)
        names = [name for name, _, _ in (*contract.partition_columns, *contract.table_columns)]
        rows = pa.table({name: arrays[name] for name in names})
        accepted: pa.Array | None = None
        if rejections:
            rejected = pa.array(list(rejections))
            mask = pc.invert(pc.is_in(pa.array(range(records.num_rows)), value_set=rejected))
            rows, accepted = rows.filter(mask), pc.indices_nonzero(mask)
        refused: dict[str, list[int]] = {}
        if rows.num_rows:
            for partition, part, positions in split_by_partition(rows, contract):
                if self._gate is None or self._gate.admits(partition):
                    self._processed.write(partition, part)
                else:
                    refused[partition] = (positions if accepted is None else accepted.take(positions)).to_pylist()
        return refused

    def _write_quarantine(self, records: pa.RecordBatch, rejections: Mapping[int, Rejection]) -> None:
        lines = quarantine_lines(records, rejections, self._task.batch, self._task.stage)
        arrival = records["arrival_time"].take(pa.array(sorted(rejections), pa.int64()))
        for partition, mask in split_by_hour(arrival):
            day = partition.partition("/")[0]
            self._quarantine.write(day, lines if mask is None else lines.filter(mask))

    @contextmanager
    def _measured(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[stage] += time.perf_counter() - started


def report_row(report: bytes) -> pa.RecordBatch:
    """A `TaskReport` as JSON, as one row of REPORT_SCHEMA."""
    return pa.record_batch({"report": pa.array([report], pa.binary())})


def collect_reports(reports: DataFrame) -> TaskReport:
    """Runs the tasks of a DataFrame of REPORT_SCHEMA; returns the sum of their reports."""
    return sum_reports(decode_report(row.report) for row in reports.collect())


def return_memory_to_system() -> None:
    """Has Arrow return freed memory to the system at once. Its default allocator keeps it: 50 MB more a worker."""
    if "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())


def task_number() -> int:
    """The number of this task in its stage, from 0; 0 outside Spark."""
    context = TaskContext.get()
    return context.partitionId() if context else 0


def add_files(report: TaskReport, raw: RollingFiles, processed: RollingFiles, quarantine: RollingFiles) -> None:
    """Adds the files that are in the lake to a task's report, and their rows to its counters."""
    for files in (raw, processed, quarantine):
        report.files += files.written
    report.raw, report.processed, report.quarantined = (
        sum(file.rows for file in files.written) for files in (raw, processed, quarantine)
    )


def _add_ranges(ranges: dict[str, SequenceRange], records: pa.RecordBatch) -> None:
    """Extends each shard's range by its records. These are in the shard's order, so the first and last bound them."""
    numbers, arrivals = records["sequence_number"], records["arrival_time"]
    shards = records["shard_id"].dictionary_encode()
    for code, shard in enumerate(shards.dictionary.to_pylist()):
        positions = pc.indices_nonzero(pc.equal(shards.indices, code))
        first, last = positions[0].as_py(), positions[-1].as_py()
        found = SequenceRange(numbers[first].as_py(), numbers[last].as_py(), len(positions), arrivals[last].as_py())
        if shard in ranges:
            ranges[shard].extend(found)
        else:
            ranges[shard] = found
