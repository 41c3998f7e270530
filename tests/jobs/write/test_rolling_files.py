"""Rolling files: repeatable names, whole files, a new file at the target size, limits on open files and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

import pytest

from jobs.lake.store import FolderLake
from jobs.write.rolling_files import RollingFiles


class Plain:
    """Writes bytes unchanged. With `hold` it buffers them until `flush`."""

    suffix = ".txt"

    def __init__(self, file: BinaryIO, hold: bool = False) -> None:
        self._file = file
        self._hold = hold
        self._held = b""
        self.flushes = 0
        self.closed = False

    @property
    def buffered_bytes(self) -> int:
        return len(self._held)

    def write(self, rows: Any) -> int:
        self._held += rows
        if not self._hold:
            self.flush()
        return int(rows.count(b"."))

    def flush(self) -> None:
        self._file.write(self._held)
        self._held = b""
        self.flushes += 1

    def close(self) -> None:
        self.flush()
        self._file.write(b"END")
        self.closed = True

    def close_if_small(self) -> bool:
        return False


class Small(Plain):
    """Small below ten bytes."""

    def close_if_small(self) -> bool:
        return self._file.tell() < 10


@pytest.fixture
def open_files(folder_lake: FolderLake) -> Callable[..., RollingFiles]:
    def make(target: int = 1000, encoder: Callable[[BinaryIO], Any] = Plain, kind: Any = "processed") -> RollingFiles:
        return RollingFiles(folder_lake, kind, "q-7-00003", encoder, target)

    return make


def stored(lake: FolderLake) -> dict[str, bytes]:
    return {path: lake.get(path) or b"" for path, _ in lake.list("")}


def test_a_partition_has_one_file_named_for_table_batch_and_task(
    open_files: Callable[..., RollingFiles], folder_lake: FolderLake
) -> None:
    files = open_files()
    files.write("city=a", b"1.")
    files.write("city=b", b"2.3.")
    files.write("city=a", b"4.")
    assert stored(folder_lake) == {}, "no file is visible before it is complete"
    files.close()
    assert stored(folder_lake) == {
        "processed/city=a/q-7-00003-000.txt": b"1.4.END",
        "processed/city=b/q-7-00003-000.txt": b"2.3.END",
    }
    assert [(file.path, file.partition, file.rows, file.bytes) for file in files.written] == [
        ("processed/city=a/q-7-00003-000.txt", "city=a", 2, 7),
        ("processed/city=b/q-7-00003-000.txt", "city=b", 2, 7),
    ]


def test_a_file_of_the_target_size_is_closed_and_the_next_one_has_the_next_number(
    open_files: Callable[..., RollingFiles], folder_lake: FolderLake
) -> None:
    files = open_files(target=4)
    for number in range(5):
        files.write("city=a", b"%d." % number)
    assert len(stored(folder_lake)) == 2
    files.close()
    assert stored(folder_lake) == {
        "processed/city=a/q-7-00003-000.txt": b"0.1.END",
        "processed/city=a/q-7-00003-001.txt": b"2.3.END",
        "processed/city=a/q-7-00003-002.txt": b"4.END",
    }


def test_the_same_rows_give_the_same_files(open_files: Callable[..., RollingFiles], folder_lake: FolderLake) -> None:
    found = []
    for _ in range(2):
        files = open_files(target=10)
        for number in range(300):
            files.write(f"city={number % 7}", b"%d." % number)
        files.close()
        found.append((files.written, stored(folder_lake)))
    assert found[0] == found[1]


def test_partitions_beyond_the_limit_of_open_files_continue_in_new_files(
    open_files: Callable[..., RollingFiles], folder_lake: FolderLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RollingFiles, "MAX_OPEN", 3)
    encoders: list[Plain] = []

    def open_encoder(file: BinaryIO) -> Plain:
        encoders.append(Plain(file))
        return encoders[-1]

    files = open_files(encoder=open_encoder)
    for turn in range(2):
        for city in range(5):
            files.write(f"city={city}", b"%d." % turn)
            assert sum(not encoder.closed for encoder in encoders) <= 3
    files.close()
    content = stored(folder_lake)
    assert sum(data.count(b".") for data in content.values()) == 10
    assert sum(file.rows for file in files.written) == 10
    assert {file.path for file in files.written} == set(content), "no file is overwritten"


def test_memory_is_limited_by_encoding_the_fullest_file_first(
    open_files: Callable[..., RollingFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RollingFiles, "MAX_BUFFERED_BYTES", 1000)
    made: list[Plain] = []

    def holding(file: BinaryIO) -> Plain:
        made.append(Plain(file, hold=True))
        return made[-1]

    files = open_files(target=10**9, encoder=holding)
    files.write("city=large", b"x" * 600)
    files.write("city=small", b"x" * 100)
    files.write("city=middle", b"x" * 301)
    assert sum(encoder.buffered_bytes for encoder in made) <= 1000
    assert [encoder.flushes for encoder in made] == [1, 0, 0]
    files.close()
    assert sum(file.bytes for file in files.written) == 1001 + 3 * len("END")


def test_closing_without_rows_writes_nothing(open_files: Callable[..., RollingFiles], folder_lake: FolderLake) -> None:
    files = open_files()
    files.close()
    assert (stored(folder_lake), files.written) == ({}, [])


def test_a_failed_write_leaves_no_file_in_the_lake(
    open_files: Callable[..., RollingFiles], folder_lake: FolderLake
) -> None:
    class Fails(Plain):
        def write(self, rows: Any) -> int:
            raise OSError("disk full")

    files = open_files(encoder=Fails)
    with pytest.raises(OSError, match="disk full"):
        files.write("city=a", b"1.")
    assert stored(folder_lake) == {}


def test_small_files_are_kept_and_large_ones_are_put_into_the_lake(
    open_files: Callable[..., RollingFiles], folder_lake: FolderLake
) -> None:
    files = open_files(target=20, encoder=Small)
    for partition, rows in (("a", b"a."), ("b", b"b.b."), ("c", b"c." * 6), ("d", b"d." * 11), ("d", b"e.")):
        files.write(partition, rows)
    files.close()
    assert stored(folder_lake) == {
        "processed/c/q-7-00003-000.txt": b"c." * 6 + b"END",
        "processed/d/q-7-00003-000.txt": b"d." * 11 + b"END",
    }
    found = []
    for small in files.small_files:
        small.spool.seek(small.start)
        found.append((small.partition, small.number, small.rows, small.spool.read(small.size)))
    assert found == [("a", 0, 1, b"a."), ("b", 0, 2, b"b.b."), ("d", 1, 1, b"e.")]


def test_small_files_of_any_number_of_partitions_share_one_open_file(open_files: Callable[..., RollingFiles]) -> None:
    files = open_files(encoder=Small)
    for number in range(3 * RollingFiles.MAX_OPEN):
        files.write(f"p={number}", b"x.")
    files.close()
    assert len(files.small_files) == 3 * RollingFiles.MAX_OPEN
    assert len({small.spool for small in files.small_files}) == 1
