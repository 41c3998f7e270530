"""The delivery job on the embedded AWS: delivery files in; processed_batch, quarantine, partitions and ledger out."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobs.catalog.check import catalog_check
from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import batch_tables
from jobs.common.aws import client
from jobs.common.errors import AwsAccessError, BatchMismatchError, MovementError
from jobs.delivery import job as delivery_job
from jobs.delivery.ledger import DeliveryLedger, DeliveryRun
from jobs.lake.store import lake_at
from jobs.lake.task_report import TaskReport
from jobs.schema.partitions import partition_path
from jobs.settings.settings import Settings
from tests.helpers.delivered import (
    CONTRACT,
    NOON,
    crawl,
    deliver,
    numbers,
    quarantined,
    reasons,
    record,
    rows,
    run_batch,
)
from tests.helpers.paths import ROOT

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.aws]


def files(settings: Settings, prefix: str) -> list[str]:
    return [path for path, _ in lake_at(settings.lake).list(prefix)]


def test_gzip_and_plain_with_and_without_delimiter_give_the_same_rows(
    spark: SparkSession, lake_settings: Settings
) -> None:
    paths = {
        deliver(lake_settings, [record(n=4 * kind + each) for each in range(4)], delimiter=delimiter, zipped=zipped)
        for kind, (delimiter, zipped) in enumerate([(b"", True), (b"\n", True), (b"", False), (b"\n", False)])
    }
    pretty = [json.dumps(json.loads(record(n=number)), indent=2).encode() for number in range(16, 20)]
    paths.add(deliver(lake_settings, [pretty[0], pretty[1] + b"\n", pretty[2], pretty[3]]))

    result = run_batch(spark, lake_settings)

    assert (result.files, result.read, result.processed, result.quarantined) == (5, 20, 20, 0)
    assert numbers(lake_settings) == list(range(20))
    assert result.partitions == ["city=Paris/start_date=2016-09-03"]
    found = list(rows(lake_settings))
    assert {row["shard_id"] for row in found} == paths
    assert {row["arrival_time"] for row in found} == {NOON}
    assert {row["batch"] for row in found} == {"batch-0"}
    assert {row["origin_display_name"] for row in found} == {"Quai des Orfèvres"}
    assert files(lake_settings, "raw/") == []


def test_its_partitions_are_in_the_catalog(spark: SparkSession, lake_settings: Settings) -> None:
    deliver(lake_settings, [record(), record(City="a/b"), b"bad"])

    run_batch(spark, lake_settings)

    catalog = GlueCatalog(client("glue"), lake_settings.database, lake_settings.lake)
    catalog.ensure_tables(batch_tables(CONTRACT))
    assert sorted(partition_path(CONTRACT.partition_by, found) for found in catalog.partitions("processed_batch")) == [
        "city=Paris/start_date=2016-09-03",
        "city=a%2Fb/start_date=2016-09-03",
    ]
    assert catalog.partitions("quarantine") == [{"ingest_date": "2026-11-23"}]


def test_a_table_that_was_dropped_is_filled_again_although_there_are_no_new_files(
    spark: SparkSession, lake_settings: Settings
) -> None:
    deliver(lake_settings, [record(), record(City="Lima"), b"bad"])
    run_batch(spark, lake_settings)
    client("glue").delete_table(DatabaseName=lake_settings.database, Name="processed_batch")
    assert catalog_check(lake_settings).differences()[-1].missing

    assert run_batch(spark, lake_settings).runs == 0

    found = {each.table: each for each in catalog_check(lake_settings).differences()}
    assert (found["processed_batch"].count, found["processed_batch"].partitions) == (0, 2)


def test_only_new_files_are_processed(spark: SparkSession, lake_settings: Settings) -> None:
    deliver(lake_settings, [record(n=0), record(n=1)])
    first = run_batch(spark, lake_settings)
    again = run_batch(spark, lake_settings)
    deliver(lake_settings, [record(n=2)], at=NOON + timedelta(hours=1))
    deliver(lake_settings, [record(n=3)], at=NOON - timedelta(days=3))  # late, into a partition of its own
    deliver(lake_settings, [record(n=4)])  # late, into a partition that was read before
    late = run_batch(spark, lake_settings)

    assert (first.files, again.files, again.runs, late.files) == (1, 0, 0, 3)
    assert numbers(lake_settings) == [0, 1, 2, 3, 4]


def test_a_file_in_a_folder_that_was_not_crawled_waits_for_the_crawl(
    spark: SparkSession, lake_settings: Settings
) -> None:
    deliver(lake_settings, [record(n=0)])
    crawl(lake_settings)
    deliver(lake_settings, [record(n=1)], at=NOON + timedelta(hours=1))

    assert delivery_job.run(spark, lake_settings).files == 1
    assert run_batch(spark, lake_settings).files == 1
    assert numbers(lake_settings) == [0, 1]


def test_malformed_records_are_rejected_for_the_same_reasons_as_on_the_stream(
    spark: SparkSession, lake_settings: Settings
) -> None:
    broken = b'{"City": "Paris", \xff\xfe'
    bad = [b"not JSON", broken, record(**{"Date Range": "soon"}), b'[{"a": 1}]', b'"{}"', b'{"City": "Par', b"7"]
    good = [record(n=number) for number in range(len(bad))]
    deliver(lake_settings, [part for pair in zip(bad, good, strict=True) for part in pair])
    deliver(lake_settings, bad, delimiter=b"\n")

    result = run_batch(spark, lake_settings)

    once = {"not_json": 2, "not_utf8": 1, "bad_date_range": 1, "not_an_object": 3}
    assert reasons(lake_settings) == {reason: 2 * count for reason, count in once.items()} == result.reasons
    assert (result.read, result.processed, result.quarantined) == (21, 7, 14)
    assert numbers(lake_settings) == list(range(7))
    payloads = {
        base64.b64decode(line["payload"]) if line["encoding"] == "base64" else line["payload"].encode()
        for line in quarantined(lake_settings)
    }
    assert payloads == set(bad)


def test_the_readable_part_of_a_damaged_gzip_file_is_kept_and_the_rest_is_quarantined(
    spark: SparkSession, lake_settings: Settings
) -> None:
    whole = gzip.compress(b"".join(record(n=number, x=str(number) * 40) for number in range(2000)))
    deliver(lake_settings, [record(n=9999)])
    crawl(lake_settings)
    deliver(lake_settings, [], content=whole[: len(whole) // 2])
    deliver(lake_settings, [], content=b"this is no gzip")

    result = delivery_job.run(spark, lake_settings)

    found = numbers(lake_settings)
    assert found[-1] == 9999
    assert found[:-1] == list(range(len(found) - 1))
    assert 100 < len(found) < 2000
    assert result.read == result.processed + result.quarantined
    assert set(result.reasons) == {"not_utf8", "not_json"}


class Killed(BaseException):
    """Stands for kill -9: no code runs after it."""


@pytest.mark.parametrize("step", ["write", "register", "ledger"])
def test_after_a_kill_at_any_step_the_next_job_executes_the_same_plan(
    spark: SparkSession, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise Killed

    deliver(lake_settings, [record(n=number) for number in range(10)] + [b"bad"])
    owner, name = {
        "write": (delivery_job.DeliveryJob, "write"),
        "register": (GlueCatalog, "register"),
        "ledger": (DeliveryLedger, "commit"),
    }[step]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die)
        with pytest.raises(Killed):
            run_batch(spark, lake_settings)
    # A file that a run of an older release may have left there.
    stray = "processed_batch/city=Paris/start_date=2016-09-03/batch-0-00077-000.parquet"
    with (ROOT / "tests" / "helpers" / "delivered.py").open("rb") as anything:
        lake_at(lake_settings.lake).put(stray, anything)
    deliver(lake_settings, [record(n=10)])

    result = run_batch(spark, lake_settings)

    assert (result.runs, result.files, result.processed, result.quarantined) == (2, 2, 11, 1)
    assert numbers(lake_settings) == list(range(11))
    assert reasons(lake_settings) == {"not_json": 1}
    assert stray not in files(lake_settings, "processed_batch/")
    assert files(lake_settings, "_ledger/batch/") == ["_ledger/batch/0.json", "_ledger/batch/1.json"]


def test_two_jobs_at_once_execute_the_same_plan_and_duplicate_nothing(
    spark: SparkSession, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(lake_settings, [record(n=number) for number in range(10)])
    commit = DeliveryLedger.commit

    def overtaken(ledger: DeliveryLedger, entry: DeliveryRun) -> bool:
        monkeypatch.undo()
        other = delivery_job.run(spark, lake_settings)
        assert other.processed == 10
        return commit(ledger, entry)

    crawl(lake_settings)
    monkeypatch.setattr(DeliveryLedger, "commit", overtaken)
    result = delivery_job.run(spark, lake_settings)

    assert result.processed == 0  # the other job has committed the run
    assert numbers(lake_settings) == list(range(10))
    assert files(lake_settings, "_ledger/batch/") == ["_ledger/batch/0.json"]


def test_500_small_files_become_a_few_large_ones(spark: SparkSession, lake_settings: Settings) -> None:
    for number in range(500):
        deliver(lake_settings, [record(n=number)], at=NOON + timedelta(minutes=number % 180), zipped=number % 2 == 0)

    result = run_batch(spark, lake_settings)

    assert (result.runs, result.files, result.processed) == (1, 500, 500)
    assert numbers(lake_settings) == list(range(500))
    assert len(files(lake_settings, "processed_batch/")) <= spark.sparkContext.defaultParallelism


def test_a_backlog_takes_several_runs(
    spark: SparkSession, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_job, "RUN_FILES", 3)
    for number in range(7):
        deliver(lake_settings, [record(n=number)])
    seen: list[int] = []
    crawl(lake_settings)

    result = delivery_job.run(spark, lake_settings, on_run=lambda entry: seen.append(len(entry.files)))

    assert (result.runs, seen) == (3, [3, 3, 1])
    assert numbers(lake_settings) == list(range(7))


def test_counts_that_do_not_add_up_are_not_committed(lake_settings: Settings) -> None:
    ledger = DeliveryLedger(lake_at(lake_settings.lake))
    entry = DeliveryRun(0, NOON, NOON, [], TaskReport(read=3, processed=1, quarantined=1), {}, {})

    with pytest.raises(BatchMismatchError, match="3 records read, 1 processed rows, 1 quarantined"):
        ledger.commit(entry)

    assert ledger.files_by_run() == {}


def test_the_error_for_a_deleted_file_names_it_and_the_remedy(spark: SparkSession, lake_settings: Settings) -> None:
    path = deliver(lake_settings, [record()])
    crawl(lake_settings)
    job = delivery_job.DeliveryJob(spark, lake_settings, lake_settings.database, "delivery")
    found = job.next_plan()
    assert found is not None
    lake_at(lake_settings.lake).delete([path])

    with pytest.raises(MovementError, match=rf"{path} is gone.*an empty file in its place"):
        job.execute(*found)


def test_without_a_crawl_the_error_names_the_missing_table(spark: SparkSession, lake_settings: Settings) -> None:
    with pytest.raises(AwsAccessError, match=r"delivery.*the crawler makes it"):
        delivery_job.run(spark, lake_settings)


def test_the_entry_point_takes_glue_s_arguments(spark: SparkSession, lake_settings: Settings, tmp_path: Path) -> None:
    deliver(lake_settings, [record(n=1)])
    crawl(lake_settings)
    config = tmp_path / "settings.yaml"
    config.write_text(json.dumps(lake_settings.model_dump(mode="json")))
    glue = ["--JOB_NAME", "batch", "--JOB_RUN_ID", "jr_1", "--enable-metrics", "true", "--conf", "spark.x=y"]
    trigger = ["--trigger_event", "e-1", "--crawled_until", "2026-11-23T12:00:00Z"]
    table = ["--database", lake_settings.database, "--table", "delivery"]

    code = delivery_job.main([*glue, *trigger, *table, "--config", str(config), "--json", str(tmp_path / "out.json")])

    assert code == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["files"], result["read"], result["processed"]) == (1, 1, 1)
    assert delivery_job.main(["--config", str(config), "--set", "nonsense=1"]) == 2
    assert delivery_job.main(["--config", str(config), "--table", "no_such_table"]) == 1
