"""Rebuilding processed rows from raw: the same rows for the same contract, new rows for a changed one."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.common.errors import ConfigurationError, TerminalError
from jobs.common.fault_points import MOVE_POINTS, REBUILD_POINTS
from jobs.lake.ledger import Ledger, entries
from jobs.lake.sent_journal import JournalRun
from jobs.lake.store import lake_at
from jobs.lake.table_files import live_files
from jobs.maintenance import compact, raw
from jobs.maintenance.raw import RebuildResult
from jobs.schema.privacy import SALT_VARIABLE
from jobs.settings.config_files import find_configuration
from jobs.settings.settings import Settings
from movement.cli.replay import rebuild_from_raw
from tests.helpers.compaction_lakes import catalog_of, poll, set_compact, write_batch
from tests.helpers.lakes import make_lake
from tests.helpers.paths import ROOT
from tests.helpers.samples import GOOD, LOWER, MEAN, UPPER, bytes_of, good

pytestmark = pytest.mark.aws

BEGINNING, END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
AT = datetime(2026, 11, 23, 10, 59, 59, 990_000, tzinfo=UTC)

Contract = Callable[[dict[str, Any]], None]


def batch_records(batch: int) -> list[list[bytes]]:
    """Two shards' records: rows in two cities, a field that the contract does not name, and three kinds of rejects."""
    records = [good(**{"Origin Movement ID": str(50 - number), MEAN: 300 + number}) for number in range(20)]
    records += [
        bytes_of(GOOD | {"City": "Lima", "Tariff": f"T{batch}"}),
        b"not JSON\nat all %d" % batch,
        b"\xff\xfe %d" % batch,
        good(**{MEAN: 10, LOWER: 20, UPPER: 30, "City": f"Low {batch}"}),
    ]
    return [records, [good(City="Lima", **{MEAN: 230 + batch}), good(**{MEAN: -1}), *records[:2]]]


def fill(settings: Settings, batches: int = 3) -> Settings:
    """Writes batches whose records arrive before and after a full hour."""
    for batch in range(batches):
        tasks = batch_records(batch)
        write_batch(settings, batch, tasks, at=AT, apart=timedelta(milliseconds=3))
    return settings


@pytest.fixture
def lake_in_a_folder(embedded_aws: object, tmp_path: Path) -> Settings:
    return fill(make_lake(tmp_path, f"lake={tmp_path / 'lake'}", "compact.grace_seconds=0"))


def with_contract(settings: Settings, folder: Path, change: Contract) -> Settings:
    """Settings with a changed travel times contract."""
    contract = yaml.safe_load(find_configuration("travel_times.yaml").read_text(encoding="utf-8"))
    change(contract)
    file = folder / "changed.yaml"
    file.write_text(yaml.safe_dump(contract, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return settings.model_copy(update={"contract": str(file)})


def without_checks(contract: dict[str, Any]) -> None:
    contract["checks"] = []


def with_a_tariff(contract: dict[str, Any]) -> None:
    contract["columns"]["tariff"] = {"source": "Tariff", "type": "string"}


def stricter(contract: dict[str, Any]) -> None:
    contract["columns"]["mean_travel_time_seconds"]["min"] = 310


def rows(settings: Settings, *columns: str) -> list[tuple[Any, ...]]:
    """All rows of the table with their partition, sorted."""
    lake = lake_at(settings.lake)
    found = [
        (file.partition, *(row[name] for name in columns or row))
        for file in live_files(lake, "processed")
        for row in pq.read_table(io.BytesIO(lake.get(file.path) or b"")).to_pylist()
    ]
    return sorted(found, key=repr)


def quarantine(settings: Settings) -> list[dict[str, Any]]:
    lake = lake_at(settings.lake)
    return [
        json.loads(line)
        for path, _ in lake.list("quarantine/")
        for line in gzip.decompress(lake.get(path) or b"").split(b"\n")[:-1]
    ]


def origins(settings: Settings) -> Counter[tuple[str, str]]:
    """Each record's origin, from rows and quarantine."""
    found = Counter((shard, sequence) for _, shard, sequence in rows(settings, "shard_id", "sequence_number"))
    return found + Counter((line["shard_id"], line["sequence_number"]) for line in quarantine(settings))


def rebuild(settings: Settings, start: datetime = BEGINNING, end: datetime = END) -> RebuildResult:
    return raw.run(settings, start, end)


def accounted_for(settings: Settings) -> None:
    """Checks that the ledger, the rows and the quarantine files agree."""
    found = entries(lake_at(settings.lake))
    assert sum(entry.report.processed for entry in found) == len(rows(settings))
    assert sum(entry.report.quarantined for entry in found) == len(quarantine(settings))
    named = {file.path for entry in found for file in entry.report.files if file.kind == "quarantine"}
    assert named == {path for path, _ in lake_at(settings.lake).list("quarantine/")}
    assert list(lake_at(settings.lake).list("_rebuild/")) == []
    assert poll(settings)[0] == Counter((s, n) for _, s, n in rows(settings, "shard_id", "sequence_number"))


def with_private_fields(contract: dict[str, Any]) -> None:
    contract["raw"] = "redacted"
    contract["columns"]["origin_display_name"] |= {"privacy": "sha256"}
    contract["columns"]["tariff"] = {"source": "Tariff", "privacy": "drop"}


def test_redacted_raw_gives_the_same_rows_and_only_with_its_salt(
    embedded_aws: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SALT_VARIABLE, "pepper and salt, 16")
    lake = make_lake(tmp_path, f"lake={tmp_path / 'lake'}", "compact.grace_seconds=0")
    settings = fill(with_contract(lake, tmp_path, with_private_fields))
    before, rejected = rows(settings), quarantine(settings)
    assert {len(name) for _, name in rows(settings, "origin_display_name")} == {64}

    monkeypatch.setenv(SALT_VARIABLE, "another salt of 16")
    with pytest.raises(ConfigurationError, match="was redacted with another salt"):
        rebuild(settings)
    monkeypatch.setenv(SALT_VARIABLE, "pepper and salt, 16")
    result = rebuild(settings)

    assert result.records == 3 * 28
    assert rows(settings) == before
    assert sorted(quarantine(settings), key=repr) == sorted(rejected, key=repr)
    accounted_for(settings)


def test_under_the_same_contract_every_row_stays_the_same(lake_in_a_folder: Settings) -> None:
    before, rejected = rows(lake_in_a_folder), quarantine(lake_in_a_folder)

    result = rebuild(lake_in_a_folder)

    assert (result.batches, result.records) == (3, 3 * 28)
    assert (result.processed, result.quarantined) == (result.processed_before, result.quarantined_before)
    assert rows(lake_in_a_folder) == before
    assert sorted(quarantine(lake_in_a_folder), key=repr) == sorted(rejected, key=repr), "to the byte"
    accounted_for(lake_in_a_folder)
    assert rebuild(lake_in_a_folder).processed == result.processed, "a second time"
    assert rows(lake_in_a_folder) == before


def test_it_finds_the_rows_after_a_compaction(lake_in_a_folder: Settings) -> None:
    before = rows(lake_in_a_folder)
    compact.run(set_compact(lake_in_a_folder, min_files=2))
    rebuild(lake_in_a_folder)
    compact.run(set_compact(lake_in_a_folder, min_files=2))
    assert rows(lake_in_a_folder) == before
    accounted_for(lake_in_a_folder)


def test_without_a_check_quarantined_records_become_rows_of_new_partitions(
    lake_in_a_folder: Settings, tmp_path: Path
) -> None:
    before = origins(lake_in_a_folder)

    result = rebuild(with_contract(lake_in_a_folder, tmp_path, without_checks))

    assert result.processed == result.processed_before + 3
    assert sorted(set(result.reasons)) == ["failed_check", "not_json", "not_utf8"]
    assert {f"city=Low {batch}/start_date=2016-09-03" for batch in range(3)} <= set(result.partitions)
    assert origins(lake_in_a_folder) == before
    accounted_for(lake_in_a_folder)


def test_rows_that_fail_a_new_check_go_to_quarantine_with_the_reason(
    lake_in_a_folder: Settings, tmp_path: Path
) -> None:
    before = origins(lake_in_a_folder)

    result = rebuild(with_contract(lake_in_a_folder, tmp_path, stricter))

    assert result.processed < result.processed_before
    assert result.processed + result.quarantined == result.records
    assert origins(lake_in_a_folder) == before
    assert {row[1] >= 310 for row in rows(lake_in_a_folder, "mean_travel_time_seconds")} == {True}
    failed = [line for line in quarantine(lake_in_a_folder) if line["reason"] == "failed_check"]
    assert {line["field"] for line in failed} == {"Mean Travel Time (Seconds)"}
    assert all(json.loads(line["payload"])["Date Range"] for line in failed)
    accounted_for(lake_in_a_folder)


def test_a_new_column_is_filled_from_raw_and_other_batches_stay(lake_in_a_folder: Settings, tmp_path: Path) -> None:
    changed = with_contract(lake_in_a_folder, tmp_path, with_a_tariff)
    (first, *_) = entries(lake_at(changed.lake))

    result = rebuild(changed, BEGINNING, first.finished_at + timedelta(microseconds=1))

    assert result.batches == 1
    lake = lake_at(changed.lake)
    found: Counter[tuple[str, str | None]] = Counter()
    for file in live_files(lake, "processed"):
        for row in pq.read_table(io.BytesIO(lake.get(file.path) or b"")).to_pylist():
            found[row["batch"], row.get("tariff") or row["rescued_data"]] += 1
    assert found["abcdefabcdef-0", "T0"] == 1
    assert found["abcdefabcdef-1", '{"Tariff": "T1"}'] == 1 or found["abcdefabcdef-1", '{"Tariff":"T1"}'] == 1
    accounted_for(changed)


def test_lines_that_replay_quarantine_has_sent_back_stay_in_quarantine(
    lake_in_a_folder: Settings, tmp_path: Path
) -> None:
    lake = lake_at(lake_in_a_folder.lake)
    path = next(path for path, _ in lake.list("quarantine/") if "-0-00000-" in path)
    content = lake.get(path)
    chunk = JournalRun(lake, lake_in_a_folder.stream.name).chunk([(path, 2)])
    chunk.open()
    chunk.close([(path, 2)])

    result = rebuild(with_contract(lake_in_a_folder, tmp_path, without_checks))

    assert result.kept_in_quarantine == 3
    assert result.processed == result.processed_before + 2, "the other two batches' records"
    assert lake.get(path) == content
    accounted_for(lake_in_a_folder)


def test_a_window_takes_the_batches_that_ended_within_it(lake_in_a_folder: Settings) -> None:
    ends = [entry.finished_at for entry in entries(lake_at(lake_in_a_folder.lake))]
    assert rebuild(lake_in_a_folder, ends[1], ends[2]).batches == 1
    assert rebuild(lake_in_a_folder, ends[2] + timedelta(seconds=1), END).batches == 0
    with pytest.raises(ConfigurationError, match=r"--from .* is not before --to"):
        rebuild(lake_in_a_folder, END, BEGINNING)


def test_the_command_prints_the_result(
    lake_in_a_folder: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = with_contract(lake_in_a_folder, tmp_path, without_checks)
    rebuild_from_raw(changed, BEGINNING, END)
    said = capsys.readouterr().out
    assert "3 batches, 84 records read again: 75 rows (before: 72), 9 in quarantine (before: 12)" in said
    assert "not_json  3" in said
    rebuild_from_raw(changed, END, END + timedelta(days=1))
    assert "Nothing to do: no batch in the ledger of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda entry: [msgspec.structs.replace(file, runs=()) for file in entry.report.files], "0 of its records"),
        (
            lambda entry: [
                msgspec.structs.replace(file, runs=(msgspec.structs.replace(file.runs[0], last="1003"),))
                if file.runs
                else file
                for file in entry.report.files
            ],
            "of its records are known",
        ),
    ],
)
def test_lines_without_a_known_sequence_number_stop_it_before_any_change(
    lake_in_a_folder: Settings, break_it: Callable[..., Any], why: str
) -> None:
    lake = lake_at(lake_in_a_folder.lake)
    entry = Ledger(lake, "abcdefabcdef").entry(1)
    assert entry is not None
    entry.report.files = break_it(entry)
    lake.put("_ledger/abcdefabcdef/1.json", io.BytesIO(msgspec.json.encode(entry)))
    before = rows(lake_in_a_folder)

    with pytest.raises(TerminalError, match=rf"{why}.*Nothing was changed; choose a window without batch abcdef.*-1"):
        rebuild(lake_in_a_folder)

    assert rows(lake_in_a_folder) == before


def test_a_missing_raw_line_stops_it(lake_in_a_folder: Settings) -> None:
    lake = lake_at(lake_in_a_folder.lake)
    path, _ = next(lake.list("raw/"))
    lines = gzip.decompress(lake.get(path) or b"").split(b"\n")
    lake.put(path, io.BytesIO(gzip.compress(b"\n".join(lines[1:]))))
    with pytest.raises(TerminalError, match=r"the ledger says .* lines, but it has fewer lines"):
        rebuild(lake_in_a_folder)


def test_a_batch_with_several_shards_per_task_and_hours_per_shard(embedded_aws: object, tmp_path: Path) -> None:
    import pyarrow as pa

    from jobs.write.task import WriteTask
    from tests.helpers.samples import TRAVEL_TIMES, arrived

    settings = make_lake(tmp_path, f"lake={tmp_path / 'lake'}")
    hours = [AT + timedelta(milliseconds=5 * number) for number in range(6)]
    parts = [
        arrived([good(**{MEAN: 400 + number}) for number in range(6)], at=hours, shard="shardId-9", first=1),
        arrived([good(**{MEAN: 500 + number}) for number in range(6)], at=hours, shard="shardId-8", first=1),
    ]
    task = WriteTask(settings.lake, "q-0", TRAVEL_TIMES, settings.sink)
    both = pa.Table.from_batches(parts).combine_chunks().to_batches()
    report = task.write(iter(both), "q-0-00000")
    raw = [file for file in report.files if file.kind == "raw"]
    assert [[(run.shard, run.first, run.last) for run in file.runs] for file in raw] == [
        [("shardId-9", "1", "2"), ("shardId-8", "1", "2")],
        [("shardId-9", "3", "6"), ("shardId-8", "3", "6")],
    ]


# The fault points of moves are in test_compact.py.
KILLS = [*REBUILD_POINTS, "move.relocated"]
if os.environ.get("CRASH_KILLS"):
    KILLS += ["file.put", *(name for name in MOVE_POINTS if name.startswith("move"))]


def test_after_kill_9_between_any_two_steps_the_next_run_completes_the_rebuild(
    embedded_aws: object, tmp_path: Path
) -> None:
    settings = fill(make_lake(tmp_path, f"lake={tmp_path / 'lake'}", "compact.grace_seconds=3600"))
    contracts = [with_contract(settings, tmp_path, without_checks)]
    config = tmp_path / "settings.yaml"
    config.write_text(json.dumps(contracts[0].model_dump(mode="json")))
    before = origins(settings)
    catalog = catalog_of(settings)
    for fault in KILLS:
        found = subprocess.run(
            [
                sys.executable, "-m", "jobs.replay_raw_job", "--config", str(config),
                "--from", BEGINNING.isoformat(), "--to", END.isoformat(),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "MOVEMENT_FAULT": fault},
            capture_output=True,
            timeout=180,
        )  # fmt: skip
        assert found.returncode == -signal.SIGKILL, f"{fault}: {found.stderr.decode()[-2000:]}"
        seen, _ = poll(settings, catalog)
        assert max(seen.values()) == 1, fault
        assert set(seen) <= set(before), fault

    assert rebuild(contracts[0]).batches == 3

    assert origins(settings) == before
    accounted_for(settings)
