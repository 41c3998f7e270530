"""One task of a batch, without Spark: raw, processed and quarantine files in one pass, and counts that add up."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from jobs.lake.task_report import RunTotals, SequenceRange, TaskReport, sum_reports
from jobs.schema.table import contract_of
from jobs.settings.config_files import read_yaml
from jobs.settings.sections import SinkSettings
from jobs.write.new_partitions import KnownPartitions, PartitionLimit
from jobs.write.task import WriteTask
from tests.helpers.paths import ROOT
from tests.helpers.samples import LOWER, MEAN, TRAVEL_TIMES, UPPER, arrived, contract_with, good

# The arrival time of the records of `arrived`.
ARRIVED = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)


@pytest.fixture
def task(tmp_path: Path) -> WriteTask:
    return WriteTask(str(tmp_path / "lake"), "q-7", TRAVEL_TIMES, SinkSettings())


def files(task: WriteTask, kind: str) -> list[Path]:
    return sorted((Path(task.lake) / kind).rglob("*.*"))


def lines_of(paths: list[Path]) -> list[bytes]:
    return [line for path in paths for line in gzip.decompress(path.read_bytes()).splitlines(keepends=True)]


def test_records_go_to_raw_processed_and_quarantine_in_one_pass(task: WriteTask) -> None:
    records = [good(), b"not json", good(City="Boston", extra=1), b"\xff", good(**{MEAN: -1})]
    report = task.write(iter([arrived(records)]), "q-7-00000")
    assert (report.read, report.raw, report.processed, report.quarantined) == (5, 5, 2, 3)
    assert report.reasons == {"not_json": 1, "not_utf8": 1, "failed_check": 1}
    assert report.rescued == 1
    assert report.read_bytes == sum(map(len, records))
    assert report.shards == {"shardId-000000000000": SequenceRange("1", "5", 5, ARRIVED)}
    assert lines_of(files(task, "raw")) == [record + b"\n" for record in records]
    rows = [row for path in files(task, "processed") for row in pq.ParquetFile(path).read().to_pylist()]
    assert {(row["sequence_number"], row["batch"], row["rescued_data"]) for row in rows} == {
        ("1", "q-7", None),
        ("3", "q-7", '{"extra":1}'),
    }
    assert [json.loads(line)["sequence_number"] for line in lines_of(files(task, "quarantine"))] == ["2", "4", "5"]
    assert (
        {str(path.relative_to(task.lake)) for kind in ("raw", "processed", "quarantine") for path in files(task, kind)}
        == {file.path for file in report.files}
        == {
            "raw/ingest_date=2026-11-23/hour=10/q-7-00000-000.json.gz",
            "processed/city=Paris/start_date=2016-09-03/q-7-00000-000.parquet",
            "processed/city=Boston/start_date=2016-09-03/q-7-00000-000.parquet",
            "quarantine/ingest_date=2026-11-23/q-7-00000-000.json.gz",
        }
    )
    assert all(file.bytes == (Path(task.lake) / file.path).stat().st_size for file in report.files)


def test_values_that_failed_a_check_are_counted_for_the_rows_that_are_written(task: WriteTask) -> None:
    content = read_yaml(ROOT / "conf" / "travel_times.yaml")
    mean = content["columns"]["mean_travel_time_seconds"]
    mean |= {"required": False, "on_fail": None}
    check = content["checks"][0]
    check["on_fail"] = "warn"
    tolerant = contract_of(content, ROOT / "conf" / "travel_times.yaml")
    # Records of a second new partition are held back: they count once they are written.
    task = replace(task, contract=tolerant, limit=PartitionLimit(KnownPartitions([]), 1, share=1))
    out_of_order = good(**{LOWER: 9, UPPER: 8})
    records = [good(**{MEAN: "x"}), good(City="Boston", **{MEAN: "x"}), out_of_order, b"not json", good()]
    reports = [task.write(iter([arrived(records)]), f"q-7-0000{number}") for number in range(2)]
    report = sum_reports(reports)
    assert reports[0].reasons == {"not_json": 1}
    assert report.nulled == {"mean_travel_time_seconds.wrong_type": 2}
    assert report.warned == {f"{check['name']}.failed_check": 2}
    totals = RunTotals()
    totals.add_report(report, "processed")
    assert (totals.nulled, totals.warned) == (report.nulled, report.warned)


def read_with_retries(tasks: Iterator[pa.RecordBatch], counters: Counter[str]) -> Iterator[pa.RecordBatch]:
    for records in tasks:
        counters.update(retries=3, throttles=1, resent=5)
        yield records


def test_retried_calls_of_the_reader_are_in_the_report(task: WriteTask) -> None:
    reading = replace(task, records=read_with_retries)
    report, _ = reading.run(iter([arrived([good()] * 4), arrived([good()], first=5)]))
    assert (report.read, report.retries, report.throttles, report.resent) == (5, 6, 2, 10)


def test_a_task_without_records_writes_no_file(task: WriteTask) -> None:
    empty = arrived([])
    assert task.write(iter([]), "q-7-00000") == TaskReport(seconds={"finish": 0.0})
    assert task.write(iter([empty, empty]), "q-7-00000").files == []
    assert not Path(task.lake).exists()


def test_a_batch_of_rejected_records_only_writes_no_parquet(task: WriteTask) -> None:
    report = task.write(iter([arrived([b"x", b"y"])]), "q-7-00000")
    assert (report.processed, report.quarantined) == (0, 2)
    assert files(task, "processed") == []


def test_records_of_many_batches_are_in_one_file_a_partition(task: WriteTask) -> None:
    batches = [arrived([good(), b"x"], first=1 + 2 * number) for number in range(50)]
    report = task.write(iter(batches), "q-7-00000")
    assert (report.read, report.raw, report.processed, report.quarantined) == (100, 100, 50, 50)
    assert sorted(file.rows for file in report.files) == [50, 50, 100]
    assert report.shards["shardId-000000000000"] == SequenceRange("1", "100", 100, ARRIVED)


def test_a_batch_may_span_hours_days_and_shards(task: WriteTask) -> None:
    start = datetime(2026, 11, 23, 22, 30, tzinfo=UTC)
    moments = [start + timedelta(hours=number) for number in range(3)]
    one = arrived([b"x", good(), b"y"], at=moments, shard="a")
    two = arrived([good()], shard="b", first=7)
    report = task.write(iter([pa.Table.from_batches([one, two]).combine_chunks().to_batches()[0]]), "q-7-00000")
    assert report.partitions("raw") == [
        "ingest_date=2026-11-23/hour=10",
        "ingest_date=2026-11-23/hour=22",
        "ingest_date=2026-11-23/hour=23",
        "ingest_date=2026-11-24/hour=00",
    ]
    assert report.partitions("quarantine") == ["ingest_date=2026-11-23", "ingest_date=2026-11-24"]
    assert report.shards == {
        "a": SequenceRange("1", "3", 3, moments[-1]),
        "b": SequenceRange("7", "7", 1, ARRIVED),
    }
    assert (report.raw, report.processed, report.quarantined) == (4, 2, 2)


def test_a_repeated_task_writes_the_same_bytes_under_the_same_names(task: WriteTask) -> None:
    batches = [arrived([good(City=f"c{number % 5}", **{UPPER: 9999}) for number in range(200)] + [b"x"])]
    found = []
    for _ in range(2):
        report = task.write(iter(batches), "q-7-00000")
        found.append(
            (
                report.files,
                {path: path.read_bytes() for kind in ("raw", "processed", "quarantine") for path in files(task, kind)},
            )
        )
    assert found[0] == found[1]


@pytest.mark.parametrize(("count", "cities", "size", "target"), [(1350, 450, 50, 1024**3), (3000, 2, 1000, 1024**2)])
def test_a_second_attempt_with_other_batches_writes_the_same_bytes(
    tmp_path: Path, count: int, cities: int, size: int, target: int
) -> None:
    # The sizes of Kinesis answers vary. 450 partitions or small files close files before the task ends.
    chance = random.Random(4)
    records = [
        b"no"
        if number % 97 == 0
        else good(City=f"c{number % cities}", **{"Origin Geometry": chance.randbytes(size).hex()})
        for number in range(count)
    ]
    whole = arrived(records)
    found = []
    for attempt, portion in enumerate((count, 700, 77)):
        sink = SinkSettings(target_file_bytes=target)
        task = WriteTask(str(tmp_path / f"lake-{attempt}"), "q-7", TRAVEL_TIMES, sink)
        report = task.write((whole.slice(at, portion) for at in range(0, count, portion)), "q-7-00000")
        assert report.read == report.raw == report.processed + report.quarantined == count
        found.append({file.path: (Path(task.lake) / file.path).read_bytes() for file in report.files})
        assert sum(len(files(task, kind)) for kind in ("raw", "processed", "quarantine")) == len(report.files)
    assert len(found[0]) > max(cities, 3)
    assert found[0] == found[1] == found[2]


def test_records_of_an_unknown_shard_are_written_without_runs(task: WriteTask) -> None:
    # As EMR's JVM connector delivers them.
    known = arrived([good(), b"x"])
    unknown = known.set_column(1, "shard_id", pa.nulls(2, pa.string()))
    (answer,) = task(iter([unknown]))
    report = msgspec.json.decode(answer["report"][0].as_py(), type=TaskReport)
    assert (report.read, report.raw, report.processed, report.quarantined) == (2, 2, 1, 1)
    assert all(file.runs == () for file in report.files)


def test_unusual_city_names_read_back_from_folder_names(task: WriteTask) -> None:
    names = [
        "São Paulo",
        "a/b",
        "50%",
        "x=y",
        "what?",
        "it's",
        '"q"',
        "Київ",
        "東京",
        " x ",
        "..",
        "{}",
        "a:b",
    ]
    report = task.write(iter([arrived([good(City=name) for name in names])]), "q-7-00000")
    assert report.processed == len(names)
    folders = ds.partitioning(pa.schema([("city", pa.string()), ("start_date", pa.string())]), flavor="hive")
    found = ds.dataset(f"{task.lake}/processed", format="parquet", partitioning=folders).to_table(columns=["city"])
    assert sorted(found["city"].to_pylist()) == sorted(names)


def test_a_partition_beyond_the_target_size_continues_in_another_file(tmp_path: Path) -> None:
    target = 1024 * 1024
    chance = random.Random(1)
    sink = SinkSettings(target_file_bytes=target, parquet_compression="none", raw_compression_level=1)
    task = WriteTask(str(tmp_path / "lake"), "q-7", TRAVEL_TIMES, sink)

    def batch() -> pa.RecordBatch:
        return arrived([good(**{"Origin Geometry": chance.randbytes(25_000).hex()}) for _ in range(20)])

    report = task.write((batch() for _ in range(20)), "q-7-00000")
    sizes = {kind: [file.bytes for file in report.files if file.kind == kind] for kind in ("raw", "processed")}
    assert len(sizes["raw"]) > 5
    assert len(sizes["processed"]) > 2
    # A file's size is checked after each block (raw) or row group (Parquet: at most four targets of Arrow).
    assert all(size < 2.5 * target for size in sizes["raw"])
    assert all(size < 6 * target for size in sizes["processed"])
    assert report.raw == report.processed == 400


def test_a_task_can_be_pickled(task: WriteTask) -> None:
    batches = pickle.loads(pickle.dumps(task))(iter([arrived([good(), b"x"])]))
    (answer,) = list(batches)
    report = msgspec.json.decode(answer["report"][0].as_py(), type=TaskReport)
    assert (report.read, report.processed, report.quarantined) == (2, 1, 1)


def test_every_accepted_row_passes_the_contracts_checks(task: WriteTask) -> None:
    records: list[Any] = [good(**{LOWER: low, MEAN: 5, UPPER: 9}) for low in range(-3, 12)]
    task.write(iter([arrived(records)]), "q-7-00000")
    (file,) = files(task, "processed")
    rows = pq.ParquetFile(file).read().to_pylist()
    assert sorted(row["lower_bound_travel_time_seconds"] for row in rows) == [0, 1, 2, 3, 4, 5]


def test_gzip_records_are_text_in_raw_and_quarantine(task: WriteTask) -> None:
    reading = replace(task, contract=contract_with(encoding="gzip"))
    broken = gzip.compress(good())[:-1]
    records = [gzip.compress(good()), broken, gzip.compress(b"not json"), good(City="Boston")]
    report = reading.write(iter([arrived(records)]), "q-7-00000")
    assert (report.read, report.raw, report.processed, report.quarantined) == (4, 4, 2, 2)
    assert report.reasons == {"not_gzip": 1, "not_json": 1}
    raw = b"".join(lines_of(files(task, "raw")))
    assert raw.startswith(good() + b"\n")
    assert raw.endswith(b"\nnot json\n" + good(City="Boston") + b"\n")
    kept = [json.loads(line) for line in lines_of(files(task, "quarantine"))]
    assert [(line["encoding"], line["reason"]) for line in kept] == [("base64", "not_gzip"), ("utf-8", "not_json")]
    assert base64.b64decode(kept[0]["payload"]) == broken
    assert kept[1]["payload"] == "not json"


def test_raw_lines_of_gzip_records_become_the_same_rows(task: WriteTask) -> None:
    reading = replace(task, contract=contract_with(encoding="gzip"))
    reading.write(iter([arrived([gzip.compress(good()), gzip.compress(good(City="Lima"))])]), "q-7-00000")
    lines = [line.rstrip(b"\n") for line in lines_of(files(task, "raw"))]
    report = reading.write(iter([arrived(lines)]), "q-8-00000")
    assert (report.processed, report.quarantined) == (2, 0)
