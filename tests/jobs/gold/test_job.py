"""The gold job: committed batches become Delta tables, in increments, also after a kill; read back without Spark."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import MagicMock

import pytest
from pyspark.errors import PySparkException

from jobs.common.aws import client
from jobs.common.errors import AlreadyRunningError, BatchMismatchError, ConfigurationError
from jobs.gold import job as gold_job
from jobs.gold.job import GoldResult
from jobs.gold.tables import gold_tables
from jobs.lake.delta import open_delta
from jobs.lake.lease import Lease
from jobs.lake.store import lake_at
from jobs.schema.table import load_contract
from jobs.settings.settings import Settings
from tests.helpers import clicks
from tests.helpers.lakes import make_lake
from tests.helpers.made_gold import NOON, assert_gold_is_plain, finish, gold_rows, some_records
from tests.helpers.paths import ROOT
from tests.helpers.plain_gold import TABLES
from tests.helpers.samples import MEAN, READINGS_YAML, good

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.aws]

KILLS = int(os.environ.get("GOLD_KILLS", "1"))
# An increment is four commits of Delta: `make nightly` has the ten and more kills.
INCREMENTS = int(os.environ.get("GOLD_INCREMENTS", "4"))
CLICK_BATCHES = INCREMENTS // 2


@pytest.fixture
def folder(embedded_aws: object, tmp_path: Path) -> Settings:
    """Settings of a lake in a folder, which is faster than S3."""
    return make_lake(tmp_path, f"lake={tmp_path / 'lake'}")


def run(spark: SparkSession, settings: Settings) -> GoldResult:
    return gold_job.run(lambda: spark, settings)


def no_spark() -> SparkSession:
    raise AssertionError("Spark was started although there is no new batch")


def killed(settings: Settings, tmp_path: Path, fault: str) -> None:
    """Runs the job in a process that kills itself (kill -9) at the fault point."""
    config, output = tmp_path / "settings.yaml", tmp_path / "killed.log"
    config.write_text(json.dumps(settings.model_dump(mode="json")), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MOVEMENT_FAULT": fault}
    with output.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.gold_job", "--config", str(config), "--set", "spark.master=local[2]"],
            cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(300)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert code == -signal.SIGKILL, output.read_text(encoding="utf-8", errors="replace")[-3000:]


@pytest.mark.nightly
def test_gold_equals_a_recomputation_after_increments_with_a_kill_in_between(
    spark: SparkSession, folder: Settings, tmp_path: Path
) -> None:
    chance = random.Random(os.environ.get("GOLD_SEED", "1"))
    settings = folder.model_copy(update={"gold": folder.gold.model_copy(update={"increment_batches": 1})})
    final = 0
    for _ in range(KILLS):
        for _ in range(2):
            finish(settings, "first", final, *some_records(chance, 60))
            final += 1
        # Then some tables of the first or second increment are written and the others are not.
        number = chance.randint(2, 3) + 4 * (INCREMENTS > 4)
        killed(settings, tmp_path, f"gold.{chance.choice(['writing', 'written'])}:{number}")
    ahead = progress(settings, "first", "corridor_history"), progress(settings, "first", "city_summary")
    finish(settings, "first", final, [])
    for number in range(INCREMENTS - 2 * KILLS):
        if number % 2:
            finish(settings, "second", number // 2, *some_records(chance, 60))
        else:
            finish(settings, "first", final + 1 + number // 2, *some_records(chance, 60))
    done = run(spark, settings)

    assert ahead[1] < final - 1, "the kill came before the end"
    rows = assert_gold_is_plain(settings)
    assert {name: figures["rows"] for name, figures in done.tables.items()} == rows
    assert done.increments > INCREMENTS - 2 * KILLS
    again = gold_job.run(no_spark, settings)
    assert (again.increments, again.tables["corridors"]["new"]) == (0, 0)


def test_on_s3_with_glue_tables_manifests_and_upkeep(spark: SparkSession, lake_settings: Settings) -> None:
    finish(lake_settings, "q", 0, [good(), good(City="a/b"), b"bad"])
    finish(lake_settings, "q", 1, [good(**{MEAN: 400}), good(City="São Paulo")], at=NOON.replace(hour=13))

    first = run(spark, lake_settings)

    assert (first.rows, first.batches, first.increments) == (4, {"q": 2}, 1)
    assert first.tables["corridors"] == {"rows": 3, "new": 3}
    assert_gold_is_plain(lake_settings)

    finish(lake_settings, "q", 2, [good(**{MEAN: 300})], at=NOON.replace(hour=11))
    run(spark, lake_settings)
    kept = {entry.table: entry for entry in gold_job.maintain(spark, lake_settings)}

    assert (kept["corridor_history"].files_before, kept["corridor_history"].files_after) == (2, 1)
    assert_gold_is_plain(lake_settings)
    assert {
        row["mean_travel_time_seconds"] for row in gold_rows(lake_settings, "corridors") if row["city"] == "Paris"
    } == {400}
    assert progress(lake_settings, "q", "corridor_history") == 2, "maintenance keeps the progress"
    lake = lake_at(lake_settings.lake)
    for table in TABLES:
        opened = open_delta(f"{lake_settings.lake}/{table.folder}")
        assert opened is not None
        assert (opened.protocol().min_reader_version, opened.protocol().reader_features) == (1, None)
        listed = (lake.get(f"{table.folder}/_symlink_format_manifest/manifest") or b"").decode().splitlines()
        assert sorted(listed) == sorted(opened.file_uris())
        copied = json.loads(lake.get(f"{table.folder}/_copy_manifest/manifest.json") or b"")["entries"]
        assert [entry["url"] for entry in copied] == listed
        for entry in copied:
            path = entry["url"].removeprefix(f"{lake.uri}/")
            assert len(lake.get(path) or b"") == entry["meta"]["content_length"]
    found = client("glue").get_table(DatabaseName=lake_settings.database, Name="gold_corridors")["Table"]
    assert found["Parameters"]["spark.sql.sources.provider"] == "delta"
    assert found["StorageDescriptor"]["Location"] == f"{lake.uri}/gold/corridors/"


def test_a_deleted_table_is_computed_again_and_the_others_stay(
    spark: SparkSession, folder: Settings, tmp_path: Path
) -> None:
    chance = random.Random(3)
    for number in range(2):
        finish(folder, "q", number, *some_records(chance, 30))
    run(spark, folder)
    history = open_delta(f"{folder.lake}/{TABLES[1].folder}")
    lake = lake_at(folder.lake)
    lake.delete([path for path, _ in lake.list("gold/city_summary/")])

    run(spark, folder)

    assert_gold_is_plain(folder)
    after = open_delta(f"{folder.lake}/{TABLES[1].folder}")
    assert history is not None
    assert after is not None
    assert history.version() == after.version()


def test_another_contracts_tables_equal_a_computation_of_all_rows_after_increments_and_a_rebuild(
    spark: SparkSession, folder: Settings, tmp_path: Path
) -> None:
    chance = random.Random(os.environ.get("GOLD_SEED", "1"))
    contract = tmp_path / "clicks.yaml"
    contract.write_text(clicks.CLICKS_YAML, encoding="utf-8")
    once = folder.gold.model_copy(update={"increment_batches": 1})
    settings = folder.model_copy(update={"contract": str(contract), "gold": once})
    tables = gold_tables(load_contract(str(contract)))
    for number in range(CLICK_BATCHES):
        query = "first" if number % 3 else "second"
        finish(settings, query, number // 3 if query == "second" else number - number // 3 - 1,
               clicks.some_clicks(chance, 40), at=NOON + timedelta(minutes=chance.randint(-3, 3)))  # fmt: skip

    done = run(spark, settings)

    assert done.increments == CLICK_BATCHES
    wanted = clicks.gold(clicks.processed(lake_at(settings.lake)))
    rows = assert_gold_is_plain(settings, wanted, tables)
    assert {name: figures["rows"] for name, figures in done.tables.items()} == rows
    assert rows["clicks"] == done.rows

    gold_job.delete_tables(settings, ["users", "per_day"])
    again = run(spark, settings)

    # The source of `countries` catches up first, in increments of its own: these rows are read twice.
    assert (again.rows, again.tables["users"]["new"]) == (2 * done.rows, rows["users"])
    assert_gold_is_plain(settings, wanted, tables)
    assert {entry.table for entry in gold_job.maintain(spark, settings)} == set(rows)
    assert_gold_is_plain(settings, wanted, tables)
    with pytest.raises(ConfigurationError, match=r"--rebuild user: the contract has no such gold table; it has users"):
        gold_job.delete_tables(settings, ["user"])


def test_missing_rows_stop_the_job_before_anything_is_written(spark: SparkSession, folder: Settings) -> None:
    finish(folder, "q", 0, [good(), good(City="Boston")])

    with pytest.raises(BatchMismatchError, match="counts 2 processed rows, their files hold 1"):
        gold_job.run(
            lambda: spark, folder, find_files=lambda lake, batches: gold_job.files_of_batches(lake, batches)[:1]
        )

    assert not list(lake_at(folder.lake).list("gold/"))
    lake_at(folder.lake).delete([path for path, _ in lake_at(folder.lake).list("processed/city=Boston/")])
    with pytest.raises(BatchMismatchError, match="counts 2 processed rows, their files hold 1"):
        run(spark, folder)


def test_a_second_gold_job_ends_with_one_clear_error(folder: Settings) -> None:
    finish(folder, "q", 0, [good()])
    lake = lake_at(folder.lake)

    with (
        Lease(lake, f"{lake.uri}/gold"),
        pytest.raises(AlreadyRunningError, match="another gold job, or its upkeep, is running"),
    ):
        gold_job.run(no_spark, folder)


def test_a_contract_without_gold_is_refused_with_what_to_add(folder: Settings, tmp_path: Path) -> None:
    (tmp_path / "readings.yaml").write_text(READINGS_YAML, encoding="utf-8")
    settings = folder.model_copy(update={"contract": str(tmp_path / "readings.yaml")})

    with pytest.raises(ConfigurationError, match="contract readings has no section `gold:`: add one"):
        gold_job.run(no_spark, settings)


def test_an_empty_lake_is_no_error(folder: Settings) -> None:
    done = gold_job.run(no_spark, folder)

    assert (done.increments, done.tables) == (0, {})


def test_follow_takes_new_batches_until_it_is_stopped(spark: SparkSession, folder: Settings) -> None:
    settings = folder.model_copy(update={"gold": folder.gold.model_copy(update={"poll_seconds": 0.1})})
    finish(settings, "q", 0, [good()])
    stop, runs = threading.Event(), []

    def next_batch(done: GoldResult) -> None:
        runs.append(done.increments)
        if len(runs) == 1:
            finish(settings, "q", 1, [good(City="Boston")])
        elif len(runs) == 3:
            stop.set()

    total = gold_job.follow(lambda: spark, settings, stop, on_run=next_batch)

    assert runs == [1, 1, 0]
    assert (total.rows, total.batches, total.tables["corridors"]) == (2, {"q": 2}, {"rows": 2, "new": 2})


def test_follow_tries_again_after_a_transient_error_of_a_spark_task(
    folder: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = folder.model_copy(update={"gold": folder.gold.model_copy(update={"poll_seconds": 0.01})})
    finish(settings, "q", 0, [])  # nothing to write: the first run succeeds without Spark
    stop, attempts = threading.Event(), []

    class FailingWriter:
        def __init__(self, *_: object) -> None:
            pass

        def write(self, *_: object) -> None:
            attempts.append(1)
            if len(attempts) == 3:
                stop.set()
            raise PySparkException("Traceback:\njobs.common.errors.TransientError: s3://lake/a.parquet is gone")

    def more(_: GoldResult) -> None:
        if not attempts:
            finish(settings, "q", 1, [good()])

    monkeypatch.setattr(gold_job, "IncrementWriter", FailingWriter)
    monkeypatch.setattr(gold_job, "gold_session", lambda *_: None)
    total = gold_job.follow(MagicMock(), settings, stop, on_run=more)

    assert (len(attempts), total.increments) == (3, 0)


def progress(settings: Settings, query: str, table: str) -> int:
    opened = open_delta(f"{settings.lake}/gold/{table}")
    version = opened.transaction_version(query) if opened else None
    return -1 if version is None else version
