"""Today's code goes on from lakes, checkpoint and stream of an earlier release: nothing lost, nothing doubled.

The golden lakes are those of `tests/golden/make_golden.py`, whose docstring says what is in them. Each test restores
them and starts the jobs where the release's jobs ended, some of them killed.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest
from moto.kinesis.models import Stream
from typer.testing import CliRunner

from jobs.common.aws import client
from jobs.delivery import job as delivery_job
from jobs.gold import job as gold_job
from jobs.lake.ledger import LedgerEntry, check_counts, entries
from jobs.lake.store import Lake, lake_at
from jobs.lake.table_files import live_files
from jobs.maintenance import compact, raw
from jobs.maintenance.quarantine import replay_quarantine
from jobs.parity import job as parity_job
from jobs.settings.settings import Settings, load_settings
from jobs.stream import job as stream_job
from local.delivery_stream import DeliveryStream
from movement.cli.main import app
from tests.golden.dump import Dump, releases
from tests.golden.restore import kinesis_server, records_on, restore_catalog, restore_objects, restore_stream
from tests.helpers.delivered import crawl

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.aws]

Key = tuple[str, str]  # shard, sequence number
TIME_OF_NO_BATCH = datetime(2000, 1, 1, tzinfo=UTC), datetime(2000, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Restored:
    """A golden lake in the embedded AWS. `old`: the ledger as the release left it."""

    settings: Settings
    lake: Lake
    stream: Stream
    dump: Dump
    old: list[LedgerEntry]

    def unread(self) -> set[Key]:
        """The records on the stream that the release's ledger does not hold."""
        last = {shard: int(part.last) for entry in self.old for shard, part in entry.report.shards.items()}
        return {key for key in records_on(self.stream) if int(key[1]) > last.get(key[0], 0)}


@pytest.fixture(scope="module")
def kinesis() -> Iterator[str]:
    with kinesis_server() as url:
        yield url


@pytest.fixture(autouse=True)
def few_shuffle_partitions(spark: SparkSession) -> Iterator[None]:
    before = spark.conf.get("spark.sql.shuffle.partitions", "200")
    spark.conf.set("spark.sql.shuffle.partitions", "2")
    yield
    spark.conf.set("spark.sql.shuffle.partitions", before)


@pytest.fixture(params=releases(), ids=lambda folder: folder.name)
def dump(request: pytest.FixtureRequest, embedded_aws: object, kinesis: str, monkeypatch: pytest.MonkeyPatch) -> Dump:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis)
    found = Dump(request.param)
    if found.last_arrival > datetime.now(UTC):
        pytest.skip(f"this machine's clock is behind the golden lake's, which was made at {found.last_arrival}")
    return found


def restored(dump: Dump, folder: Path, lake: str, database: str, *overrides: str) -> Restored:
    settings = load_settings(
        None,
        [
            f"stream.name={dump.name}", f"lake=s3://{dump.name}/{lake}", f"database={database}",
            # Spark's workers have the environment that the session began with, and need an option.
            f"source.options={{endpointUrl: '{os.environ['AWS_ENDPOINT_URL_KINESIS']}'}}",
            f"local.state_dir={folder}", "compact.min_files=2", "compact.grace_seconds=0",
            "compact.batch_wait_seconds=5", *overrides,
        ],
    )  # fmt: skip
    restore_objects(dump, lake)
    restore_catalog(dump, database)
    stream = restore_stream(dump)
    opened = lake_at(settings.lake)
    return Restored(settings, opened, stream, dump, entries(opened))


@pytest.fixture
def plain(dump: Dump, tmp_path: Path) -> Restored:
    return restored(dump, tmp_path, "lake", "golden")


@pytest.fixture
def delta(dump: Dump, tmp_path: Path) -> Restored:
    return restored(dump, tmp_path, "delta-lake", "golden_delta", "sink.format=delta")


def test_status_tells_where_a_killed_job_of_the_release_ended(plain: Restored) -> None:
    found = status(plain)
    (query,) = {entry.query for entry in plain.old}
    assert (found["query"], found["batches"]) == (query, len(plain.old))
    assert found["job"]["state"] == "died"
    rejections = sum((Counter(entry.report.reasons) for entry in plain.old), Counter[str]())
    # The release replayed two records, which were rejected again: they count once.
    assert found["replayed"] == 2
    assert found["reasons"] == dict(rejections - Counter(not_json=2))
    assert [batch["read"] for batch in reversed(found["last"])] == [entry.report.read for entry in plain.old]
    behind = {shard["shard"] for shard in found["shards"] if shard["state"] == "behind"}
    assert behind == {shard for shard, _ in plain.unread()}
    assert {shard["state"] for shard in found["shards"]} == {"behind", "tip"}
    assert found["notes"] == []


def test_streaming_batch_path_parity_and_gold_go_on(plain: Restored, spark: SparkSession) -> None:
    unread, planned = plain.unread(), len(plain.old)

    result = stream_job.run(lambda: spark, plain.settings, until_drained=True)

    assert result.read == len(unread) > 0
    new = entries(plain.lake)[planned:]
    assert [entry.batch for entry in new] == list(range(planned, planned + len(new)))
    # The release planned this batch and was killed: it holds the same records, and what comes after it others.
    assert ends_of(new[0]) == planned_end(plain.dump, "lake", planned)
    assert 0 < new[0].report.read < len(unread)
    total = assert_every_record_once(plain)
    assert_final_batches_are_untouched(plain)
    assert_catalog_names_the_current_locations(plain)

    delivered = DeliveryStream(plain.settings.stream.name, plain.settings.lake).drain()
    assert 0 < sum(file.records for file in delivered) < len(records_on(plain.stream)), "what was delivered stays so"
    crawl(plain.settings)
    batch = delivery_job.run(spark, plain.settings)
    assert (batch.files, batch.read) == (len(delivered), sum(file.records for file in delivered))
    parity = parity_job.run(spark, plain.settings)
    assert (parity.equal, parity.stream, parity.batch) == (True, total, total)

    in_gold = json.loads(plain.dump.objects("lake")["_parity/latest.json"])["stream"]
    gold = gold_job.run(lambda: spark, plain.settings)
    assert gold.rows == total - in_gold > 0, "the batches that gold had taken are not taken again"
    assert gold.tables["corridor_history"] == {"rows": total, "new": gold.rows}
    found = status(plain)
    assert (found["job"]["state"], found["behind_ms"], found["batches"]) == ("clean", 0, planned + len(new))


def test_compaction_and_replays_end_what_was_killed_and_go_on(plain: Restored, spark: SparkSession) -> None:
    stream_job.run(lambda: spark, plain.settings, until_drained=True)
    total = assert_every_record_once(plain)

    compacted = compact.run(plain.settings)
    assert "city=Boston/start_date=2016-07-31" in compacted.recovered, "the release was moving it"
    assert compacted.left == {}
    assert compacted.files_after == len(compacted.partitions) > 0
    assert compacted.removed > 0
    assert assert_every_record_once(plain) == total
    assert_catalog_names_the_current_locations(plain)

    continued = raw.run(plain.settings, *TIME_OF_NO_BATCH)
    assert (continued.continued, continued.batches) == (2, 0)
    assert assert_every_record_once(plain) == total
    rebuilt = raw.run(plain.settings, plain.old[0].finished_at, plain.old[-1].finished_at)
    assert rebuilt.batches == len(plain.old) - 1, "a batch that ended at the window's end is outside"
    assert (rebuilt.processed, rebuilt.quarantined) == (rebuilt.processed_before, rebuilt.quarantined_before)
    assert rebuilt.kept_in_quarantine > 0, "lines that are back on the stream stay"
    assert assert_every_record_once(plain) == total
    assert_catalog_names_the_current_locations(plain)

    before = records_on(plain.stream)
    quarantined = sum(1 for _ in rejected(plain.lake))
    replayed = replay_quarantine(plain.settings)
    assert replayed.already_sent_by_reason == {"not_json": 2}, "by the release"
    assert replayed.possible_duplicates == 2, "the release was killed while it sent them"
    assert replayed.sent == quarantined - 2
    assert replayed.uncommitted == 0
    assert len(records_on(plain.stream)) == len(before) + replayed.sent
    stream_job.run(lambda: spark, plain.settings, until_drained=True)
    assert assert_every_record_once(plain) == total, "a record that is sent again is rejected again"
    assert replay_quarantine(plain.settings, dry_run=True).already_sent == quarantined


def test_a_delta_lake_goes_on(delta: Restored, spark: SparkSession) -> None:
    unread, planned = delta.unread(), len(delta.old)
    last = f"{delta.old[-1].query}-{delta.old[-1].batch}"
    assert not any(last in path for path in in_delta_log(delta.lake)), "the release was killed before this commit"

    result = stream_job.run(lambda: spark, delta.settings, until_drained=True)

    assert result.read == len(unread) > 0, "the batch that is in the ledger is skipped"
    assert any(last in path for path in in_delta_log(delta.lake)), "and its commit to the Delta log is made up for"
    assert [entry.batch for entry in entries(delta.lake)] == list(range(planned + result.batches))
    total = assert_every_record_once(delta)
    assert_final_batches_are_untouched(delta)

    gold = gold_job.run(lambda: spark, delta.settings)
    assert (gold.rows, gold.tables["corridor_history"]["rows"]) == (total, total)
    compacted = compact.run(delta.settings)
    assert compacted.files_after < compacted.files_before
    assert compacted.removed >= compacted.files_before
    assert assert_every_record_once(delta) == total
    found = status(delta)
    assert (found["job"]["state"], found["behind_ms"]) == ("clean", 0)


def assert_every_record_once(found: Restored) -> int:
    """Each record of the stream is in raw, and either in processed or in quarantine, once; the number of rows."""
    lake, records = found.lake, records_on(found.stream)
    raw = Counter(
        line for path, _ in lake.list("raw/") for line in gzip.decompress(lake.get(path) or b"").split(b"\n")[:-1]
    )
    assert raw == Counter(data.replace(b"\n", b" ") for data in records.values())
    rows = Counter(
        (row["shard_id"], row["sequence_number"])
        for file in live_files(lake, "processed")
        for row in pq.read_table(
            io.BytesIO(lake.get(file.path) or b""), columns=["shard_id", "sequence_number"]
        ).to_pylist()
    )
    lines = list(rejected(lake))
    for line in lines:
        text = line["payload"]
        data = text.encode() if line["encoding"] == "utf-8" else base64.b64decode(text)
        assert data == records[line["shard_id"], line["sequence_number"]]
    assert rows + Counter((line["shard_id"], line["sequence_number"]) for line in lines) == Counter(list(records))

    ledger = sorted(entries(lake), key=lambda entry: entry.batch)
    assert [(entry.query, entry.batch) for entry in ledger] == [
        (found.old[0].query, number) for number in range(len(ledger))
    ]
    for entry in ledger:
        check_counts(entry)
    assert sum(entry.report.read for entry in ledger) == len(records)
    assert sum(entry.report.processed for entry in ledger) == rows.total()
    read: dict[str, int] = {}
    for entry in ledger:
        for shard, part in entry.report.shards.items():
            assert int(part.first) == read.get(shard, 0) + 1
            assert int(part.last) - int(part.first) + 1 == part.records
            read[shard] = int(part.last)
    return rows.total()


def assert_final_batches_are_untouched(found: Restored) -> None:
    """The release's ledger entries, and every file that they name, have the bytes that they had."""
    stored = found.dump.objects(urlsplit(found.settings.lake).path.strip("/"))
    paths = {file.path for entry in found.old for file in entry.report.files}
    paths |= {f"_ledger/{entry.query}/{entry.batch}.json" for entry in found.old}
    assert [path for path in sorted(paths) if found.lake.get(path) != stored[path]] == []


def assert_catalog_names_the_current_locations(found: Restored) -> None:
    """The catalog has each partition of processed that has rows, where `_layout` says that its files are."""
    settings = found.settings
    moved = json.loads(found.lake.get("_layout/processed.json") or b"{}").get("partitions", {})
    current = {name: f"processed/{name}/" for name in {file.partition for file in live_files(found.lake, "processed")}}
    current |= {name: moved[name]["current"] for name in current if name in moved}
    pages = (
        client("glue").get_paginator("get_partitions").paginate(DatabaseName=settings.database, TableName="processed")
    )
    catalog = [part["StorageDescriptor"]["Location"].rstrip("/") for page in pages for part in page["Partitions"]]
    assert sorted(catalog) == sorted(f"{settings.lake}/{path}".rstrip("/") for path in current.values())


def status(found: Restored) -> dict[str, Any]:
    """What `movement status --json` says."""
    folder = Path(found.settings.local.state_dir)
    config, result = folder / "settings.yaml", folder / "status.json"
    config.write_text(json.dumps(found.settings.model_dump(mode="json")), encoding="utf-8")
    done = CliRunner().invoke(app, ["status", "--config", str(config), "--json", str(result)])
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return told


def rejected(lake: Lake) -> Iterator[dict[str, Any]]:
    """The lines of quarantine that the streaming job wrote."""
    for path, _ in lake.list("quarantine/"):
        if not path.rpartition("/")[2].startswith("batch-"):
            yield from map(json.loads, gzip.decompress(lake.get(path) or b"").splitlines())


def ends_of(entry: LedgerEntry) -> dict[str, str]:
    return {shard: part.last for shard, part in entry.report.shards.items()}


def planned_end(dump: Dump, lake: str, batch: int) -> dict[str, str]:
    """Where the checkpoint says that a batch ends, of the shards that it reads on in."""
    before, end = (
        json.loads(dump.objects(lake)[f"_checkpoints/stream/offsets/{number}"].splitlines()[-1])["shards"]
        for number in (batch - 1, batch)
    )
    return {shard: position for shard, position in end.items() if position != before.get(shard)}


def in_delta_log(lake: Lake) -> set[str]:
    """The files that the Delta log's last version names."""
    return {file.path for file in live_files(lake, "processed")}
