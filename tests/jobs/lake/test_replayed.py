"""A rejected record counts once, where it is now, however often it was replayed and rejected again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from jobs.lake.ledger import entries
from jobs.lake.replayed import ReplayedRecords
from jobs.lake.sent_journal import JOURNAL, JournalRun, Line
from jobs.lake.store import Lake
from tests.helpers.replay_lakes import Bad, reject

NOW = datetime.now(UTC)  # journals are named by the clock, and only those of the batches' time are read


def rejected(lake: Lake, batch: int, *reasons: str, files: int = 1) -> list[str]:
    return reject(lake, batch, [Bad(b"x", reason) for reason in reasons], files=files, started=NOW)


def send(lake: Lake, lines: Iterable[Line], *, killed: bool = False) -> None:
    """Notes that the lines were sent; `killed`: that they were about to be."""
    chosen = list(lines)
    chunk = JournalRun(lake, "stream").chunk(chosen)
    chunk.open()
    if not killed:
        chunk.close(chosen)


def in_quarantine(lake: Lake, replayed: ReplayedRecords | None = None) -> dict[str, int]:
    found = entries(lake)
    reasons = (replayed or ReplayedRecords(lake)).by_reason(found)
    total = sum((Counter(entry.report.reasons) for entry in found), Counter[str]())
    return dict(total - sum(reasons.values(), Counter[str]()))


def test_fifty_records_that_are_rejected_three_times_are_fifty(lake: Lake) -> None:
    for batch in range(3):
        (path,) = rejected(lake, batch, *["not_json"] * 50)
        assert in_quarantine(lake) == {"not_json": 50}
        if batch < 2:
            send(lake, ((path, line) for line in range(50)))
            assert in_quarantine(lake) == {}, "they are on the stream"


def test_of_a_batch_that_was_replayed_in_part_the_other_records_remain(lake: Lake) -> None:
    first, second = rejected(lake, 0, "not_json", "wrong_type", "wrong_type", "not_utf8", files=2)
    rejected(lake, 1, "too_large")
    send(lake, [(first, 1), (second, 0)])
    assert in_quarantine(lake) == {"not_json": 1, "not_utf8": 1, "too_large": 1}
    send(lake, [(second, 1)])
    assert in_quarantine(lake) == {"not_json": 1, "too_large": 1}


def test_a_record_whose_replay_was_killed_counts_until_the_next_replay_has_sent_it(lake: Lake) -> None:
    (path,) = rejected(lake, 0, "not_json")
    send(lake, [(path, 0)], killed=True)
    assert in_quarantine(lake) == {"not_json": 1}
    send(lake, [(path, 0)])
    assert in_quarantine(lake) == {}


def test_the_records_of_a_deleted_file_count_as_rejected(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    (path,) = rejected(lake, 0, "not_json", "not_json")
    send(lake, [(path, 0)])
    lake.delete([path])
    assert in_quarantine(lake) == {"not_json": 2}
    assert path in caplog.text


def test_only_what_may_have_changed_is_read_again(folder_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    JournalRun(folder_lake, "stream").chunk([("old", 0)]).open()
    (old,) = (path for path, _ in folder_lake.list(JOURNAL))
    folder_lake.copy(old, f"{JOURNAL}{NOW - timedelta(days=9):%Y%m%dT%H%M%SZ}-00000000/000001.json")
    folder_lake.delete([old])
    (path,) = rejected(folder_lake, 0, "not_json", "not_utf8")
    send(folder_lake, [(path, 0)])
    replayed = ReplayedRecords(folder_lake)
    read: list[str] = []
    get = type(folder_lake).get
    monkeypatch.setattr(type(folder_lake), "get", lambda lake, path: (read.append(path), get(lake, path))[1])

    for expected in (2, 0, 1):
        if expected == 1:
            send(folder_lake, [(path, 1)])
        read.clear()
        in_quarantine(folder_lake, replayed)
        assert len([each for each in read if not each.startswith("_ledger/")]) == expected


def test_a_lake_without_rejected_records_is_asked_nothing(lake: Lake) -> None:
    class Unreachable:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(name)

    assert ReplayedRecords(Unreachable()).by_reason([]) == {}  # type: ignore[arg-type]
