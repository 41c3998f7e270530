"""`movement status`: without a lake, with a lag, as JSON, with many batches; positions after a lost checkpoint."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from jobs.common.aws import client
from jobs.lake.lease import Lease
from jobs.lake.ledger import Ledger, LedgerEntry, last_sequence_numbers, newest_entries
from jobs.lake.sent_journal import JournalRun
from jobs.lake.store import FolderLake, lake_at
from jobs.lake.task_report import SequenceRange, TaskReport
from jobs.settings.settings import Settings, load_settings
from jobs.stream.status import positions, status
from movement.cli.main import app
from movement.cli.status import page
from tests.helpers.lakes import put, raw_lines, record
from tests.helpers.paths import ROOT
from tests.helpers.replay_lakes import Bad, reject

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.aws
SHARD = "shardId-000000000000"


def entry(settings: Settings, batch: int, shards: dict[str, SequenceRange], **changes: Any) -> LedgerEntry:
    records = sum(part.records for part in shards.values())
    report = TaskReport(
        read=records, raw=records, processed=records, read_bytes=records * 400, shards=shards, **changes
    )
    report.processed -= report.quarantined
    now = datetime.now(UTC)
    return LedgerEntry("abc", batch, settings.stream.name, now - timedelta(seconds=3), now, report, {}, {"write": 2.5})


def arguments(settings: Settings) -> list[str]:
    given = [f"lake={settings.lake}", f"database={settings.database}", f"stream.name={settings.stream.name}"]
    return [part for each in given for part in ("--set", each)]


def put_on_one_shard(settings: Settings, count: int) -> list[str]:
    """Puts records on the first shard; returns their sequence numbers."""
    kinesis = client("kinesis")
    return [
        kinesis.put_record(
            StreamName=settings.stream.name, Data=record(n=number), PartitionKey="k", ExplicitHashKey="0"
        )["SequenceNumber"]
        for number in range(count)
    ]


def test_without_lake_and_stream_it_says_what_to_do(embedded_aws: object, tmp_path: Path) -> None:
    nowhere = ["--set", "lake=s3://no-such-bucket-here/lake", "--set", "stream.name=no-such-stream"]
    done = CliRunner().invoke(app, ["status", *nowhere, "--json", str(tmp_path / "status.json")])
    assert done.exit_code == 0, done.output
    assert "What to do" in done.output
    assert "local up" in done.output
    found = json.loads((tmp_path / "status.json").read_text())
    assert (found["shards"], found["last"], found["job"]) == ([], [], None)
    assert len(found["notes"]) == 2


def test_an_empty_lake_asks_for_the_job(lake_settings: Settings) -> None:
    found = status(lake_settings, 5)
    assert found["notes"] == [
        f"no batch of stream {lake_settings.stream.name} in this lake yet: start `movement stream`"
    ]
    assert {shard["state"] for shard in found["shards"]} == {"tip"}
    assert found["behind_ms"] == 0


def test_a_lag_is_seen_shard_by_shard(lake_settings: Settings, tmp_path: Path) -> None:
    numbers = put_on_one_shard(lake_settings, 5)
    part = SequenceRange(numbers[0], numbers[2], 3, datetime.now(UTC) - timedelta(seconds=4))
    written = entry(lake_settings, 0, {SHARD: part}, quarantined=1, reasons={"not_json": 1})
    written.report.nulled = {"speed.wrong_type": 2}
    written.alarms = ["batch abc-0: too many rejected"]
    Ledger(lake_at(lake_settings.lake), "abc").commit(written)
    time.sleep(1.1)  # the server's Date header has whole seconds

    with Lease(lake_at(lake_settings.lake), lake_settings.checkpoint):
        done = CliRunner().invoke(app, ["status", *arguments(lake_settings), "--json", str(tmp_path / "s.json")])

    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "s.json").read_text())
    shards = {shard["shard"]: shard for shard in found["shards"]}
    assert {name: shard["state"] for name, shard in shards.items() if name != SHARD} == {
        f"shardId-00000000000{number}": "tip" for number in range(1, len(shards))
    }
    assert shards[SHARD]["state"] == "behind"
    assert shards[SHARD]["position"] == numbers[2]
    assert found["behind_ms"] == shards[SHARD]["behind_ms"] > 0
    assert found["job"]["state"] == "running"
    assert found["job"]["pid"] == os.getpid()
    assert found["reasons"] == {"not_json": 1}
    assert (found["nulled"], found["warned"]) == ({"speed.wrong_type": 2}, {})
    assert found["last"][0]["age_ms"] >= 4000
    for text in ("running", "behind the tip", "Last batches", "not_json", "too many rejected"):
        assert text in done.output


def test_a_rejected_record_that_was_replayed_counts_where_it_is_now(lake_settings: Settings) -> None:
    lake = lake_at(lake_settings.lake)
    settings = lake_settings.model_copy(update={"stream": lake_settings.stream.model_copy(update={"name": "stream"})})
    for batch in range(2):
        (path,) = reject(lake, batch, [Bad(b"x", "not_json")] * 50, started=datetime.now(UTC))
        if batch == 0:
            chunk = JournalRun(lake, "stream").chunk((path, line) for line in range(50))
            chunk.open()
            chunk.close((path, line) for line in range(50))

    found = status(settings, 8)
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(page(found | {"files": {"files": 0}, "catalog": {"error": "no catalog"}}))

    assert (found["reasons"], found["replayed"]) == ({"not_json": 50}, 50)
    assert [batch["quarantined"] for batch in found["last"]] == [50, 50], "what each batch rejected stays"
    assert "replayed" in console.export_text()


def test_a_shard_that_is_read_to_its_end_is_at_the_tip(lake_settings: Settings) -> None:
    numbers = put_on_one_shard(lake_settings, 2)
    Ledger(lake_at(lake_settings.lake), "abc").commit(
        entry(lake_settings, 0, {SHARD: SequenceRange(numbers[0], numbers[1], 2)})
    )
    found = status(lake_settings, 5)
    assert found["behind_ms"] == 0
    assert {shard["state"] for shard in found["shards"]} == {"tip"}


def test_a_shard_whose_last_record_is_in_an_older_entry_is_quiet_not_behind(lake_settings: Settings) -> None:
    numbers = put_on_one_shard(lake_settings, 2)
    ledger = Ledger(lake_at(lake_settings.lake), "abc")
    ledger.commit(entry(lake_settings, 0, {SHARD: SequenceRange(numbers[0], numbers[1], 2)}))
    ledger.commit(entry(lake_settings, 1, {}))
    (shard,) = [each for each in status(lake_settings, 1)["shards"] if each["shard"] == SHARD]
    assert shard["state"] == "quiet"


class CountingLake(FolderLake):
    reads = 0

    def get(self, path: str) -> bytes | None:
        self.reads += 1
        return super().get(path)


def test_of_a_long_ledger_only_the_newest_entries_are_read(tmp_path: Path) -> None:
    lake, settings = CountingLake(str(tmp_path)), Settings()
    for batch in range(120):
        Ledger(lake, "abc").commit(entry(settings, batch, {SHARD: SequenceRange(str(batch), str(batch), 1)}))
    lake.reads = 0
    (found,) = newest_entries(lake, 8)
    assert [each.batch for each in found.entries] == list(range(119, 111, -1)), "as numbers: 99 is not after 119"
    assert found.batches == 120
    assert lake.reads == 8


def test_positions_come_from_old_entries_too(tmp_path: Path) -> None:
    lake, settings = FolderLake(str(tmp_path)), Settings()
    ledger = Ledger(lake, "abc")
    ledger.commit(entry(settings, 0, {"quiet": SequenceRange("1", "9", 9), "busy": SequenceRange("1", "1", 1)}))
    ledger.commit(entry(settings, 1, {"busy": SequenceRange("2", "10", 9)}))
    (found,) = newest_entries(lake, 1)
    assert last_sequence_numbers(lake, "abc", found.entries) == {"quiet": "9", "busy": "10"}


def test_positions_reach_back_past_an_earlier_restore(lake_settings: Settings) -> None:
    numbers = put_on_one_shard(lake_settings, 4)
    lake, other = lake_at(lake_settings.lake), "shardId-000000000001"
    first = entry(
        lake_settings, 0, {SHARD: SequenceRange(numbers[0], numbers[1], 2), other: SequenceRange("1", "1", 1)}
    )
    Ledger(lake, "abc").commit(first)
    second = entry(lake_settings, 0, {SHARD: SequenceRange(numbers[2], numbers[2], 1)})
    second.query, second.finished_at = "def", second.finished_at + timedelta(hours=1)
    Ledger(lake, "def").commit(second)
    found = positions(lake_settings)
    assert found["positions"] == {SHARD: numbers[2], other: "1"}
    assert found["query"] == "def"


def test_positions_without_a_batch_say_where_to_start(lake_settings: Settings) -> None:
    found = positions(lake_settings)
    assert (found["query"], found["starting_position"], found["leftovers"]) == (None, "TRIM_HORIZON", [])


def test_positions_of_an_empty_lake_are_no_error(lake_settings: Settings) -> None:
    shown = CliRunner().invoke(app, ["status", "--positions", "--remove-leftovers", *arguments(lake_settings)])
    assert shown.exit_code == 0, shown.output
    assert "startingPosition: 'TRIM_HORIZON'" in shown.stdout
    assert f"no batch of stream {lake_settings.stream.name}" in shown.stderr


@pytest.mark.spark
def test_after_a_lost_checkpoint_the_positions_lose_and_double_nothing(
    spark: SparkSession, lake_settings: Settings, tmp_path: Path
) -> None:
    from jobs.stream.job import run

    put(lake_settings, (record(n=number) for number in range(40)))
    run(lambda: spark, lake_settings, until_drained=True)
    query = newest_entries(lake_at(lake_settings.lake), 1)[0].query
    # A batch that was killed before its ledger entry left a file behind; its records are read again.
    lost = f"raw/ingest_date=2026-11-24/hour=01/{query}-1-00000-000.json.gz"
    lake_at(lake_settings.lake).put(lost, io.BytesIO(b""))
    put(lake_settings, (record(n=number) for number in range(40, 65)))

    file = tmp_path / "restore.yaml"
    shown = CliRunner().invoke(app, ["status", "--positions", "--remove-leftovers", *arguments(lake_settings)])
    assert shown.exit_code == 0, shown.output
    file.write_text(shown.stdout, encoding="utf-8")
    assert lake_at(lake_settings.lake).get(lost) is None
    restored = load_settings(
        str(file), [*arguments(lake_settings)[1::2], f"stream_job.checkpoint={tmp_path / 'new-checkpoint'}"]
    )
    result = run(lambda: spark, restored, until_drained=True, start_from="stream")

    assert result.read == 25
    found = Counter(json.loads(line)["n"] for line in raw_lines(lake_settings))
    assert found == Counter(range(65))


def test_watch_ends_on_ctrl_c_with_0(lake_settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    command = [sys.executable, "-m", "movement", "status", "--watch", "--every", "1", "--json", str(file)]
    watching = subprocess.Popen(
        [*command, *arguments(lake_settings)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        first = json.loads(file.read_text())["at"]
        while json.loads(file.read_text())["at"] == first and time.monotonic() < deadline:
            time.sleep(0.05)
        watching.send_signal(signal.SIGINT)
        output, _ = watching.communicate(timeout=90)
    finally:
        watching.kill()
    assert watching.returncode == 0, output
    assert "Traceback" not in output
    assert "movement-lake" in output


def test_a_stream_of_many_shards_shows_the_worst_of_them() -> None:
    shards = [
        {"shard": f"s{n}", "state": "behind", "behind_ms": n * 1000, "closed": False, "position": "1" * 56,
         "last_arrival": None}
        for n in range(40)
    ]  # fmt: skip
    found = {"at": datetime.now(UTC), "stream": "s", "lake": "l", "job": None, "query": None, "batches": 0,
             "behind_ms": 39000, "shards": shards, "last": [], "reasons": {}, "replayed": 0, "alarms": [], "notes": [],
             "nulled": {"speed.wrong_type": 1200}, "warned": {"plate.too_long": 3},
             "files": {"files": 0}, "catalog": {"error": "no catalog"},
             "new_partitions": {"limit": 1000, "kept_out": 7}}  # fmt: skip
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(page(found))
    text = console.export_text()
    assert "s39 " in text
    assert "s0 " not in text
    assert "… and 24 more" in text
    assert "not compared with the lake: no catalog" in text
    assert "at most 1,000 a batch · 7 records" in text
    assert re.search(r"speed\.wrong_type +1,200 +now null", text)
    assert re.search(r"plate\.too_long +3 +kept as they are", text)
