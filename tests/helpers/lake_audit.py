"""Checks a lake after any number of crashes: nothing is lost, doubled or left over."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections import Counter
from collections.abc import Mapping

import msgspec
import pyarrow.parquet as pq

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import stream_tables
from jobs.common.aws import client
from jobs.lake.delta import active_files, open_delta
from jobs.lake.ledger import TABLES, LedgerEntry
from jobs.lake.store import Lake, lake_at
from jobs.lake.task_report import TableName
from jobs.schema.partitions import partition_path
from jobs.schema.table import load_contract
from jobs.settings.settings import Settings

RecordKey = tuple[str, str]  # shard, sequence number


def audit(settings: Settings, accepted: Mapping[RecordKey, bytes]) -> list[LedgerEntry]:
    """Compares the lake, its catalog and its ledger with the `accepted` records. Returns the ledger's entries."""
    lake = lake_at(settings.lake)
    contents = {
        table: {path: lake.get(path) or b"" for path, _ in lake.list(f"{table}/") if "/_delta_log/" not in path}
        for table in TABLES
    }
    _every_record_once(contents, accepted)
    entries = ledger(lake)
    _ledger_is_complete(entries, contents, accepted)
    _catalog_is_the_folders(settings, contents)
    if settings.sink.format == "delta":
        opened = open_delta(f"{lake.uri}/processed")
        assert opened is not None
        in_log = {path: size for _, path, size in active_files(opened)}
        assert in_log == {path: len(data) for path, data in contents["processed"].items()}
    return entries


def ledger(lake: Lake) -> list[LedgerEntry]:
    """Every entry, by batch."""
    found = [
        msgspec.json.decode(lake.get(path) or b"", type=LedgerEntry)
        for path, _ in lake.list("_ledger/")
        if path.rpartition("/")[2].removesuffix(".json").isdigit()
    ]
    return sorted(found, key=lambda entry: entry.batch)


def _every_record_once(contents: Mapping[TableName, Mapping[str, bytes]], accepted: Mapping[RecordKey, bytes]) -> None:
    raw = Counter(line for data in contents["raw"].values() for line in gzip.decompress(data).split(b"\n")[:-1])
    expected = Counter(payload.replace(b"\n", b" ").replace(b"\r", b" ") for payload in accepted.values())
    assert not expected - raw, f"{(expected - raw).total()} records are not in raw"
    assert not raw - expected, f"{(raw - expected).total()} lines of raw are duplicates or unknown"

    rows = Counter(
        (row["shard_id"], row["sequence_number"])
        for data in contents["processed"].values()
        for row in pq.read_table(io.BytesIO(data), columns=["shard_id", "sequence_number"]).to_pylist()
    )
    rejected: Counter[RecordKey] = Counter()
    for data in contents["quarantine"].values():
        for line in gzip.decompress(data).splitlines():
            found = json.loads(line)
            key = (found["shard_id"], found["sequence_number"])
            rejected[key] += 1
            text = found["payload"]
            assert accepted[key] == (text.encode() if found["encoding"] == "utf-8" else base64.b64decode(text))
    doubled = [key for key, count in (rows + rejected).items() if count > 1]
    assert not doubled, f"{len(doubled)} records are doubled, the first {doubled[0]}"
    missing = set(accepted) - set(rows) - set(rejected)
    assert not missing, f"{len(missing)} records are neither processed nor quarantined, the first {min(missing)}"
    assert set(rows) | set(rejected) == set(accepted)


def _ledger_is_complete(
    entries: list[LedgerEntry], contents: Mapping[TableName, Mapping[str, bytes]], accepted: Mapping[RecordKey, bytes]
) -> None:
    assert [entry.batch for entry in entries] == list(range(len(entries)))
    assert len({entry.query for entry in entries}) == 1
    for entry in entries:
        report = entry.report
        assert report.read == report.raw == report.processed + report.quarantined
    assert sum(entry.report.read for entry in entries) == len(accepted)
    in_ledger = {file.path: file.bytes for entry in entries for file in entry.report.files}
    in_lake = {path: len(data) for files in contents.values() for path, data in files.items()}
    assert in_lake == in_ledger, f"files that differ: {sorted(in_lake.items() ^ in_ledger.items())[:5]}"
    last: dict[str, int] = {}
    for entry in entries:
        for shard, found in entry.report.shards.items():
            assert int(found.first) > last.get(shard, -1), f"batch {entry.batch} reads {shard} from before the last one"
            last[shard] = int(found.last)


def _catalog_is_the_folders(settings: Settings, contents: Mapping[TableName, Mapping[str, bytes]]) -> None:
    catalog = GlueCatalog(client("glue"), settings.database, settings.lake)
    tables = stream_tables(load_contract(settings.contract), settings.sink.format)
    catalog.ensure_tables(tables)
    for table in tables:
        names = [name for name, _, _ in table.partitions]
        registered = [partition_path(names, values) for values in catalog.partitions(table.name)]
        files = contents[table.name]  # type: ignore[index]
        folders = {path.removeprefix(f"{table.name}/").rpartition("/")[0] for path in files if names}
        assert sorted(registered) == sorted(folders), f"{table.name}: catalog and folders differ"
