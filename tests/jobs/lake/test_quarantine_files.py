"""Which quarantine files count, their order, and reading them."""

from __future__ import annotations

import gzip
import io
from datetime import timedelta

import pytest

from jobs.common.errors import TerminalError
from jobs.lake.quarantine_files import committed_files, read_lines
from jobs.lake.store import Lake
from tests.helpers.replay_lakes import DAY, Bad, numbered, reject


def test_files_of_final_batches_in_the_order_of_their_records(lake: Lake) -> None:
    later = reject(lake, 10, numbered(4), files=2)
    other = reject(lake, 3, numbered(1), query="ffffffffffff")
    first = reject(lake, 2, numbered(2))
    found = committed_files(lake)
    assert [file.path for file in found.files] == [*first, *other, *later]
    assert [file.rows for file in found.files] == [2, 1, 2, 2]
    assert found.uncommitted == 0


def test_leftovers_of_a_dead_batch_do_not_count(lake: Lake) -> None:
    reject(lake, 1, numbered(3), final=False)
    # Only the files that the entry names count: an earlier attempt may have split the records differently.
    (kept,) = reject(lake, 2, numbered(3))
    lake.put(kept.replace("00000-0", "00007-0"), io.BytesIO(b"left behind"))
    found = committed_files(lake)
    assert [file.path for file in found.files] == [kept]
    assert found.uncommitted == 2


def test_since_selects_that_day_and_later_days(lake: Lake) -> None:
    reject(lake, 1, [Bad(b"old", at=DAY - timedelta(days=1))])
    (new,) = reject(lake, 2, [Bad(b"new")])
    assert [file.path for file in committed_files(lake, DAY.date()).files] == [new]


def test_a_reason_selects_the_batches_that_have_rejected_a_record_for_it(lake: Lake) -> None:
    reject(lake, 1, [Bad(b"x")])
    (kept_out,) = reject(lake, 2, [Bad(b"y"), Bad(b"z", reason="too_many_partitions")])
    found = committed_files(lake, reason="too_many_partitions")
    assert [file.path for file in found.files] == [kept_out]
    assert found.uncommitted == 0


def test_an_empty_lake_has_none(lake: Lake) -> None:
    assert committed_files(lake).files == []


def test_records_come_back_byte_for_byte(lake: Lake) -> None:
    payloads = [b"", b"\xff\xfe", b"a\nb\r\n", '{"City": "São Paulo"}'.encode(), b"\0"]
    (path,) = reject(lake, 1, [Bad(payload) for payload in payloads])
    assert [line.data for line in read_lines(lake, path)] == payloads


@pytest.mark.parametrize(
    "content",
    [
        b"not gzip",
        gzip.compress(b'{"reason": 1}\n', mtime=0),
        gzip.compress(b"x" * 100, mtime=0)[:-9],
        gzip.compress(b"{}\n", mtime=0)[:-8] + b"12345678",
    ],
)
def test_a_damaged_file_is_named(lake: Lake, content: bytes) -> None:
    lake.put("quarantine/damaged", io.BytesIO(content))
    with pytest.raises(TerminalError, match="quarantine/damaged: not readable after line 0"):
        list(read_lines(lake, "quarantine/damaged"))


def test_a_file_that_is_gone_is_an_error(lake: Lake) -> None:
    with pytest.raises(TerminalError, match="gone since it was listed"):
        list(read_lines(lake, "quarantine/none"))
