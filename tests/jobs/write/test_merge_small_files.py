"""Merging small files: one file a partition, each record once, the same bytes in whatever order rows arrive."""

from __future__ import annotations

import gzip
import json
import pickle
import random
from collections import Counter
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.lake.task_report import TaskReport, sum_reports
from jobs.settings.sections import SinkSettings
from jobs.write import merge_small_files
from jobs.write.merge_small_files import MergeTask, WriteLargeFiles
from jobs.write.task import WriteTask
from tests.helpers.samples import TRAVEL_TIMES, arrived, good

MB = 1024 * 1024


def task_at(lake: Path, **sink: int) -> WriteTask:
    return WriteTask(str(lake), "q-7", TRAVEL_TIMES, SinkSettings(**sink))


def of_task(task: int, count: int = 300, size: int = 10, cities: int = 3) -> pa.RecordBatch:
    """The records that a task reads from its own shard."""
    chance = random.Random(task)
    records = [
        b"not JSON"
        if number % 50 == 7
        else good(City=f"c{number % cities}", **{"Origin Geometry": chance.randbytes(size).hex()})
        for number in range(count)
    ]
    return arrived(records, shard=f"shard-{task}", first=1000 * task)


def run(write: WriteTask, tasks: list[pa.RecordBatch], monkeypatch: pytest.MonkeyPatch, *, seed: int = 0) -> TaskReport:
    """Both stages as Spark runs them, with two merge tasks and a shuffle that mixes all rows."""
    rows: list[pa.RecordBatch] = []
    for number, records in enumerate(tasks):
        monkeypatch.setattr("jobs.write.merge_small_files.task_number", lambda number=number: number)
        monkeypatch.setattr("jobs.write.task.task_number", lambda number=number: number)
        rows += pickle.loads(pickle.dumps(WriteLargeFiles(write)))(iter([records]))
    random.Random(seed).shuffle(rows)
    reports: list[pa.RecordBatch] = []
    for half in (0, 1):
        chosen = [row for row in rows if sum(row["folder"][0].as_py().encode()) % 2 == half]
        reports += pickle.loads(pickle.dumps(MergeTask(write, len(tasks))))(iter(chosen))
    return sum_reports(msgspec.json.decode(row["report"][0].as_py(), type=TaskReport) for row in reports)


def contents(write: WriteTask) -> dict[str, bytes]:
    root = Path(write.lake)
    tables = ("raw", "processed", "quarantine")
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for table in tables
        for path in sorted((root / table).rglob("*.*"))
    }


def test_a_partition_has_one_file_however_many_tasks_had_rows_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = task_at(tmp_path)
    report = run(write, [of_task(number) for number in range(4)], monkeypatch)
    assert (report.read, report.raw, report.processed, report.quarantined) == (1200, 1200, 1176, 24)
    per_partition = Counter((file.kind, file.partition) for file in report.files)
    assert len(per_partition) == 5
    assert set(per_partition.values()) == {1}
    assert {file.path: file.bytes for file in report.files} == {
        path: len(data) for path, data in contents(write).items()
    }
    assert {path.rpartition("/")[2].partition(".")[0] for path in contents(write)} == {"q-7-00004-000"}
    assert set(report.shards) == {"shard-0", "shard-1", "shard-2", "shard-3"}


def test_each_record_is_in_the_merged_files_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, tasks = task_at(tmp_path), [of_task(number) for number in range(3)]
    run(write, tasks, monkeypatch)
    files = contents(write)
    raw = [
        line for path, data in files.items() if path.startswith("raw/") for line in gzip.decompress(data).splitlines()
    ]
    assert raw == [record for records in tasks for record in records["data"].to_pylist()], "in task order"
    rows = [
        (row["shard_id"], row["sequence_number"])
        for path, data in files.items()
        if path.startswith("processed/")
        for row in pq.read_table(pa.BufferReader(data)).to_pylist()
    ]
    rejected = [
        (line["shard_id"], line["sequence_number"])
        for path, data in files.items()
        if path.startswith("quarantine/")
        for line in map(json.loads, gzip.decompress(data).splitlines())
    ]
    read = [
        place
        for records in tasks
        for place in zip(*(records[n].to_pylist() for n in ("shard_id", "sequence_number")), strict=True)
    ]
    assert sorted(rows + rejected) == sorted(read)


def test_the_report_names_the_records_of_a_merged_raw_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = run(task_at(tmp_path), [of_task(number) for number in range(3)], monkeypatch)
    (raw,) = [file for file in report.files if file.kind == "raw"]
    assert [(run.shard, run.first, run.last, run.records) for run in raw.runs] == [
        (f"shard-{number}", str(1000 * number), str(1000 * number + 299), 300) for number in range(3)
    ]


def test_merged_rows_are_sorted_over_all_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = task_at(tmp_path)
    shuffled = arrived([good(**{"Origin Movement ID": str(number)}) for number in (5, 3, 9)])
    run(write, [shuffled, shuffled], monkeypatch)
    (file,) = (Path(write.lake) / "processed").rglob("*.parquet")
    assert pq.read_table(file)["origin_movement_id"].to_pylist() == ["3", "3", "5", "5", "9", "9"]


def test_the_bytes_do_not_depend_on_the_order_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for seed in range(3):
        write = task_at(tmp_path / str(seed))
        run(write, [of_task(number, size=8000) for number in range(3)], monkeypatch, seed=seed)
        found.append(contents(write))
    assert found[0] == found[1] == found[2]


def test_large_files_are_written_by_the_first_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = task_at(tmp_path, small_file_bytes=2 * MB, parquet_compression="none")
    large, small = of_task(0, count=400, size=10_000, cities=1), of_task(1, count=40, cities=1)
    report = run(write, [large, small, small], monkeypatch)
    names = Counter((file.kind, file.path.rpartition("/")[2].split(".")[0]) for file in report.files)
    assert names == {
        ("raw", "q-7-00000-000"): 1, ("processed", "q-7-00000-000"): 1,
        ("raw", "q-7-00003-000"): 1, ("processed", "q-7-00003-000"): 1, ("quarantine", "q-7-00003-000"): 1,
    }  # fmt: skip
    assert report.read == report.raw == report.processed + report.quarantined == 480


def test_merged_files_end_at_the_target_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = task_at(tmp_path, target_file_bytes=MB, small_file_bytes=MB)
    report = run(write, [of_task(number, count=100, size=4000, cities=1) for number in range(8)], monkeypatch)
    sizes = [file.bytes for file in report.files if file.kind == "raw"]
    assert len(sizes) > 1
    assert all(MB <= size < 2 * MB for size in sizes[:-1])
    assert report.read == report.raw == report.processed + report.quarantined == 800


def test_a_batch_without_rows_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = task_at(tmp_path)
    assert run(write, [arrived([]), arrived([])], monkeypatch).files == []
    assert not tmp_path.joinpath("raw").exists()


def test_a_small_file_goes_through_the_shuffle_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_small_files, "CHUNK_BYTES", 100)
    write = task_at(tmp_path)
    report = run(write, [of_task(number) for number in range(2)], monkeypatch)
    assert report.read == report.raw == report.processed + report.quarantined == 600
