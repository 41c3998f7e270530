"""The whole streaming job in this process, against the embedded AWS: records in, lake and catalog out."""

from __future__ import annotations

import base64
import csv
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.glue_calls import BatchAnswer, GlueCalls
from jobs.common.aws import client
from jobs.common.errors import AlreadyRunningError, MovementError, TerminalError, TooManyRejectedError
from jobs.common.process_identity import signature
from jobs.lake.lease import Lease
from jobs.lake.ledger import Ledger, LedgerEntry, entries
from jobs.lake.store import lake_at
from jobs.settings.sections import SinkSettings
from jobs.settings.settings import Settings, StreamJobSettings
from jobs.stream.job import StreamResult, run
from producer.produce import produce
from tests.helpers.lakes import (
    CONTRACT,
    catalogued,
    folders,
    make_lake,
    processed_rows,
    put,
    raw_lines,
    record,
    record_numbers,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.aws]


def drain(spark: SparkSession, settings: Settings) -> StreamResult:
    return run(lambda: spark, settings, until_drained=True)


def test_every_field_of_every_row_of_the_real_exports_is_in_the_lake(
    spark: SparkSession, lake_settings: Settings, exports: Path
) -> None:
    produce([exports], lake_settings)

    result = drain(spark, lake_settings)

    assert (result.read, result.raw, result.processed, result.quarantined) == (3153, 3153, 3153, 0)
    assert len(raw_lines(lake_settings)) == 3153
    expected = Counter(
        tuple((column.column, _as_table(column.type, value)) for column, value in _fields(row, file))
        for file in exports.glob("*.csv")
        for row in csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")))
    )
    columns = [column.column for column in CONTRACT.columns]
    found = Counter(tuple((name, row[name]) for name in columns) for row in processed_rows(lake_settings))
    assert found == expected
    assert (
        folders(lake_settings)
        == catalogued(lake_settings)
        == [
            "city=Boston/start_date=2016-07-31",
            "city=Johannesburg and Pretoria/start_date=2016-07-31",
            "city=Paris/start_date=2016-09-03",
        ]
    )
    assert catalogued(lake_settings, "raw") == folders(lake_settings, "raw")


def _fields(row: dict[str, str], file: Path) -> Iterator[tuple[Any, str | None]]:
    city = file.stem.removeprefix("Travel_Times - ")
    for column in CONTRACT.columns:
        yield column, city if column.source == "City" else row.get(column.source)


def _as_table(kind: str, value: str | None) -> object:
    return int(value) if kind == "int" and value is not None else value


def test_derived_columns_and_columns_of_origin(spark: SparkSession, lake_settings: Settings) -> None:
    put(lake_settings, [record()])

    drain(spark, lake_settings)

    (row,) = processed_rows(lake_settings)
    assert (str(row["start_date"]), str(row["end_date"])) == ("2016-09-03", "2016-10-01")
    assert (row["day_filter"], row["time_filter"]) == ("Every day", "Daily Average")
    assert row["shard_id"].startswith("shardId-")
    assert row["sequence_number"].isdigit()
    assert row["arrival_time"].tzinfo is not None
    query, _, batch = row["batch"].partition("-")
    assert Ledger(lake_at(lake_settings.lake), query).entry(int(batch)) is not None


def test_a_58_kb_geometry_and_unusual_city_names_arrive_unchanged(spark: SparkSession, lake_settings: Settings) -> None:
    ring = json.dumps([[-71.062911 + n / 1e6, 42.361229] for n in range(2600)], separators=(",", ":"))
    assert len(ring) > 58_000
    cities = ["São Paulo", "a/b", "a:b=c%20", 'it\'s "quoted"', "東京", "x y  z", "#?*{}[]^"]
    put(lake_settings, [record(City=city, **{"Origin Geometry": ring}) for city in cities])

    drain(spark, lake_settings)

    rows = list(processed_rows(lake_settings))
    assert sorted(row["city"] for row in rows) == sorted(cities)
    assert {row["origin_geometry"] for row in rows} == {ring}
    assert catalogued(lake_settings) == folders(lake_settings)
    # Spark must read the same names from the same folders.
    seen = spark.read.parquet(f"{lake_settings.lake}/processed").select("city").distinct().collect()
    assert sorted(row.city for row in seen) == sorted(cities)


def test_a_bad_record_goes_to_quarantine_with_its_bytes_and_the_rest_is_written(
    spark: SparkSession, lake_settings: Settings
) -> None:
    broken = b'{"City": "Paris", \xff\xfe'
    bad = [b"not JSON,\nat all", broken, record(**{"Date Range": "soon"})]
    put(lake_settings, [record(), *bad, record(City="Boston", n=1)])

    result = drain(spark, lake_settings)

    assert (result.raw, result.processed, result.quarantined, result.rescued) == (5, 2, 3, 1)
    assert result.reasons == {"not_json": 1, "not_utf8": 1, "bad_date_range": 1}
    found = [json.loads(line) for line in raw_lines(lake_settings, "quarantine")]
    payloads = {
        entry["reason"]: base64.b64decode(entry["payload"])
        if entry["encoding"] == "base64"
        else entry["payload"].encode()
        for entry in found
    }
    assert payloads == {"not_json": bad[0], "not_utf8": broken, "bad_date_range": bad[2]}
    assert {entry["field"] for entry in found} == {None, "Date Range"}
    assert all(entry["shard_id"] and entry["sequence_number"] for entry in found)
    assert len(raw_lines(lake_settings)) == 5


def test_a_restarted_job_continues_where_it_ended(spark: SparkSession, lake_settings: Settings) -> None:
    put(lake_settings, (record(n=number) for number in range(20)))
    first = drain(spark, lake_settings)
    put(lake_settings, (record(n=number) for number in range(20, 50)))
    second = drain(spark, lake_settings)
    third = drain(spark, lake_settings)

    assert (first.read, second.read, third.read) == (20, 30, 0)
    assert record_numbers(lake_settings) == list(range(50))
    assert len(raw_lines(lake_settings)) == 50


def test_a_new_checkpoint_on_an_old_lake_changes_no_existing_file(spark: SparkSession, lake_settings: Settings) -> None:
    put(lake_settings, [*(record(n=number) for number in range(10)), b"not json"])
    drain(spark, lake_settings)
    lake = lake_at(lake_settings.lake)

    def contents() -> dict[str, bytes | None]:
        tables = ("raw/", "processed/", "quarantine/", "_ledger/")
        return {path: lake.get(path) for table in tables for path, _ in lake.list(table)}

    before = contents()
    assert len({path.partition("/")[0] for path in before}) == 4

    again = lake_settings.model_copy(
        update={"stream_job": lake_settings.stream_job.model_copy(update={"checkpoint": f"{lake_settings.lake}/_new"})}
    )
    run(lambda: spark, again, until_drained=True, start_from="stream")

    after = contents()
    assert {path: after.get(path) for path in before} == before
    assert len(after) == 2 * len(before)
    assert record_numbers(lake_settings) == sorted([*range(10), *range(10)])


@pytest.mark.parametrize("lost", ["the newest batch", "metadata", "everything"])
def test_spark_goes_on_from_a_checkpoint_that_the_job_put_to_the_ledgers_end(
    spark: SparkSession, lake_settings: Settings, lost: str, tmp_path: Path
) -> None:
    place = lake_at(lake_settings.checkpoint)
    if lost == "metadata":  # in a folder Spark keeps checksums beside the files
        lake_settings = lake_settings.model_copy(
            update={"stream_job": StreamJobSettings(checkpoint=str(tmp_path / "checkpoint"))}
        )
        place = lake_at(lake_settings.checkpoint)
    for first in (0, 10):
        put(lake_settings, (record(n=number) for number in range(first, first + 10)))
        drain(spark, lake_settings)
    names = [path for path, _ in place.list("") if not path.startswith("_drafts") and not path.endswith("/")]
    if lost == "the newest batch":
        newest = max(int(path.partition("/")[2]) for path in names if path.startswith("offsets/"))
        place.delete([f"offsets/{newest}", f"commits/{newest}"])
    else:
        place.delete([path for path in names if lost == "everything" or path == lost])
    put(lake_settings, (record(n=number) for number in range(20, 30)))
    if lost == "everything":
        with pytest.raises(TerminalError, match="--start-from ledger"):
            drain(spark, lake_settings)

    run(lambda: spark, lake_settings, until_drained=True, start_from="ledger" if lost == "everything" else None)
    put(lake_settings, [record(n=30)])
    drain(spark, lake_settings)

    assert record_numbers(lake_settings) == list(range(31))
    assert len({entry.query for entry in entries(lake_at(lake_settings.lake))}) == 1


def test_it_drains_to_the_tip_at_its_start_although_producers_continue(
    spark: SparkSession, lake_settings: Settings
) -> None:
    put(lake_settings, (record(n=number) for number in range(50)))
    ended = threading.Event()

    def produce_more() -> None:
        number = 50
        while not ended.is_set():
            put(lake_settings, [record(n=number)])
            number += 1
            time.sleep(0.01)

    producer = threading.Thread(target=produce_more)
    producer.start()
    try:
        result = drain(spark, lake_settings)
    finally:
        ended.set()
        producer.join()

    numbers = record_numbers(lake_settings)
    assert result.read == len(numbers) >= 50
    assert numbers == list(range(len(numbers)))


def test_the_ledger_waits_for_the_catalog(
    spark: SparkSession, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake_settings, (record(n=number) for number in range(5)))
    real = GlueCatalog.register

    def refuse_processed(self: GlueCatalog, table: str, partitions: list[str], locations: Any = None) -> int:
        if table == "processed":
            raise TerminalError("register partitions of processed: given up")
        return real(self, table, partitions, locations)

    with monkeypatch.context() as patched:
        patched.setattr(GlueCatalog, "register", refuse_processed)
        with pytest.raises(TerminalError, match="given up"):
            drain(spark, lake_settings)
    assert list(lake_at(lake_settings.lake).list("_ledger/")) == []

    assert drain(spark, lake_settings).processed == 5
    assert record_numbers(lake_settings) == list(range(5))
    assert catalogued(lake_settings) == folders(lake_settings)
    assert len(list(lake_at(lake_settings.lake).list("_ledger/"))) == 1


def test_a_stop_waits_for_the_current_batch(spark: SparkSession, tmp_path: Path, embedded_aws: object) -> None:
    settings = make_lake(tmp_path, "stream_job.trigger_seconds=0")
    put(settings, (record(n=number) for number in range(30)))
    stop = threading.Event()

    result = run(lambda: spark, settings, stop=stop, on_batch=lambda _: stop.set())

    assert result.batches == 1
    assert result.read == len(raw_lines(settings)) == len(list(processed_rows(settings)))


def test_a_batch_that_fails_during_a_stop_is_a_failure_and_the_next_start_deletes_its_files(
    spark: SparkSession, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake_settings, (record(n=number) for number in range(5)))
    stop = threading.Event()

    def stopped_meanwhile(*_: Any, **__: Any) -> int:
        stop.set()
        raise TerminalError("register partitions: the executors are gone")

    with monkeypatch.context() as patched:
        patched.setattr(GlueCatalog, "register", stopped_meanwhile)
        with pytest.raises(TerminalError, match="the executors are gone"):
            run(lambda: spark, lake_settings, stop=stop)
    lake = lake_at(lake_settings.lake)
    # A file that the repeated batch does not overwrite, as if another deployment had split the batch differently.
    (path, _), *_ = lake.list("processed/")
    assert lake.copy(path, path.replace("-0000", "-9999"))

    assert drain(spark, lake_settings).processed == 5
    assert record_numbers(lake_settings) == list(range(5))


def test_a_batch_with_too_many_rejected_records_leaves_no_file_and_is_read_again(
    spark: SparkSession, lake_settings: Settings
) -> None:
    put(lake_settings, [record(n=0)])
    drain(spark, lake_settings)
    lake = lake_at(lake_settings.lake)
    tables = ("raw/", "processed/", "quarantine/")
    before = {path for table in tables for path, _ in lake.list(table)}
    put(lake_settings, [*(record(n=number) for number in range(1, 60)), *[b"not json"] * 60])

    with pytest.raises(TooManyRejectedError, match="60 of 119 records rejected"):
        drain(spark, lake_settings.model_copy(update={"sink": SinkSettings(fail_on_max_rejected_share=True)}))
    assert {path for table in tables for path, _ in lake.list(table)} == before

    result = drain(spark, lake_settings)
    assert (result.processed, result.quarantined) == (59, 60)
    assert record_numbers(lake_settings) == list(range(60))


def test_a_second_job_on_the_checkpoint_is_refused_before_it_changes_the_catalog(
    spark: SparkSession, lake_settings: Settings
) -> None:
    mine = lake_settings.model_copy(
        update={"stream_job": StreamJobSettings(checkpoint=f"s3a{lake_settings.lake[2:]}/_ck/")}
    )
    with (
        Lease(lake_at(lake_settings.lake), f"{lake_settings.lake}/_ck"),
        pytest.raises(AlreadyRunningError, match="another job on the checkpoint"),
    ):
        drain(spark, mine)
    assert client("glue").get_tables(DatabaseName=lake_settings.database)["TableList"] == []


def test_it_writes_to_a_local_folder_as_to_s3(spark: SparkSession, tmp_path: Path, embedded_aws: object) -> None:
    settings = make_lake(tmp_path, f"lake={tmp_path / 'lake'}")
    put(settings, [record(), b"nothing"])
    killed = tmp_path / "lake" / "_drafts" / f"{signature().rpartition('.')[0]}.1-x"  # of a process that has ended
    killed.parent.mkdir(parents=True)
    killed.write_bytes(b"half")

    result = drain(spark, settings)

    assert not killed.exists()

    assert (result.raw, result.processed, result.quarantined) == (2, 1, 1)
    assert len(list((tmp_path / "lake" / "processed").rglob("*.parquet"))) == 1
    assert catalogued(settings) == ["city=Paris/start_date=2016-09-03"]


def test_small_files_of_several_tasks_are_merged_into_one_file_a_partition(
    spark: SparkSession, lake_settings: Settings
) -> None:
    settings = lake_settings.model_copy(
        update={"source": lake_settings.source.model_copy(update={"options": {"bytesPerTask": 0}})}
    )
    put(settings, [record(City=f"City {number % 3}") for number in range(60)] + [b"x", b"y", b"z"])
    assert drain(spark, settings).processed == 60
    (entry,) = [entry for entry in entries(lake_at(settings.lake)) if entry.report.read]
    report = entry.report
    assert len(report.shards) > 1, "several tasks had records"
    per_partition = Counter((file.kind, file.partition) for file in report.files)
    assert len(per_partition) == 5
    assert set(per_partition.values()) == {1}
    assert sorted(raw_lines(settings)) == sorted([record(City=f"City {n % 3}") for n in range(60)] + [b"x", b"y", b"z"])
    assert {
        path: size
        for table in ("raw", "processed", "quarantine")
        for path, size in lake_at(settings.lake).list(f"{table}/")
    } == {file.path: file.bytes for file in report.files}


def test_a_missing_stream_is_one_clear_error(spark: SparkSession, lake_settings: Settings) -> None:
    settings = lake_settings.model_copy(
        update={"stream": lake_settings.stream.model_copy(update={"name": "no-such-stream"})}
    )

    with pytest.raises(MovementError, match="no-such-stream"):
        drain(spark, settings)


def test_a_partition_that_glue_refuses_is_an_alarm_of_the_batch_and_the_job_goes_on(
    spark: SparkSession, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake_settings, [record(n=0), record(City="Lima", n=1)])
    real = GlueCalls.batch

    def refusing(self: GlueCalls, what: str, send: Any, entries: Any, **options: Any) -> BatchAnswer:
        kept = {values: entry for values, entry in entries.items() if values[0] != "Lima"}
        answer = real(self, what, send, kept, **options) if kept else BatchAnswer()
        answer.refused |= dict.fromkeys(entries.keys() - kept.keys(), "InvalidInputException: no")
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(GlueCalls, "batch", refusing)
        assert drain(spark, lake_settings).processed == 2
    (entry,) = [entry for entry in entries(lake_at(lake_settings.lake)) if entry.report.read]
    (alarm,) = entry.alarms
    assert alarm.startswith(f"partition city=Lima/start_date=2016-09-03 of {lake_settings.database}.processed: Glue")
    assert record_numbers(lake_settings) == [0, 1], "its rows are in the lake"
    assert catalogued(lake_settings) == ["city=Paris/start_date=2016-09-03"]

    drain(spark, lake_settings)  # Glue takes it now
    assert catalogued(lake_settings) == folders(lake_settings)


def test_what_was_dropped_from_the_catalog_is_registered_again_by_the_next_start(
    spark: SparkSession, lake_settings: Settings
) -> None:
    put(lake_settings, [record(n=0), b"not json"])
    drain(spark, lake_settings)
    client("glue").delete_database(Name=lake_settings.database)
    drain(spark, lake_settings)
    for table in ("raw", "processed", "quarantine"):
        assert catalogued(lake_settings, table) == folders(lake_settings, table) != []


def test_a_database_that_is_dropped_while_the_job_runs_is_created_again(
    spark: SparkSession, lake_settings: Settings
) -> None:
    settings = lake_settings.model_copy(
        update={"source": lake_settings.source.model_copy(update={"max_records_per_batch": 5})}
    )
    put(settings, [record(City=f"City {number}", n=number) for number in range(20)])

    def drop_once(entry: LedgerEntry) -> None:
        if entry.batch == 0:
            client("glue").delete_database(Name=settings.database)

    result = run(lambda: spark, settings, until_drained=True, on_batch=drop_once)
    assert (result.read, result.quarantined) == (20, 0)
    assert record_numbers(settings) == list(range(20))
    drain(spark, settings)
    assert catalogued(settings) == folders(settings)
