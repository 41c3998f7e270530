"""The processed layer as a Delta table: the log follows the ledger, each batch once, also after a crash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from jobs.common.errors import ConfigurationError, IncompatibleSchemaError, TerminalError
from jobs.common.retry import RetryPolicy
from jobs.gold import job as gold_job
from jobs.lake.delta import NO_BATCH, PROCESSED, check_format, last_committed_batch, open_delta
from jobs.lake.ledger import TABLES, Ledger, LedgerEntry
from jobs.lake.partition_locations import LayoutFile, PartitionLocation
from jobs.lake.store import lake_at
from jobs.lake.table_files import files_of_entries, live_files
from jobs.maintenance import compact, raw
from jobs.schema.table import TableContract, load_contract
from jobs.settings.settings import Settings, load_settings
from jobs.stream import delta_commits
from jobs.stream.delta_commits import DeltaCommitter, table_schema
from jobs.write.task import WriteTask
from tests.helpers.samples import GOOD, READING, READINGS_YAML, TRAVEL_TIMES, arrived, bytes_of, contract_with, good

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
CITIES = ("Paris", "São Paulo", "a/b", 'it\'s "x"', "null", "a b%20c", "007")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(None, [f"lake={tmp_path / 'lake'}", "sink.format=delta", "stream.name=s", "database=d"])


def started(settings: Settings, contract: TableContract = TRAVEL_TIMES) -> DeltaCommitter:
    """The committer after a job's start."""
    found = DeltaCommitter(lake_at(settings.lake), contract)
    found.check_table()
    found.ensure_table()
    found.catch_up_all()
    return found


def final(
    settings: Settings, query: str, number: int, records: Sequence[bytes], contract: TableContract = TRAVEL_TIMES
) -> LedgerEntry:
    """Writes a batch's files and its ledger entry, but does not commit it to the Delta log."""
    task = WriteTask(settings.lake, f"{query}-{number}", contract, settings.sink)
    batches = [arrived(list(records), first=10_000 * number + 1)] if records else []
    report = task.write(iter(batches), f"{query}-{number}-00000")
    partitions = {table: report.partitions(table) for table in TABLES}
    entry = LedgerEntry(query, number, "s", NOON, NOON, report, partitions, {})
    Ledger(lake_at(settings.lake), query).commit(entry)
    return entry


def table_of(settings: Settings) -> DeltaTable:
    found = open_delta(f"{settings.lake}/{PROCESSED}")
    assert found is not None
    return found


def rows(settings: Settings) -> list[dict[str, Any]]:
    """The table's rows as any Delta reader sees them."""
    return list(pa.table(table_of(settings).to_pyarrow_table()).to_pylist())


def batches(settings: Settings) -> dict[str, int]:
    return dict(Counter(row["batch"] for row in rows(settings)))


def test_the_table_has_the_contracts_columns_and_is_readable_by_every_reader(settings: Settings) -> None:
    log = started(settings)
    log.commit(final(settings, "q", 0, [good(City=city) for city in CITIES]))

    table, found = table_of(settings), rows(settings)
    columns = (*TRAVEL_TIMES.partition_columns, *TRAVEL_TIMES.table_columns)
    assert [field.name for field in table.schema().fields] == [name for name, _, _ in columns]
    assert table.metadata().partition_columns == ["city", "start_date"]
    protocol = table.protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version, protocol.reader_features) == (1, 2, None)
    assert sorted(row["city"] for row in found) == sorted(CITIES)
    assert {row["start_date"] for row in found} == {date(2016, 9, 3)}
    assert {row["mean_travel_time_seconds"] for row in found} == {446}
    assert table.count() == len(CITIES), "from the log's statistics"


def test_null_and_typed_partitions(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "readings.yaml").write_text(READINGS_YAML, encoding="utf-8")
    contract = load_contract(str(tmp_path / "readings.yaml"))
    log = started(settings, contract)
    records = [READING | {"ok": True, "place": "a/1"}, READING | {"ok": False}, READING | {"ok": None, "day": None}]
    log.commit(final(settings, "q", 0, [bytes_of(record) for record in records], contract))

    assert {(row["day"], row["ok"], row["site"]) for row in rows(settings)} == {
        (date(2026, 11, 23), True, "a"),
        (date(2026, 11, 23), False, None),
        (None, None, None),
    }
    lake = lake_at(settings.lake)
    assert {file.path.rpartition("/")[0] for file in live_files(lake, PROCESSED)} == {
        f"{PROCESSED}/{file.partition}" for file in live_files(lake, PROCESSED)
    }


def test_batches_missing_after_a_crash_are_committed_once_at_the_next_start(settings: Settings) -> None:
    started(settings).commit(final(settings, "q", 0, [good()]))
    final(settings, "q", 1, [good(), good()])
    final(settings, "q", 2, [good()])
    assert batches(settings) == {"q-0": 1}

    again = DeltaCommitter(lake_at(settings.lake), TRAVEL_TIMES)

    assert again.catch_up_all() == 2
    assert again.catch_up_all() == 0
    assert started(settings).catch_up_all() == 0
    assert batches(settings) == {"q-0": 1, "q-1": 2, "q-2": 1}
    again.commit(final(settings, "q", 3, [good()]))
    assert batches(settings)["q-3"] == 1


def test_a_missing_batch_is_committed_before_a_later_one(settings: Settings) -> None:
    log = started(settings)
    final(settings, "q", 0, [good()])
    log.commit(final(settings, "q", 1, [good(), good()]))

    assert batches(settings) == {"q-0": 1, "q-1": 2}


def test_a_batch_of_rejected_records_only_is_committed_too(settings: Settings) -> None:
    log = started(settings)
    log.commit(final(settings, "q", 0, [b"no record"]))
    log.commit(final(settings, "q", 1, [good()]))

    assert last_committed_batch(table_of(settings), "q") == 1
    assert batches(settings) == {"q-1": 1}


def test_each_query_has_its_own_progress(settings: Settings) -> None:
    first, second = started(settings), started(settings)
    for number in range(2):
        first.commit(final(settings, "one", number, [good()]))
        second.commit(final(settings, "two", number, [good(), good()]))

    assert batches(settings) == {"one-0": 1, "one-1": 1, "two-0": 2, "two-1": 2}
    table = table_of(settings)
    assert [last_committed_batch(table, query) for query in ("one", "two", "three")] == [1, 1, NO_BATCH]


@pytest.mark.parametrize("moment", ["delta.committing", "delta.committed"])
def test_a_batch_that_two_jobs_commit_is_in_the_table_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(delta_commits, "RETRY", RetryPolicy(attempts=3, first_pause=0))
    slow, fast = started(settings), started(settings)
    entry = final(settings, "q", 0, [good()])
    met = []

    def overtake(name: str) -> None:
        if name == moment and not met:
            met.append(name)
            fast.commit(entry)

    monkeypatch.setattr(delta_commits, "fault_point", overtake)
    slow.commit(entry)

    assert met == [moment]
    assert batches(settings) == {"q-0": 1}
    slow.commit(final(settings, "q", 1, [good()]))
    assert batches(settings) == {"q-0": 1, "q-1": 1}


def test_a_commit_whose_answer_was_lost_is_not_repeated(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta_commits, "RETRY", RetryPolicy(attempts=2, first_pause=0))
    log = started(settings)
    lost = []

    def lose(name: str) -> None:
        if name == "delta.committed" and not lost:
            lost.append(name)
            raise OSError("connection reset")

    monkeypatch.setattr(delta_commits, "fault_point", lose)
    log.commit(final(settings, "q", 0, [good()]))

    assert lost
    assert batches(settings) == {"q-0": 1}
    assert table_of(settings).version() == 1


def test_progress_survives_a_checkpoint_of_the_log(settings: Settings) -> None:
    log = started(settings)
    for number in range(3):
        log.commit(final(settings, "q", number, [good()]))
    table_of(settings).create_checkpoint()
    for path, _ in list(lake_at(settings.lake).list(f"{PROCESSED}/_delta_log/")):
        if path.endswith(".json"):
            lake_at(settings.lake).delete([path])

    assert started(settings).catch_up_all() == 0
    assert batches(settings) == {"q-0": 1, "q-1": 1, "q-2": 1}


def test_a_deleted_log_is_an_error_and_creates_no_new_table(settings: Settings) -> None:
    log = started(settings)
    log.commit(final(settings, "q", 0, [good()]))
    lake = lake_at(settings.lake)
    lake.delete([path for path, _ in lake.list(f"{PROCESSED}/_delta_log/")])

    with pytest.raises(TerminalError, match="_delta_log is gone"):
        DeltaCommitter(lake, TRAVEL_TIMES).commit(final(settings, "q", 1, [good()]))
    with pytest.raises(ConfigurationError, match="holds plain Parquet"):
        started(settings)


def with_columns(*more: dict[str, Any], **changed: dict[str, Any]) -> TableContract:
    """The contract with the named columns changed and others added."""
    found = TRAVEL_TIMES.model_dump(mode="json")
    columns = [column | changed.get(column["column"], {}) for column in found["columns"]]
    return TableContract.model_validate(found | {"columns": [*columns, *more]})


def test_a_new_column_is_added_and_null_in_older_rows(settings: Settings) -> None:
    started(settings).commit(final(settings, "q", 0, [good()]))
    wider = with_columns({"source": "Weather", "column": "weather", "type": "string"})

    started(settings, wider).commit(final(settings, "q", 1, [good(Weather="rain")], wider))

    assert {(row["batch"], row["weather"]) for row in rows(settings)} == {("q-0", None), ("q-1", "rain")}
    assert table_of(settings).protocol().min_reader_version == 1


BREAKING = pytest.mark.parametrize(
    ("contract", "why"),
    [
        (with_columns(mean_travel_time_seconds={"type": "long"}), "mean_travel_time_seconds is integer and cannot"),
        (
            contract_with(columns=TRAVEL_TIMES.columns[:-1], checks=()),
            "column upper_bound_travel_time_seconds is no longer in the contract",
        ),
        (contract_with(partition_by=("start_date", "city")), "partitioned by city, start_date"),
    ],
    ids=["wider", "gone", "partitions"],
)


@BREAKING
def test_any_other_change_is_refused_before_the_table_is_changed(
    settings: Settings, contract: TableContract, why: str
) -> None:
    committer = started(settings)
    entry = final(settings, "q", 0, [good()])
    changed = TableContract.model_validate(contract.model_dump(mode="json"))

    for version in (0, 1):  # the batch is only in the ledger, then also in the log
        with pytest.raises(IncompatibleSchemaError, match=why):
            DeltaCommitter(lake_at(settings.lake), changed).check_table()
        assert table_of(settings).version() == version
        committer.commit(entry)


@BREAKING
def test_a_table_without_data_follows_every_contract_and_keeps_its_progress(
    settings: Settings, contract: TableContract, why: str
) -> None:
    started(settings).commit(final(settings, "q", 0, [b"rejected"]))
    changed = TableContract.model_validate(contract.model_dump(mode="json"))

    committer = started(settings, changed)
    assert table_of(settings).metadata().partition_columns == list(changed.partition_by)
    assert {field.name for field in table_of(settings).schema().fields} == {
        field.name for field in table_schema(changed).fields
    }
    assert last_committed_batch(table_of(settings), "q") == 0
    committer.commit(final(settings, "q", 1, [good()], changed))
    assert len(rows(settings)) == 1
    version = table_of(settings).version()
    started(settings, changed)
    assert table_of(settings).version() == version, "the next start changes nothing"


def test_the_format_of_a_lake_cannot_change(settings: Settings) -> None:
    lake = lake_at(settings.lake)
    check_format(lake, "parquet")
    final(settings, "q", 0, [good()])  # as a job without a Delta table writes it

    with pytest.raises(ConfigurationError, match=r"sink\.format: delta, but .*holds plain Parquet"):
        check_format(lake, "delta")
    check_format(lake, "parquet")


def test_a_lake_whose_partitions_have_all_moved_is_still_plain_parquet(settings: Settings) -> None:
    layouts = LayoutFile(lake_at(settings.lake), PROCESSED)
    layouts.change(layouts.read(), {"city=Paris": PartitionLocation("relocated/processed/city=Paris/1/")})

    with pytest.raises(ConfigurationError, match="relocated/processed/city=Paris/1/"):
        started(settings)


def test_jobs_that_move_partitions_refuse_a_delta_table(settings: Settings) -> None:
    started(settings)
    parquet = settings.model_copy(update={"sink": settings.sink.model_copy(update={"format": "parquet"})})

    with pytest.raises(ConfigurationError, match=r"sink\.format: parquet, but .* is a Delta table"):
        check_format(lake_at(settings.lake), "parquet")
    with pytest.raises(ConfigurationError, match="is a Delta table"):
        compact.run(parquet)
    for each in (settings, parquet):
        with pytest.raises(ConfigurationError, match="is a Delta table"):
            raw.run(each, NOON, NOON.replace(hour=13))


def test_live_files_are_those_of_the_log(settings: Settings) -> None:
    log = started(settings)
    entry = final(settings, "q", 0, [good(City=city) for city in CITIES])
    log.commit(entry)
    final(settings, "q", 1, [good(City="Lima")])  # not in the log yet
    lake = lake_at(settings.lake)

    written = {(file.partition, file.path, file.bytes) for file in entry.report.files if file.kind == PROCESSED}
    assert {tuple(file) for file in live_files(lake, PROCESSED)} == written
    partition = "city=a%2Fb/start_date=2016-09-03"
    assert [file.partition for file in live_files(lake, PROCESSED, [partition, "city=Lima"])] == [partition]
    assert len(list(files_of_entries(lake, entry))) == len(CITIES)


def test_gold_waits_for_a_batch_that_is_not_in_the_log(settings: Settings) -> None:
    started(settings)
    final(settings, "q", 0, [good()])

    def no_spark() -> Any:
        raise AssertionError("Spark was started without any work to do")

    assert gold_job.run(no_spark, settings).increments == 0

    started(settings)
    assert gold_job.find_increment(lake_at(settings.lake), settings, {"corridors": None}) is not None


def test_compaction_keeps_every_row_and_uncommitted_files(settings: Settings) -> None:
    log = started(settings)
    for number in range(4):
        log.commit(final(settings, "q", number, [good(City=city, n=number) for city in (*CITIES, None)]))
    log.commit(final(settings, "q", 4, [good()]))
    waiting = final(settings, "q", 5, [good(City="Paris"), good(City="Lima")])
    before = sorted(map(str, rows(settings)))
    now = settings.model_copy(update={"compact": settings.compact.model_copy(update={"grace_seconds": 0.0})})

    planned = {debt.partition for debt in compact.plan(now) if debt.is_due(4)}
    done = compact.run(now)

    assert sorted(map(str, rows(settings))) == before
    assert set(done.partitions) == planned
    assert len(planned) == len(CITIES) + 1, "including the null city"
    assert (done.files_before, done.files_after, done.left) == (4 * len(planned) + 1, len(planned), {})
    assert done.removed == done.files_before
    assert done.removed_bytes == done.bytes_before > done.bytes_after > 0
    lake = lake_at(settings.lake)
    live = list(live_files(lake, PROCESSED))
    assert {file.partition for file in live} == planned, "Hive names, whatever the folders are"
    assert all(lake.get(file.path) for file in live)
    assert {file.bytes for file in live} == {len(lake.get(file.path) or b"") for file in live}

    log.commit(waiting)
    assert len(rows(settings)) == len(before) + 2
    again = compact.run(now)
    assert (again.partitions, again.removed) == ([], 0)


def test_compaction_counts_the_files_that_the_stream_adds_between_plan_and_merge(settings: Settings) -> None:
    log = started(settings)
    for number in range(4):
        log.commit(final(settings, "q", number, [good(City=city) for city in ("Lima", "Paris")]))

    def step(done: int, _all: int, what: str) -> None:
        if what.startswith("city=") and done == 0:  # planned with 4 files a partition, and none merged yet
            for number in range(4, 14):
                log.commit(final(settings, "q", number, [good(City="Lima"), good(City="Paris")]))

    done = compact.run(settings, on_step=step)

    live = list(live_files(lake_at(settings.lake), PROCESSED))
    assert (done.files_before, done.files_after) == (2 * 14, 2) == (28, len(live))
    assert done.bytes_after == sum(file.bytes for file in live)
    assert done.bytes_before > done.bytes_after
    assert len(rows(settings)) == 28


def test_replaced_files_remain_for_the_grace_time(settings: Settings) -> None:
    log = started(settings)
    for number in range(4):
        log.commit(final(settings, "q", number, [good()]))
    replaced = list(live_files(lake_at(settings.lake), PROCESSED))

    done = compact.run(settings)

    assert (len(done.partitions), done.removed) == (1, 0)
    assert all(lake_at(settings.lake).get(file.path) for file in replaced)
    assert GOOD["City"] == rows(settings)[0]["city"]


def test_compacting_a_lake_without_a_table_does_nothing(settings: Settings) -> None:
    assert compact.run(settings).partitions == []
