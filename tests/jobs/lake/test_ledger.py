"""The ledger: a batch becomes final once; only leftovers of the same batch are deleted."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from jobs.common.errors import AlreadyRunningError, BatchMismatchError, TerminalError
from jobs.lake.ledger import Ledger, LedgerEntry, entries, queries
from jobs.lake.store import Lake
from jobs.lake.task_report import SequenceRange, TaskReport, WrittenFile

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def entry(
    batch: int = 3, query: str = "abc", *, read: int = 10, raw: int = 10, processed: int = 8, quarantined: int = 2
) -> LedgerEntry:
    report = TaskReport(
        read=read,
        raw=raw,
        processed=processed,
        quarantined=quarantined,
        shards={"shardId-0": SequenceRange("1", "10", read)},
        files=[WrittenFile("raw", "raw/ingest_date=2026-11-23/hour=01/abc-3-00000-000.json.gz", "x", 10, 99)],
    )
    return LedgerEntry(
        query, batch, "stream", NOW, NOW, report, {"raw": ["x"], "processed": [], "quarantine": []}, {"write": 1.5}
    )


def put(lake: Lake, *paths: str) -> None:
    for path in paths:
        lake.put(path, io.BytesIO(b"x"))


def test_a_batch_is_not_final_until_its_entry_is_written(lake: Lake) -> None:
    ledger = Ledger(lake, "abc")
    assert ledger.entry(3) is None
    ledger.commit(entry(3))
    assert ledger.entry(3) == entry(3)
    assert ledger.entry(4) is None
    assert Ledger(lake, "another").entry(3) is None


def test_an_entry_is_a_file_that_a_person_can_read(lake: Lake) -> None:
    Ledger(lake, "abc").commit(entry(12))
    content = lake.get("_ledger/abc/12.json")
    assert content is not None
    assert content.count(b"\n") > 5, "indented"
    found = json.loads(content)
    assert (found["query"], found["batch"], found["version"]) == ("abc", 12, 1)
    assert found["report"]["shards"] == {"shardId-0": {"first": "1", "last": "10", "records": 10}}
    assert found["started_at"] == "2026-11-23T00:00:00Z"


def test_a_batch_that_another_process_made_final_is_refused(lake: Lake) -> None:
    Ledger(lake, "abc").commit(entry())
    theirs = lake.get("_ledger/abc/3.json")
    with pytest.raises(AlreadyRunningError, match=r"batch 3 of query abc .* two jobs share one checkpoint"):
        Ledger(lake, "abc").commit(entry(read=5, raw=5, processed=5, quarantined=0))
    assert lake.get("_ledger/abc/3.json") == theirs


@pytest.mark.parametrize(
    "counts",
    [
        {"read": 11},
        {"raw": 9},
        {"processed": 9},
        {"quarantined": 3},
        {"processed": 10, "quarantined": 2},
        {"read": 0},
    ],
)
def test_counts_that_do_not_add_up_are_an_error_with_the_figures_and_nothing_is_written(
    lake: Lake, counts: dict[str, int]
) -> None:
    with pytest.raises(BatchMismatchError) as error:
        Ledger(lake, "abc").commit(entry(**counts))
    for count in {"read": 10, "raw": 10, "processed": 8, "quarantined": 2, **counts}.values():
        assert str(count) in str(error.value)
    assert Ledger(lake, "abc").entry(3) is None


def test_only_the_files_of_this_querys_batches_without_an_entry_are_leftovers(lake: Lake) -> None:
    mine = [
        "raw/ingest_date=2026-11-23/hour=01/abc-3-00000-000.json.gz",
        "raw/ingest_date=2026-11-23/hour=02/abc-3-00001-004.json.gz",
        "processed/city=abc-3-x/start_date=2016-09-03/abc-3-00000-000.parquet",
        "quarantine/ingest_date=2026-11-23/abc-3-00000-000.json.gz",
        "raw/ingest_date=2026-11-23/hour=03/abc-4-00000-000.json.gz",
    ]
    others = [
        "raw/ingest_date=2026-11-23/hour=01/abc-33-00000-000.json.gz",
        "raw/ingest_date=2026-11-23/hour=01/abc-2-00000-000.json.gz",
        "raw/ingest_date=2026-11-23/hour=01/xabc-3-00000-000.json.gz",
        "processed/city=abc-3-x/start_date=2016-09-03/def-3-00000-000.parquet",
        "processed_batch/city=x/abc-3-00000-000.parquet",
        "delivery/abc-3-00000-000",
        "gold/abc-3-00000-000",
        "_ledger/abc/2.json",
    ]
    put(lake, *mine, *others)
    Ledger(lake, "abc").commit(entry(33))
    others.append("_ledger/abc/33.json")
    assert sorted(Ledger(lake, "abc").remove_leftovers(3)) == sorted(mine)
    assert sorted(path for path, _ in lake.list("")) == sorted(others)
    assert Ledger(lake, "abc").remove_leftovers(3) == []


def test_batch_0_of_a_new_checkpoint_leaves_files_of_an_older_batch_0_alone(lake: Lake) -> None:
    old = "raw/ingest_date=2026-11-23/hour=01/old-0-00000-000.json.gz"
    put(lake, old)
    Ledger(lake, "old").commit(entry(0, "old"))
    assert Ledger(lake, "new").entry(0) is None
    assert Ledger(lake, "new").remove_leftovers(0) == []
    Ledger(lake, "new").commit(entry(0, "new"))
    assert lake.get(old) == b"x"
    assert Ledger(lake, "old").entry(0) is not None


def test_entries_after_a_batch_come_in_order_up_to_the_last_final_batch(lake: Lake) -> None:
    ledger = Ledger(lake, "abc")
    assert list(ledger.entries_after(-1)) == []
    for number in range(40):
        ledger.commit(entry(number))

    assert [found.batch for found in ledger.entries_after(-1)] == list(range(40))
    assert [found.batch for found in ledger.entries_after(36)] == [37, 38, 39]
    assert list(ledger.entries_after(39)) == []


def test_entries_after_a_batch_are_read_without_listing_the_ledger(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    Ledger(lake, "abc").commit(entry(0))
    asked: list[str] = []
    get = lake.get
    monkeypatch.setattr(lake, "get", lambda path: (asked.append(path), get(path))[1])
    monkeypatch.setattr(lake, "list", lambda _: pytest.fail("listed"))

    assert len(list(Ledger(lake, "abc").entries_after(-1))) == 1
    assert set(asked) == {f"_ledger/abc/{number}.json" for number in range(5)}


def test_entries_outside_of_the_window_are_not_decoded(lake: Lake) -> None:
    for number in range(4):
        ended = msgspec.structs.replace(entry(number), finished_at=NOW + timedelta(hours=number))
        Ledger(lake, "abc").commit(ended)
    # Only the end of this entry is valid.
    lake.put("_ledger/old/0.json", io.BytesIO(b'{"report": "long", "finished_at": "2025-01-01T00:00:00Z"}'))

    found = entries(lake, NOW + timedelta(hours=1), NOW + timedelta(hours=3))

    assert [each.batch for each in found] == [1, 2], "includes the start, excludes the end"
    assert found[0].report == entry(1).report


def test_queries_are_those_with_a_ledger_except_the_batch_path(lake: Lake) -> None:
    assert queries(lake) == []
    for query in ("b", "a"):
        Ledger(lake, query).commit(entry(0, query))
    put(lake, "_ledger/batch/0.json")

    assert queries(lake) == ["a", "b"]


def numbers_after(lake: Lake, batch: int) -> list[int]:
    return [found.batch for found in Ledger(lake, "abc").entries_after(batch)]


def test_a_ledger_may_begin_at_any_batch(lake: Lake) -> None:
    for number in range(37, 60):
        Ledger(lake, "abc").commit(entry(number))
    assert numbers_after(lake, -1) == list(range(37, 60))
    assert numbers_after(lake, 50) == list(range(51, 60))
    assert numbers_after(lake, 59) == []


@pytest.mark.parametrize(("missing", "after"), [(3, -1), (0, 1), (5, 4), (11, 2)])
def test_a_gap_in_the_ledger_is_an_error_with_its_number(lake: Lake, missing: int, after: int) -> None:
    for number in range(12):
        Ledger(lake, "abc").commit(entry(number))
    lake.delete([f"_ledger/abc/{missing}.json"])
    if missing in (0, 11):  # the beginning has expired, or the last batch is not final: no gap
        assert numbers_after(lake, after) == [number for number in range(12) if number > after and number != missing]
        return
    with pytest.raises(TerminalError, match=rf"_ledger/abc/{missing}\.json is missing, although batch \d+"):
        numbers_after(lake, after)


def test_entries_that_expired_before_they_were_read_are_a_gap(lake: Lake) -> None:
    for number in range(8, 12):
        Ledger(lake, "abc").commit(entry(number))
    with pytest.raises(TerminalError, match=r"_ledger/abc/5\.json is missing, although batch 8"):
        numbers_after(lake, 4)


def test_a_batch_that_becomes_final_while_the_ledger_is_read_is_no_gap(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(lake, "abc")
    ledger.commit(entry(0))
    get, late = lake.get, [2, 1]

    def commits_after_reading(path: str) -> bytes | None:
        content = get(path)
        if path.endswith("/1.json") and late:  # the reader has just missed 1, and now sees 2
            ledger.commit(entry(late.pop()))
            ledger.commit(entry(late.pop()))
        return content

    monkeypatch.setattr(lake, "get", commits_after_reading)
    found = numbers_after(lake, -1)
    assert found in ([0, 1, 2], [0])
    assert numbers_after(lake, 0) == [1, 2]
