"""The streaming job without Spark and without AWS: a scripted stream, a checkpoint and a lake in folders.

The source, the alignment of checkpoint and ledger, the write task, the exactly-once protocol and the Delta commits are
the job's own. What Spark does with its checkpoint follows MicroBatchExecution: `populateStartOffsets` at the start, the
offsets before a batch, the commit after it.
"""

from __future__ import annotations

import io
import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow.parquet as pq

from jobs.catalog.check import CatalogCheck
from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import LakeTable, stream_tables
from jobs.lake.delta import active_files, open_delta
from jobs.lake.lease import Lease
from jobs.lake.ledger import LedgerEntry
from jobs.lake.store import FolderLake
from jobs.lake.task_report import TaskReport
from jobs.schema.table import load_contract
from jobs.settings.settings import load_settings
from jobs.stream.checkpoint import Checkpoint
from jobs.stream.delta_commits import DeltaCommitter
from jobs.stream.micro_batch import MicroBatchWriter
from jobs.stream.resume import StartFrom, align_checkpoint
from jobs.write.task import WriteTask
from spark_kinesis.options import KinesisOptions
from tests.helpers.fake_spark import ScriptedReader
from tests.helpers.lakes import record
from tests.helpers.scripted import ScriptedClient, ScriptedStream

if TYPE_CHECKING:
    from mypy_boto3_glue import GlueClient

STREAM = "scripted"
# Where a run can be killed, in the order of a batch.
PLANNED, WRITTEN, REGISTERED, FINAL = KILLS = ("planned", "written", "registered", "final")
_TRAVEL_TIMES = load_contract("travel_times.yaml")


class KilledError(BaseException):
    """The process ends here: nothing after this line runs."""


class AcceptingCatalog:
    """Takes every registration, for tests in which the catalog does not matter."""

    def __init__(self, on_register: Callable[[], None]) -> None:
        self._on_register = on_register

    def register(self, table: str, partitions: Iterable[str], locations: Mapping[str, str] | None = None) -> int:
        self._on_register()
        return len(list(partitions))

    def refused(self, table: str, partitions: Iterable[str]) -> list[str]:
        return []


class StoppableCatalog(GlueCatalog):
    """The job's own catalog. `on_register` is called after a registration."""

    on_register: Callable[[], None]

    def register(self, table: str, partitions: Iterable[str], locations: Mapping[str, str] | None = None) -> int:
        found = super().register(table, partitions, locations)
        self.on_register()
        return found


class HeldLease:
    """A lease that nobody contests. `after_crash`: whether the job before may have died within a batch."""

    def __init__(self, after_crash: bool) -> None:
        self.after_crash = after_crash

    def check(self) -> None:
        """Held."""

    def mark_clean(self) -> None:
        self.after_crash = False


class CheckpointedJob:
    """One job, with its checkpoint and its lake in folders of `folder`, on a scripted stream.

    Each `run` is a process of its own: nothing survives in memory.
    """

    def __init__(
        self, stream: ScriptedStream, folder: Path, table_format: str = "parquet", glue: GlueClient | None = None
    ) -> None:
        """`glue`: None if the catalog does not matter. Otherwise a run also checks and repairs it, as the job does."""
        self.stream = stream
        self._glue = glue
        self.folder = folder
        self.delta = table_format == "delta"
        # The arrival time from which on the stream still has all records; None: their loss is accepted.
        self.kept_since: datetime | None = None
        self.options = KinesisOptions(stream=STREAM, initial="TRIM_HORIZON", discovery_seconds=0, max_records=7)
        self.settings = load_settings(
            None,
            [
                f"lake={folder / 'lake'}",
                f"stream.name={STREAM}",
                f"sink.format={table_format}",
                f"database={re.sub('[^a-z0-9]', '_', folder.name.lower())}",
            ],
        )

    @property
    def lake(self) -> FolderLake:
        return FolderLake(str(self.folder / "lake"))

    @property
    def _clean(self) -> Path:
        """Is there if the last run ended between two batches. In the lake, as the real lease is."""
        return self.folder / "lake" / "_claims" / "clean"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def _tables(self) -> list[LakeTable]:
        return list(stream_tables(_TRAVEL_TIMES, self.settings.sink.format))

    def knows_nothing(self) -> bool:
        """Whether neither the checkpoint nor the lake tells of records that an earlier run has read or planned.

        An empty file does not, and neither does version 0 of the Delta table: it has no rows, and is there before the
        first batch is planned.
        """
        places = (self.checkpoint / "offsets", self.checkpoint / "commits", self.folder / "lake")
        empty_table = self.folder / "lake" / "processed" / "_delta_log" / "00000000000000000000.json"
        files = (each for place in places for each in place.rglob("*") if each.is_file() and each != empty_table)
        return not any(each.stat().st_size or each.parent.name == "_claims" for each in files)

    def unregistered(self) -> set[str]:
        """`table/partition` of the partitions with files that the catalog does not name where their files are."""
        assert self._glue is not None
        catalog = GlueCatalog(self._glue, self.settings.database, self.settings.lake)
        catalog.ensure_tables(self._tables)
        lake = self.lake
        folders = {path.rpartition("/")[0] for table in self._tables for path, _ in lake.list(f"{table.name}/")}
        registered = {
            f"{table.name}/{partition}"
            for table in self._tables
            for partition, uri in catalog.locations(table.name).items()
            if uri == f"file://{lake.uri}/{table.name}/{partition}/"
        }
        return folders - registered

    def put(self, *numbers: int) -> None:
        """Puts a record for each number. `rows` gives the numbers back."""
        for number in numbers:
            self.stream.put(f"key-{number % 8}", record(n=number).decode())

    def rows(self) -> list[int]:
        """The numbers of all rows that a reader of the processed table sees, in order."""
        lake = self.lake
        if self.delta:
            table = open_delta(f"{lake.uri}/processed")
            paths = [] if table is None else [path for _, path, _ in active_files(table)]
        else:
            paths = [path for path, _ in lake.list("processed/")]
        found = (pq.read_table(io.BytesIO(lake.get(path) or b""), columns=["rescued_data"]) for path in paths)
        return sorted(json.loads(text.as_py())["n"] for table in found for text in table["rescued_data"])

    def run(
        self,
        start_from: StartFrom | None = None,
        *,
        batches: int | None = None,
        kill: str | None = None,
        before_batch: Callable[[], None] = lambda: None,
    ) -> list[LedgerEntry]:
        """Runs the job until it has read everything, or for `batches` batches; returns the entries that it wrote.

        `kill`: one of KILLS; the first batch that is not skipped ends there, as by kill -9.
        `before_batch` is called between a batch's plan and its writing.
        """
        query, written, lake = _Query(self.checkpoint), list[LedgerEntry](), self.lake
        lease = HeldLease(after_crash=not self._clean.exists())
        self._clean.unlink(missing_ok=True)
        store = Checkpoint(FolderLake(str(self.checkpoint)))

        def killed_at(place: str) -> None:
            if kill == place:
                raise KilledError(place)

        def on_batch(entry: LedgerEntry) -> None:
            written.append(entry)
            killed_at(FINAL)

        catalog: Any = AcceptingCatalog(lambda: killed_at(REGISTERED))
        if self._glue is not None:
            catalog = StoppableCatalog(self._glue, self.settings.database, self.settings.lake)
            catalog.on_register = lambda: killed_at(REGISTERED)
        align_checkpoint(
            store, lake, STREAM, start_from, after_crash=lease.after_crash, kept_since=lambda: self.kept_since
        )
        if self._glue is not None:
            catalog.ensure_tables(self._tables)
        delta = DeltaCommitter(lake, _TRAVEL_TIMES) if self.delta else None
        if delta is not None:
            delta.check_table()
            delta.ensure_table()
            delta.catch_up_all()
        writer = MicroBatchWriter(
            self.settings,
            _TRAVEL_TIMES,
            lake,
            cast(GlueCatalog, catalog),
            cast(Lease, lease),
            on_batch,
            None,
            store,
            delta,
        )
        reader = ScriptedReader(self.options, ScriptedClient(self.stream))

        def write_files(name: str, start: Any, end: Any) -> TaskReport:
            killed_at(PLANNED)
            task = WriteTask(self.settings.lake, name, _TRAVEL_TIMES, self.settings.sink)
            ranges = (batch for task in reader.partitions(start, end) for batch in reader.read(task))
            report = task.write(ranges, f"{name}-00000")
            killed_at(WRITTEN)
            return report

        query.start(reader)
        try:
            for _ in count() if batches is None else range(batches):
                planned = query.plan(reader)
                if planned is None:
                    break
                batch, start, end = planned
                before_batch()
                writer.write(query.name, batch, lambda name, start=start, end=end: write_files(name, start, end))
                query.commit(batch)
        except KilledError:
            return written
        if self._glue is not None:
            CatalogCheck(lake, catalog, self._tables, lambda _done, _all, _what: None).repair()
        if not lease.after_crash:
            self._clean.parent.mkdir(parents=True, exist_ok=True)
            self._clean.touch()
        return written


class _Query:
    """Spark's part: the files of the checkpoint, and the offsets that they give."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._batch = 0
        self._start: Any = None
        self._planned: Any = None

    @property
    def name(self) -> str:
        content = json.loads((self._folder / "metadata").read_text(encoding="utf-8"))
        return uuid.UUID(content["id"]).hex[:12]

    def start(self, reader: ScriptedReader) -> None:
        """As StreamExecution's start and `populateStartOffsets` do."""
        for folder in ("offsets", "commits"):
            (self._folder / folder).mkdir(parents=True, exist_ok=True)
        metadata = self._folder / "metadata"
        if not metadata.exists():
            metadata.write_text(json.dumps({"id": str(uuid.uuid4())}), encoding="utf-8")
        self._start = reader.initialOffset()
        planned, committed = self._newest("offsets"), self._newest("commits")
        if planned is None:
            assert committed is None, "Spark starts anew, at batch 0, beside old commits"
            return
        end = self._offset(planned)
        if committed is not None:
            self._read("commits", committed)
        self._batch = planned
        if planned > 0:
            self._start = self._offset(planned - 1)
        if committed == planned:
            self._batch, self._start = planned + 1, end
        else:
            self._planned = end
        # Spark 4.0 and 4.1 tell the source its position so.
        assert reader.partitions(end, end) == []

    def plan(self, reader: ScriptedReader) -> tuple[int, Any, Any] | None:
        """The next batch and its offsets; None if nothing is new."""
        if self._planned is None:
            end = json.loads(json.dumps(reader.latestOffset()))
            if json.dumps(end) == json.dumps(self._start):
                return None
            self._planned = end
            line = '{"batchWatermarkMs":0,"batchTimestampMs":0,"conf":{}}'
            self._write("offsets", self._batch, f"v1\n{line}\n{json.dumps(end)}")
        return self._batch, self._start, self._planned

    def commit(self, batch: int) -> None:
        self._write("commits", batch, 'v1\n{"nextBatchWatermarkMs":0}')
        self._batch, self._start, self._planned = batch + 1, self._planned, None

    def _newest(self, folder: str) -> int | None:
        return max((int(path.name) for path in (self._folder / folder).glob("[0-9]*")), default=None)

    def _offset(self, batch: int) -> Any:
        return json.loads(self._read("offsets", batch)[2])

    def _read(self, folder: str, batch: int) -> list[str]:
        lines = (self._folder / folder / str(batch)).read_text(encoding="utf-8").splitlines()
        assert lines[:1] == ["v1"], f"Spark: Incomplete log file {folder}/{batch}"
        return lines

    def _write(self, folder: str, batch: int, content: str) -> None:
        path = self._folder / folder / str(batch)
        assert not path.exists(), f"Spark: batch {batch} already exists in {folder}: a concurrent stream"
        path.write_text(content, encoding="utf-8")
