"""Writes batches as the streaming job does, without Spark, and reads them through the catalog."""

from __future__ import annotations

import io
from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import lake_tables
from jobs.common.aws import client
from jobs.lake.ledger import TABLES, Ledger, LedgerEntry
from jobs.lake.partition_locations import LayoutFile, copy_to_live_locations
from jobs.lake.store import lake_at
from jobs.lake.task_report import sum_reports
from jobs.schema.table import load_contract
from jobs.settings.settings import Settings
from jobs.write.task import WriteTask
from tests.helpers.lake_audit import RecordKey
from tests.helpers.samples import arrived

AT = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
SHARD = "shardId-00000000000{}"


_catalogs: dict[str, GlueCatalog] = {}


def catalog_of(settings: Settings) -> GlueCatalog:
    """The settings' database with its tables, created once per database."""
    if settings.database not in _catalogs:
        _catalogs[settings.database] = _catalog(settings)
    return _catalogs[settings.database]


def forget_catalog(settings: Settings) -> None:
    """The next writer is as in a new process, which has registered nothing yet."""
    _catalogs.pop(settings.database, None)


def _catalog(settings: Settings) -> GlueCatalog:
    catalog = GlueCatalog(client("glue"), settings.database, settings.lake)
    catalog.ensure_tables(lake_tables(load_contract(settings.contract)))
    return catalog


def write_batch(
    settings: Settings,
    batch: int,
    tasks: list[list[bytes]],
    *,
    query: str = "abcdefabcdef",
    at: datetime | None = None,
    apart: timedelta = timedelta(0),
    final: bool = True,
) -> LedgerEntry:
    """Writes a batch. Each of `tasks` has one shard's records; the first arrives `at`, the others `apart` later each.

    Not `final`: killed before the partitions are registered.
    """
    lake, contract = lake_at(settings.lake), load_contract(settings.contract)
    layouts = LayoutFile(lake, "processed")
    reports = []
    for number, records in enumerate(tasks):
        task = WriteTask(settings.lake, f"{query}-{batch}", contract, settings.sink, locations=layouts.read().relocated)
        moments = [(at or AT) + position * apart for position in range(len(records))]
        rows = arrived(records, shard=SHARD.format(number), first=1000 * batch + 1, at=moments)
        reports.append(task.write(iter([rows]), f"{query}-{batch}-{number:05d}"))
    report = sum_reports(reports)
    now = datetime.now(UTC)
    partitions = {table: report.partitions(table) for table in TABLES}
    entry = LedgerEntry(query, batch, settings.stream.name, now, now, report, partitions, {})
    if final:
        layout = copy_to_live_locations(lake, layouts, report, "processed", lambda: None)
        catalog = catalog_of(settings)
        for table, folders in partitions.items():
            catalog.register(table, folders, layout.relocated if table == "processed" else None)
        Ledger(lake, query).commit(entry)
    return entry


def poll(settings: Settings, catalog: GlueCatalog | None = None) -> tuple[Counter[RecordKey], int]:
    """Reads the table through the catalog. Returns each row's key and the number of files."""
    catalog, lake = catalog or catalog_of(settings), lake_at(settings.lake)
    found: Counter[RecordKey] = Counter()
    files = 0
    for location in catalog.locations("processed").values():
        for path, _ in lake.list(location.removeprefix(f"{catalog.root}/")):
            content = lake.get(path)
            assert content is not None, f"{path} was deleted under the reader"
            rows = pq.read_table(io.BytesIO(content), columns=["shard_id", "sequence_number"]).to_pylist()
            found.update((row["shard_id"], row["sequence_number"]) for row in rows)
            files += 1
    return found, files


def set_compact(settings: Settings, **values: float) -> Settings:
    return settings.model_copy(update={"compact": settings.compact.model_copy(update=values)})
