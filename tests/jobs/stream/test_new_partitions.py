"""The limit of new partitions in the micro-batch: what counts as known, the alarm, a crash after the registration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from jobs.catalog.glue import GlueCatalog
from jobs.lake.lease import Lease
from jobs.lake.ledger import LedgerEntry
from jobs.lake.store import FolderLake
from jobs.settings.settings import load_settings
from jobs.stream.checkpoint import Checkpoint
from jobs.stream.micro_batch import MicroBatchWriter
from tests.helpers.checkpointed_query import AcceptingCatalog, HeldLease, KilledError
from tests.helpers.fake_frames import FakeFrame, FakeSession
from tests.helpers.samples import TRAVEL_TIMES, arrived, good

QUERY = "3f2a91b07c44"


def two_tasks(*cities: str) -> list[list[pa.RecordBatch]]:
    return [[arrived([good(City=city) for city in cities], shard=f"shard-{task}")] for task in range(2)]


class Job:
    """The job on a lake in a folder; each is a process of its own."""

    def __init__(
        self, folder: Path, limit: int, *, after_crash: bool = False, on_register: Callable[[], None] = lambda: None
    ) -> None:
        self.entries: list[LedgerEntry] = []
        self.lake = FolderLake(str(folder / "lake"))
        self.checkpoint = Checkpoint(FolderLake(str(folder / "checkpoint")))
        settings = load_settings(None, [f"lake={folder / 'lake'}", f"sink.max_new_partitions_per_batch={limit}"])
        catalog = cast(GlueCatalog, AcceptingCatalog(on_register))
        lease = cast(Lease, HeldLease(after_crash))
        self.writer = MicroBatchWriter(
            settings, TRAVEL_TIMES, self.lake, catalog, lease, self.entries.append, None, self.checkpoint
        )

    def batch(self, number: int, tasks: list[list[pa.RecordBatch]], monkeypatch: pytest.MonkeyPatch) -> LedgerEntry:
        session = FakeSession()
        for module in ("jobs.write.task", "jobs.write.merge_small_files"):
            monkeypatch.setattr(f"{module}.task_number", lambda: session.task)
        self.checkpoint.restore(QUERY, number, {"shards": {"s": str(number)}}, None)
        self.writer(cast(Any, FakeFrame(session, tasks)), number)
        return self.entries[-1]

    def contents(self) -> dict[str, bytes | None]:
        """The tables' files."""
        return {
            path: self.lake.get(path)
            for table in ("raw", "processed", "quarantine", "_held")
            for path, _ in self.lake.list(f"{table}/")
        }


def test_partitions_of_earlier_batches_are_known_also_to_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path, 2)
    assert job.batch(0, two_tasks("a", "b"), monkeypatch).report.quarantined == 0
    assert job.batch(1, two_tasks("a", "b", "c", "d"), monkeypatch).report.quarantined == 0
    later = Job(tmp_path, 2).batch(2, two_tasks("a", "b", "c", "d", "d", "e", "f", "f", "g", "g"), monkeypatch)
    assert later.report.reasons == {"too_many_partitions": 2}
    assert later.report.processed == 18
    assert later.report.new_partitions is None
    (alarm,) = later.alarms
    assert f"batch {QUERY}-2 has records for up to 4 new partitions" in alarm
    assert "movement replay --quarantine --reason too_many_partitions" in alarm


def test_a_batch_that_died_after_its_partitions_were_registered_decides_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        raise KilledError

    tasks = two_tasks("a", *(f"c{number}" for number in range(9)))
    for folder in ("whole", "killed"):
        assert Job(tmp_path / folder, 3).batch(0, two_tasks("a"), monkeypatch).report.quarantined == 0
    whole = Job(tmp_path / "whole", 3)
    assert whole.batch(1, tasks, monkeypatch).report.reasons == {"too_many_partitions": 12}
    with pytest.raises(KilledError):
        Job(tmp_path / "killed", 3, on_register=die).batch(1, tasks, monkeypatch)
    again = Job(tmp_path / "killed", 3, after_crash=True)
    assert again.batch(1, tasks, monkeypatch).report.files == whole.entries[0].report.files
    assert again.contents() == whole.contents()


def test_without_a_limit_every_partition_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Job(tmp_path, 0).batch(0, two_tasks(*(f"c{number}" for number in range(20))), monkeypatch)
    assert (entry.report.processed, entry.report.quarantined, entry.alarms) == (40, 0, [])
