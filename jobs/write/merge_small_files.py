"""Merges the small files of a batch's tasks, so that a partition gets one file (docs/adr/0018).

`write_batch` runs a batch. With one task, that task writes all files. With several, each task writes its large files
and returns its small ones as rows of CHUNKS. Spark's shuffle brings all chunks of a partition to one `MergeTask`, which
merges and writes them.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import msgspec
import pyarrow as pa
from pyspark.sql import DataFrame

from jobs.common.fault_points import fault_point
from jobs.lake.store import lake_at
from jobs.lake.task_report import RecordRun, TableName, TaskReport
from jobs.write.new_partitions import HeldRecords, add_second_pass, admitted
from jobs.write.processed import read_small_file
from jobs.write.raw import GzipMembers
from jobs.write.rolling_files import RollingFiles, SmallFile
from jobs.write.task import (
    REPORT_SCHEMA,
    WriteTask,
    add_files,
    collect_reports,
    report_row,
    return_memory_to_system,
    task_number,
)

# folder: `<table>/<partition>/`, or "" for the row that holds a task's report. Chunk 0 of a small file is its _Header;
# the following chunks are its bytes.
CHUNKS = "folder string, task int, number int, chunk int, body binary"
CHUNK_BYTES = 256 * 1024
_SCHEMA = pa.schema(
    [
        ("folder", pa.string()),
        ("task", pa.int32()),
        ("number", pa.int32()),
        ("chunk", pa.int32()),
        ("body", pa.binary()),
    ]
)
_REPORT = ""


class _Header(msgspec.Struct):
    kind: TableName
    partition: str
    rows: int
    runs: tuple[RecordRun, ...]


_decode = msgspec.json.Decoder(_Header).decode


def write_batch(rows: DataFrame, task: WriteTask) -> TaskReport:
    """Writes a micro-batch; returns the sum of its tasks' reports.

    With a limit of new partitions, records may be held back: then a second pass writes them.
    """
    tasks = rows.rdd.getNumPartitions() if task.sink.small_file_bytes or task.limit else 1
    if task.limit is None:
        return _write(rows, task, tasks)
    # The other half of the limit is for the held partitions with the most records, so that nonsense does not fill it.
    first = replace(task, limit=replace(task.limit, share=task.limit.limit // (2 * tasks)))
    report = _write(rows, first, tasks)
    new = report.new_partitions
    if new is None or not new.files:
        return report
    fault_point("held.put")
    files = tuple(new.files)
    second = replace(
        task,
        write_raw=False,
        records=HeldRecords(task.lake, files),
        limit=replace(task.limit, admitted=admitted(new, task.limit.limit)),
        first_task=tasks + 1,  # merged files have the number `tasks`
    )
    held = rows.sparkSession.range(0, len(files), 1, min(len(files), rows.sparkSession.sparkContext.defaultParallelism))
    report = add_second_pass(report, _write(held, second, held.rdd.getNumPartitions()))
    fault_point("held.written")
    lake_at(task.lake).delete(files)
    fault_point("held.deleted")
    return report


def _write(rows: DataFrame, task: WriteTask, tasks: int) -> TaskReport:
    if tasks == 1 or not task.sink.small_file_bytes:
        return collect_reports(rows.mapInArrow(task, REPORT_SCHEMA))
    spark = rows.sparkSession
    merge_tasks = min(tasks, spark.sparkContext.defaultParallelism)
    # Adaptive execution has nothing to improve here. The query has a session of its own, so nothing else is affected.
    spark.conf.set("spark.sql.adaptive.enabled", "false")
    chunks = rows.mapInArrow(WriteLargeFiles(task), CHUNKS).repartition(merge_tasks, "folder")
    return collect_reports(chunks.mapInArrow(MergeTask(task, tasks), REPORT_SCHEMA))


@dataclass(frozen=True)
class WriteLargeFiles:
    """First stage: writes a task's large files; returns its report and its small files as rows of CHUNKS."""

    write: WriteTask

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        report, small_files = self.write.run(batches, self.write.sink.small_file_bytes)
        task = task_number()
        yield _row(_REPORT, task, 0, 0, msgspec.json.encode(report))
        for file in small_files:
            yield from _chunks(file, task)


def _chunks(file: SmallFile, task: int) -> Iterator[pa.RecordBatch]:
    """A small file as rows of CHUNKS."""
    folder = f"{file.kind}/{file.partition}/"
    header = _Header(file.kind, file.partition, file.rows, file.runs)
    yield _row(folder, task, file.number, 0, msgspec.json.encode(header))
    file.spool.seek(file.start)
    for chunk, start in enumerate(range(0, file.size, CHUNK_BYTES), 1):
        yield _row(folder, task, file.number, chunk, file.spool.read(min(CHUNK_BYTES, file.size - start)))


def _row(folder: str, task: int, number: int, chunk: int, body: bytes) -> pa.RecordBatch:
    return pa.record_batch([[folder], [task], [number], [chunk], [body]], schema=_SCHEMA)


@dataclass(frozen=True)
class MergeTask:
    """Second stage: merges small files; returns the reports of the first stage's tasks and its own (REPORT_SCHEMA).

    `tasks`: the number of tasks in the first stage. Example: with 4, they are named 00000 to 00003 and merged files
    00004. The bytes written do not depend on the order in which rows arrive, or on which MergeTask gets a partition.
    """

    write: WriteTask
    tasks: int

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return_memory_to_system()
        with _Spool() as spool:
            for batch in batches:
                for row in range(batch.num_rows):
                    folder, task, number, chunk = (batch[name][row].as_py() for name in _SCHEMA.names[:-1])
                    body = batch["body"][row].as_buffer()
                    if folder == _REPORT:
                        yield report_row(body.to_pybytes())
                    else:
                        spool.add(folder, (task, number), chunk, body)
            if spool.folders:
                report = self._merge(spool, f"{self.write.batch}-{self.write.first_task + self.tasks:05d}")
                yield report_row(msgspec.json.encode(report))

    def _merge(self, spool: _Spool, name: str) -> TaskReport:
        fault_point("join.started")
        started, lake, target = time.perf_counter(), lake_at(self.write.lake), self.write.sink.target_file_bytes
        raw, quarantine = (RollingFiles(lake, kind, name, GzipMembers, target) for kind in ("raw", "quarantine"))
        processed = RollingFiles(
            lake, self.write.table, name, self.write.parquet_encoder(), target, self.write.locations
        )
        for folder in sorted(spool.folders):
            for header, body in spool.small_files(folder):
                if header.kind == self.write.table:
                    for rows in read_small_file(pa.py_buffer(body)):
                        processed.write(header.partition, rows)
                else:
                    members = raw if header.kind == "raw" else quarantine
                    members.write(header.partition, (header.rows, body), header.runs)
            for files in (raw, processed, quarantine):
                files.close()
        fault_point("join.files_put")
        report = TaskReport(seconds={"join": round(time.perf_counter() - started, 4)})
        add_files(report, raw, processed, quarantine)
        return report


class _Spool:
    """Chunks on this machine's disk until all have arrived: Spark's shuffle brings them in any order."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the `with` block ends
        # By folder, by (task, number) of a small file, by chunk: (offset, size) in the spool.
        self.folders: dict[str, dict[tuple[int, int], dict[int, tuple[int, int]]]] = defaultdict(
            lambda: defaultdict(dict)
        )

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, folder: str, small_file: tuple[int, int], chunk: int, body: pa.Buffer) -> None:
        self.folders[folder][small_file][chunk] = (self._file.tell(), body.size)
        self._file.write(body)

    def small_files(self, folder: str) -> Iterator[tuple[_Header, bytes]]:
        """A folder's small files by task and number, one at a time in memory."""
        for _, chunks in sorted(self.folders[folder].items()):
            header, *bodies = (self._read(*chunks[chunk]) for chunk in sorted(chunks))
            yield _decode(header), b"".join(bodies)

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)
