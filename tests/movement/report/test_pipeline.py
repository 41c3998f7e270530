"""The state of the pipeline, from ledger and listing."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.common.errors import TerminalError
from jobs.lake.sent_journal import JournalRun
from jobs.lake.store import FolderLake, lake_at
from jobs.parity import job as parity_job
from jobs.parity.job import ParityResult
from jobs.settings.settings import load_settings
from movement.report.model import Pipeline
from movement.report.pipeline import PipelineReader
from tests.helpers.replay_lakes import Bad, reject
from tests.helpers.report_lakes import BEGAN, PARTITION, add_batch, edit_entry


def read(lake: Path, max_batches: int = 100) -> Pipeline:
    return PipelineReader(lake_at(str(lake)), max_batches).read()


def test_an_empty_lake_is_no_error(tmp_path: Path) -> None:
    found = read(tmp_path / "nothing")

    assert (found.batches, found.batches_total, found.partitions, found.parity) == ([], 0, [], None)
    assert found.layers["processed"] == (0, 0)


def test_figures_come_from_the_ledger_and_the_listing(tmp_path: Path) -> None:
    add_batch(tmp_path, 0, read=100, rejected={"wrong_type": 2, "not_json": 1})
    add_batch(tmp_path, 1, read=50, rejected={"not_json": 9}, alarms=["too many"])
    lake_at(str(tmp_path)).put("gold/corridors/_delta_log/0.json", io.BytesIO(b"{}"))
    lake_at(str(tmp_path)).put("gold/corridors/a.parquet", io.BytesIO(b"123"))

    found = read(tmp_path)

    assert [(batch.number, batch.read, batch.processed, batch.quarantined) for batch in found.batches] == [
        (0, 100, 97, 3), (1, 50, 41, 9),
    ]  # fmt: skip
    assert found.batches[1].started_at == BEGAN + timedelta(seconds=10)
    assert found.batches[1].alarms == ["too many"]
    assert list(found.reasons.items()) == [("not_json", 10), ("wrong_type", 2)], "the most frequent first"
    (partition,) = found.partitions
    assert (partition.name, partition.files, partition.bytes, partition.rows) == (PARTITION, 2, 2000, 138)
    assert (found.layers["processed"], found.layers["gold"]) == ((2, 2000), (1, 3))
    assert found.listed_all


def test_a_record_that_was_replayed_and_rejected_again_counts_once(tmp_path: Path) -> None:
    lake, now = lake_at(str(tmp_path)), datetime.now(UTC)
    for batch in range(3):
        (path,) = reject(lake, batch, [Bad(b"x", "not_json")] * 50, started=now)
        if batch < 2:
            lines = [(path, line) for line in range(50)]
            chunk = JournalRun(lake, "stream").chunk(lines)
            chunk.open()
            chunk.close(lines)

    found = read(tmp_path)

    assert [(batch.quarantined, batch.replayed) for batch in found.batches] == [(50, 50), (50, 50), (50, 0)]
    assert found.reasons == {"not_json": 50}


def test_the_latest_batches_of_every_query_are_shown(tmp_path: Path) -> None:
    for number in range(12):
        add_batch(tmp_path, number)
    add_batch(tmp_path, 11, query="def")

    found = read(tmp_path, 3)

    # By time, not by name: 9 comes before 10.
    assert [(batch.query, batch.number) for batch in found.batches] == [("abc", 10), ("abc", 11), ("def", 11)]
    assert found.batches_total == 13
    assert found.partitions[0].rows is None, "from a part of the ledger they would be wrong"


def test_the_lag_is_that_of_the_slowest_shard_if_the_ledger_has_arrival_times(tmp_path: Path) -> None:
    add_batch(tmp_path, 0)
    add_batch(tmp_path, 1)
    shard = {"first": "1", "last": "2", "records": 1}
    edit_entry(
        tmp_path,
        1,
        shards={
            "a": shard | {"arrived": "2026-11-24T01:00:05Z"},
            "b": shard | {"arrived": "2026-11-24T01:00:11Z"},
            "c": shard,
        },
        from_the_future=True,
    )

    assert [batch.lag for batch in read(tmp_path).batches] == [None, 7.0]


def test_an_entry_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_batch(tmp_path, 0)
    reader = PipelineReader(lake_at(str(tmp_path)), 2)
    fetched: list[str] = []
    get = FolderLake.get
    monkeypatch.setattr(FolderLake, "get", lambda lake, path: (fetched.append(path), get(lake, path))[1])

    for number in (1, 2):
        reader.read()
        add_batch(tmp_path, number)
    assert [batch.number for batch in reader.read().batches] == [1, 2]

    assert sorted(path for path in fetched if path.startswith("_ledger/")) == [
        f"_ledger/abc/{n}.json" for n in range(3)
    ]


def test_a_broken_entry_is_named(tmp_path: Path) -> None:
    add_batch(tmp_path, 0)
    edit_entry(tmp_path, 0, read="many")

    with pytest.raises(TerminalError, match=r"_ledger/abc/0\.json"):
        read(tmp_path)


def test_the_last_parity_check_is_kept_without_its_rows(tmp_path: Path) -> None:
    settings = load_settings(None, [f"lake={tmp_path}"])
    result = ParityResult(False, 10, 9, 1, 0, partitions=[{"partition": PARTITION}], samples=[{"row": {"a": 1}}])
    parity_job.store_result(settings, ParityResult(True, 5, 5, 0, 0))
    parity_job.store_result(settings, result)

    kept = read(tmp_path).parity

    assert kept is not None
    assert (kept["equal"], kept["stream"], kept["batch"], kept["only_stream"]) == (False, 10, 9, 1)
    assert not kept.keys() & {"partitions", "samples"}
    assert kept["checked_at"].endswith("+00:00")
