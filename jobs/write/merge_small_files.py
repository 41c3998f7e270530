"""One file a partition, where each of a batch's tasks has too little for a file of its own (docs/adr/0018).

`write_batch` runs a batch. With one task, that writes its files and all is done. With several, each puts what is large
enough and hands on the rest as rows of PARTS, through Spark's shuffle; `JoinTask` gets all that there is for some of
the partitions, and writes it.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pyarrow as pa
from pyspark.sql import DataFrame

from jobs.common.fault_points import fault_point
from jobs.lake.store import lake_at
from jobs.lake.task_report import RecordRun, TableName, TaskReport
from jobs.write.processed import rows_of_part
from jobs.write.raw import GzipMembers
from jobs.write.rolling_files import Part, RollingFiles
from jobs.write.task import (
    REPORT_SCHEMA,
    WriteTask,
    collect_reports,
    count_files,
    free_memory_at_once,
    report_row,
    task_number,
)

# place: `<table>/<partition>/`, or none in the row of a task's report. A part's first row (chunk 0) is its _Heading,
# those that follow are its bytes.
PARTS = "place string, task int, number int, chunk int, body binary"
_SCHEMA = pa.schema(
    [
        ("place", pa.string()),
        ("task", pa.int32()),
        ("number", pa.int32()),
        ("chunk", pa.int32()),
        ("body", pa.binary()),
    ]
)
_REPORT = ""
_CHUNK_BYTES = 256 * 1024


class _Heading(msgspec.Struct):
    kind: TableName
    partition: str
    rows: int
    runs: tuple[RecordRun, ...]


def write_batch(rows: DataFrame, task: WriteTask) -> TaskReport:
    """Writes a micro-batch; what was written, added up."""
    tasks = rows.rdd.getNumPartitions() if task.sink.small_file_bytes else 1
    if tasks > 1:
        spark = rows.sparkSession
        at_once = min(tasks, spark.sparkContext.defaultParallelism)
        # There is nothing to plan anew between the stages. The query has a session of its own.
        spark.conf.set("spark.sql.adaptive.enabled", "false")
        parts = rows.mapInArrow(WriteParts(task), PARTS).repartition(at_once, "place")
        return collect_reports(parts.mapInArrow(JoinTask(task, tasks), REPORT_SCHEMA))
    return collect_reports(rows.mapInArrow(task, REPORT_SCHEMA))


@dataclass(frozen=True)
class WriteParts:
    """A task's records → files of the lake; its report and its parts, as PARTS."""

    write: WriteTask

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        report, parts = self.write.in_spark(batches, self.write.sink.small_file_bytes)
        task = task_number()
        yield _row(_REPORT, task, 0, 0, msgspec.json.encode(report))
        for part in parts:
            yield from rows_of(part, task)


def rows_of(part: Part, task: int) -> Iterator[pa.RecordBatch]:
    """A part as rows of PARTS."""
    place = f"{part.kind}/{part.partition}/"
    heading = _Heading(part.kind, part.partition, part.rows, part.runs)
    yield _row(place, task, part.number, 0, msgspec.json.encode(heading))
    part.spool.seek(part.start)
    for chunk, begin in enumerate(range(0, part.size, _CHUNK_BYTES), 1):
        yield _row(place, task, part.number, chunk, part.spool.read(min(_CHUNK_BYTES, part.size - begin)))


def _row(place: str, task: int, number: int, chunk: int, body: bytes) -> pa.RecordBatch:
    return pa.record_batch([[place], [task], [number], [chunk], [body]], schema=_SCHEMA)


@dataclass(frozen=True)
class JoinTask:
    """Rows of PARTS → files, and a row of REPORT_SCHEMA for each task before and for this one.

    `tasks`: how many there were before; the files are named as the next one's. Rows may come in any order, and a
    partition's in any of these tasks: what is written of them is the same.
    """

    write: WriteTask
    tasks: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        free_memory_at_once()
        with _Spool() as parts:
            for batch in batches:
                for row in range(batch.num_rows):
                    place, task, number, chunk = (batch[name][row].as_py() for name in _SCHEMA.names[:-1])
                    body = batch["body"][row].as_buffer()
                    if place == _REPORT:
                        yield report_row(body.to_pybytes())
                    else:
                        parts.add(place, (task, number), chunk, body)
            if parts.places:
                report = self._join(parts, f"{self.write.batch}-{self.tasks:05d}")
                yield report_row(msgspec.json.encode(report))

    def _join(self, parts: _Spool, name: str) -> TaskReport:
        fault_point("join.started")
        begun, lake, target = time.perf_counter(), lake_at(self.write.lake), self.write.sink.target_file_bytes
        raw, quarantine = (RollingFiles(lake, kind, name, GzipMembers, target) for kind in ("raw", "quarantine"))
        processed = RollingFiles(lake, self.write.table, name, self.write.parquet(), target, self.write.locations)
        for place in sorted(parts.places):
            for heading, body in parts.of(place):
                if heading.kind == self.write.table:
                    for rows in rows_of_part(pa.py_buffer(body)):
                        processed.write(heading.partition, rows)
                else:
                    members = raw if heading.kind == "raw" else quarantine
                    members.write(heading.partition, (heading.rows, body), heading.runs)
            for files in (raw, processed, quarantine):
                files.close()
        fault_point("join.files_put")
        report = TaskReport(seconds={"join": round(time.perf_counter() - begun, 4)})
        count_files(report, raw, processed, quarantine)
        return report


class _Spool:
    """Parts on this machine's disk, until all rows have come: Spark's shuffle brings them in any order."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed where the `with` block ends
        # Place → (task, number) → chunk → where its bytes are.
        self.places: dict[str, dict[tuple[int, int], dict[int, tuple[int, int]]]] = defaultdict(
            lambda: defaultdict(dict)
        )

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, place: str, part: tuple[int, int], chunk: int, body: pa.Buffer) -> None:
        self.places[place][part][chunk] = (self._file.tell(), body.size)
        self._file.write(body)

    def of(self, place: str) -> Iterator[tuple[_Heading, bytes]]:
        """The parts of a place, by task and number; one at a time in memory."""
        for _, chunks in sorted(self.places[place].items()):
            heading, *bodies = (self._read(*chunks[chunk]) for chunk in sorted(chunks))
            yield msgspec.json.decode(heading, type=_Heading), b"".join(bodies)

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)
