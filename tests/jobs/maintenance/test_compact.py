"""Compaction against the embedded AWS: files before and after, kills, and a concurrent stream and reader."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs.common.errors import AlreadyRunningError, ConfigurationError
from jobs.common.fault_points import MOVE_POINTS
from jobs.lake.lease import Lease
from jobs.lake.partition_locations import LayoutFile
from jobs.lake.store import lake_at
from jobs.lake.table_files import files_of_entries, live_files
from jobs.maintenance.compact import plan, run
from jobs.settings.settings import Settings
from jobs.write.processed import file_schema
from movement.cli.main import app
from tests.helpers.compaction_lakes import SHARD, catalog_of, poll, set_compact, write_batch
from tests.helpers.lake_audit import RecordKey
from tests.helpers.lakes import make_lake
from tests.helpers.paths import ROOT
from tests.helpers.samples import TRAVEL_TIMES, good

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.aws

PARIS, BOSTON = "city=Paris/start_date=2016-09-03", "city=Bos%2Fton/start_date=2016-09-03"


@pytest.fixture
def small_files(embedded_aws: object, tmp_path: Path) -> Settings:
    """Six batches over two shards: twelve small files in Paris, six in Bos/ton; in a folder, with a Glue catalog."""
    return fill(make_lake(tmp_path, f"lake={tmp_path / 'lake'}"))


def fill(lake_settings: Settings) -> Settings:
    for batch in range(6):
        numbers = range(batch * 10, batch * 10 + 10)
        paris = [good(**{"Origin Movement ID": str(99 - number)}) for number in numbers]
        write_batch(lake_settings, batch, [[*paris, good(City="Bos/ton")], paris])
    return set_compact(lake_settings, grace_seconds=0.0)


def expected(batches: int = 6) -> Counter[RecordKey]:
    """The origins of the fixture's rows."""
    sizes = {0: 11, 1: 10}
    return Counter(
        (SHARD.format(shard), str(1000 * batch + 1 + number))
        for batch in range(batches)
        for shard, size in sizes.items()
        for number in range(size)
    )


@pytest.mark.parametrize("storage", ["s3", "folder"])
def test_many_small_files_become_one_per_partition_with_the_same_rows(
    embedded_aws: object, tmp_path: Path, storage: str
) -> None:
    small_files = fill(make_lake(tmp_path, *([] if storage == "s3" else [f"lake={tmp_path / 'lake'}"])))
    before, files = poll(small_files)
    assert (before, files) == (expected(), 18)

    result = run(small_files)

    assert poll(small_files) == (expected(), 2)
    assert (result.partitions, result.files_before, result.files_after) == ([BOSTON, PARIS], 18, 2)
    assert result.bytes_after < result.bytes_before
    assert result.removed == 18 + 2  # without a grace time it goes back to its default folder at once
    assert result.home == [BOSTON, PARIS]
    assert run(small_files).partitions == []


def test_new_files_have_the_streams_schema_compression_and_order(small_files: Settings) -> None:
    run(small_files)

    lake = lake_at(small_files.lake)
    for file in live_files(lake, "processed"):
        parquet = pq.ParquetFile(io.BytesIO(lake.get(file.path) or b""))
        assert parquet.schema_arrow == file_schema(TRAVEL_TIMES)
        assert parquet.metadata.row_group(0).column(0).compression == "ZSTD"
        rows = parquet.read().to_pylist()
        order = [tuple(row[name] or "" for name in TRAVEL_TIMES.sort_by) for row in rows]
        assert order == sorted(order)


def test_old_files_stay_for_the_grace_time_and_are_deleted_afterwards(small_files: Settings) -> None:
    patient = set_compact(small_files, grace_seconds=3600.0)
    lake = lake_at(small_files.lake)
    old = {path for path, _ in lake.list("processed/")}

    first = run(patient)
    assert (first.removed, first.home) == (0, [])
    assert {path for path, _ in lake.list("processed/")} == old
    assert poll(patient) == (expected(), 2)
    assert sorted(file.partition for file in live_files(lake, "processed")) == [BOSTON, PARIS]
    assert run(patient).partitions == []

    second = run(small_files)
    assert (second.removed, second.home) == (18 + 2, [BOSTON, PARIS])
    assert poll(patient) == (expected(), 2)
    assert list(lake.list("relocated/")) == []
    assert LayoutFile(lake, "processed").read().partitions == {}


def test_a_later_batch_is_written_to_the_moved_partition(small_files: Settings) -> None:
    patient = set_compact(small_files, grace_seconds=3600.0)
    run(patient)

    entry = write_batch(patient, 6, [[good()], [good()]])

    assert all(file.path.startswith("relocated/") for file in entry.report.files if file.kind == "processed")
    found, files = poll(patient)
    assert files == 4
    assert found == expected() + Counter((SHARD.format(shard), "6001") for shard in (0, 1))


def test_the_rows_of_a_final_batch_are_found_after_a_move(small_files: Settings) -> None:
    lake = lake_at(small_files.lake)
    entry = write_batch(small_files, 6, [[good(), good(City="Lima")]])
    assert len(list(files_of_entries(lake, entry))) == 2
    both = list(files_of_entries(lake, entry, write_batch(small_files, 8, [[good()]])))
    assert len(both) == len(set(both)) == 3

    run(small_files, [PARIS])

    for batch in (entry, write_batch(small_files, 7, [[good()]])):
        rows = [
            row
            for file in files_of_entries(lake, batch)
            for row in pq.read_table(io.BytesIO(lake.get(file.path) or b"")).to_pylist()
            if row["batch"] == batch.name
        ]
        assert len(rows) == batch.report.processed
        assert {row["sequence_number"] for row in rows} == {
            str(1000 * batch.batch + 1 + number) for number in range(batch.report.processed)
        }


def test_a_reader_of_the_folder_finds_each_row_once_after_the_grace_time(small_files: Settings, tmp_path: Path) -> None:
    run(small_files)
    lake = lake_at(small_files.lake)
    for path, _ in lake.list("processed/"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(lake.get(path) or b"")
    found = ds.dataset(tmp_path / "processed", partitioning="hive").to_table(columns=["city", "sequence_number"])
    assert Counter(found["city"].to_pylist()) == {"Paris": 120, "Bos/ton": 6}


def test_files_of_a_batch_that_died_are_left_alone(small_files: Settings) -> None:
    write_batch(small_files, 6, [[good()]], final=False)

    result = run(set_compact(small_files, batch_wait_seconds=0.0))

    assert result.partitions == [BOSTON]
    assert list(result.left) == [PARIS]
    assert "batch abcdefabcdef-6 has written files and is not final: does its job run?" in result.left[PARIS]
    found, _ = poll(small_files)
    assert found == expected() + Counter([(SHARD.format(0), "6001")]), "unchanged"


def test_a_file_that_no_batch_wrote_is_left_alone(small_files: Settings) -> None:
    lake = lake_at(small_files.lake)
    lake.put(f"processed/{PARIS}/by-hand.parquet", io.BytesIO(b"whatever"))

    result = run(small_files)

    assert result.left == {PARIS: f"processed/{PARIS}/by-hand.parquet is not a batch's file"}
    assert result.partitions == [BOSTON]


def test_files_of_an_older_contract_are_merged_unless_a_column_would_be_lost(
    small_files: Settings,
) -> None:
    lake = lake_at(small_files.lake)
    files = [file.path for file in live_files(lake, "processed", [BOSTON])]
    for path, change in zip(files, ("lacks", "more"), strict=False):
        table = pq.read_table(io.BytesIO(lake.get(path) or b""))
        table = (
            table.drop_columns(["rescued_data"])
            if change == "lacks"
            else table.append_column("extra", table["origin_movement_id"])
        )
        out = io.BytesIO()
        pq.write_table(table, out)
        lake.put(path, io.BytesIO(out.getvalue()))

    run(small_files)

    assert poll(small_files) == (expected(), 3)
    (kept,) = [file for file in live_files(lake, "processed", [BOSTON]) if "compacted" not in file.path]
    assert "extra" in pq.read_schema(io.BytesIO(lake.get(kept.path) or b"")).names


def test_only_one_run_at_a_time(small_files: Settings) -> None:
    with (
        Lease(lake_at(small_files.lake), f"{small_files.lake}/processed"),
        pytest.raises(AlreadyRunningError, match=r"another run that moves partitions of .*/lake/processed runs as"),
    ):
        run(small_files)


def test_a_catalog_with_an_old_location_is_repaired(small_files: Settings) -> None:
    run(set_compact(small_files, grace_seconds=3600.0))
    catalog = catalog_of(small_files)
    catalog.relocate("processed", PARIS, f"processed/{PARIS}/")

    result = run(set_compact(small_files, grace_seconds=3600.0))

    assert result.recovered == [PARIS]
    assert poll(small_files) == (expected(), 2)


def test_a_dry_run_shows_the_plan_and_changes_nothing(small_files: Settings, tmp_path: Path) -> None:
    before = dict(lake_at(small_files.lake).list(""))
    config = tmp_path / "settings.yaml"
    config.write_text(json.dumps(small_files.model_dump(mode="json")))
    arguments = ["compact", "--config", str(config), "--json", str(tmp_path / "out.json")]

    shown = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert "2 of 2 partitions, 18 files → about 2" in shown.output
    assert dict(lake_at(small_files.lake).list("")) == before
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["dry_run"], found["files_before"], found["files_after"]) == (True, 18, 2)

    done = CliRunner().invoke(app, [*arguments, "--partition", PARIS])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["partitions"], found["files_before"], found["files_after"]) == ([PARIS], 12, 1)
    assert (found["lake"], found["database"]) == (small_files.lake, small_files.database)

    again = CliRunner().invoke(app, [*arguments, "--partition", PARIS])
    assert "Nothing to do" in again.output


def test_an_error_names_a_missing_partition(small_files: Settings) -> None:
    with pytest.raises(ConfigurationError, match="--partition city=Nowhere: no files"):
        plan(small_files, ["city=Nowhere"])


# Every fault point of a run, and one between two files.
KILLS = [name for name in MOVE_POINTS if name != "locations.copied"] + ["file.put"]


def test_after_kill_9_between_any_two_steps_the_next_run_completes_the_work(
    lake_settings: Settings, tmp_path: Path
) -> None:
    small_files = set_compact(fill(lake_settings), min_files=2)
    config = tmp_path / "settings.yaml"
    config.write_text(json.dumps(small_files.model_dump(mode="json")))
    rows = expected()
    for number, fault in enumerate(KILLS):
        for more in (6 + 2 * number, 7 + 2 * number):
            write_batch(small_files, more, [[good(), good(City="Bos/ton")]])
            rows += Counter((SHARD.format(0), str(1000 * more + storage)) for storage in (1, 2))
        killed = subprocess.run(
            [sys.executable, "-m", "jobs.compact_job", "--config", str(config)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "MOVEMENT_FAULT": fault},
            capture_output=True,
            timeout=180,
        )
        assert killed.returncode == -signal.SIGKILL, f"{fault}: {killed.stderr.decode()[-2000:]}"
        assert poll(small_files)[0] == rows, f"after {fault}"

    run(small_files)

    assert poll(small_files) == (rows, 2)
    assert list(lake_at(small_files.lake).list("relocated/")) == []


@pytest.mark.spark
def test_a_polling_reader_beside_a_running_stream_never_counts_wrong(
    spark: SparkSession, tmp_path: Path, embedded_aws: object
) -> None:
    from jobs.stream import job as stream_job
    from tests.helpers.job_process import Producer
    from tests.helpers.lake_audit import ledger

    settings = make_lake(
        tmp_path, "stream.shards=2", "stream_job.trigger_seconds=0.5", "compact.grace_seconds=60", "compact.min_files=2"
    )
    stop, errors, polls = threading.Event(), [], []
    lake, catalog = lake_at(settings.lake), catalog_of(settings)

    def read() -> None:
        while not stop.is_set():
            final = sum(entry.report.processed for entry in ledger(lake))
            found, _ = poll(settings, catalog)
            doubled = [storage for storage, count in found.items() if count > 1]
            if doubled or len(found) < final:
                errors.append(
                    f"poll {len(polls)}: {len(doubled)} doubled, {len(found)} rows, {final} were final before"
                )
            polls.append(len(found))
            stop.wait(0.2)  # the embedded AWS answers one request at a time: let the others have theirs

    reader = threading.Thread(target=read)
    batches = []

    def stream() -> None:
        stream_job.run(lambda: spark, settings, stop=stop, on_batch=batches.append)

    streaming = threading.Thread(target=stream)
    runs = []
    with Producer(settings, pause=0.2) as producer:
        streaming.start()
        reader.start()
        try:
            deadline = time.monotonic() + 240
            while len([result for result in runs if result.partitions]) < 2:
                assert time.monotonic() < deadline, runs
                runs.append(run(settings))
        finally:
            stop.set()
            streaming.join()
            reader.join()
    assert errors == []
    assert len(polls) > 3
    assert {entry.batch for entry in batches}, "the stream ran"

    final = ledger(lake)
    run(set_compact(settings, grace_seconds=0.0, min_files=2))
    found, files = poll(settings, catalog)
    assert found.total() == sum(entry.report.processed for entry in final)
    assert set(found) <= set(producer.accepted)
    assert files == len(catalog.locations("processed"))


def test_the_debt_counts_only_small_files(small_files: Settings) -> None:
    (boston, paris) = plan(small_files)
    assert (paris.partition, paris.files, paris.small_files, paris.files_after) == (PARIS, 12, 12, 1)
    assert boston.is_due(6)
    assert not boston.is_due(7)
