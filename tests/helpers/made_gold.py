"""Writes processed files and ledger entries without a stream, and reads the gold tables back."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from jobs.gold.tables import GoldTable
from jobs.lake.delta import open_delta
from jobs.lake.ledger import TABLES as LAKE_TABLES
from jobs.lake.ledger import Ledger, LedgerEntry
from jobs.lake.store import lake_at
from jobs.schema.table import load_contract
from jobs.settings.settings import Settings
from jobs.write.task import WriteTask
from tests.helpers import plain_gold as plain
from tests.helpers.plain_gold import TABLES
from tests.helpers.samples import GOOD, LOWER, MEAN, UPPER, arrived, bytes_of

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
RING = "[[2.3,48.8],[2.4,48.8],[2.4,48.9],[2.3,48.9],[2.3,48.8]]"


def finish(
    settings: Settings, query: str, number: int, records: Sequence[bytes], at: datetime | list[datetime] = NOON
) -> None:
    """Writes and commits a batch as the streaming job does."""
    contract = load_contract(settings.contract)
    lake = lake_at(settings.lake)
    task = WriteTask(settings.lake, f"{query}-{number}", contract, settings.sink)
    batches = [arrived(list(records), at=at, first=10_000 * number + 1)] if records else []
    report = task.write(iter(batches), f"{query}-{number}-00000")
    partitions = {table: report.partitions(table) for table in LAKE_TABLES}
    Ledger(lake, query).commit(LedgerEntry(query, number, "test", NOON, NOON, report, partitions, {}))


def some_records(chance: random.Random, count: int) -> tuple[list[bytes], list[datetime]]:
    """Records of a few corridors: repeated, late, of the same millisecond, with and without geometry and names; some
    are rejected."""
    records, times = [], []
    for _ in range(count):
        mean = chance.choice([0, chance.randint(1, 4000)])
        lower, upper = mean - chance.randint(0, mean), mean + chance.randint(0, 500)
        record: dict[str, Any] = GOOD | {
            "City": chance.choice(["Paris", "São Paulo", "a/b", 'it\'s "x"']),
            "Origin Movement ID": str(chance.randint(1, 3)),
            "Destination Movement ID": str(chance.randint(1, 4)),
            "Destination Display Name": chance.choice(["", "A street", "Rue du Jour"]),
            "Date Range": f"09/0{chance.randint(1, 2)}/2016 - 10/01/2016, Every day, Daily Average",
            MEAN: mean,
            LOWER: chance.choice([None, lower, lower]),
            UPPER: upper,
        }
        if chance.random() < 0.3:
            record["Origin Geometry"] = chance.choice(["", "no ring", RING, json.dumps([[1, 1], [chance.random(), 2]])])
        records.append(b"no record" if chance.random() < 0.05 else bytes_of(record))
        times.append(NOON + timedelta(minutes=chance.randint(-3, 3)))
    return records, times


def gold_rows(settings: Settings, table: str, tables: Sequence[GoldTable] = TABLES) -> list[dict[str, Any]]:
    """A gold table's rows, read with delta-rs, as the HTML page reads them."""
    found = next(each for each in tables if each.name == table)
    opened = open_delta(f"{settings.lake}/{found.folder}")
    assert opened is not None, table
    rows = pa.table(opened.to_pyarrow_table())
    assert rows.column_names == [name for name, _, _ in found.columns]
    return list(rows.to_pylist())


def assert_gold_is_plain(
    settings: Settings, wanted: dict[str, list[plain.Row]] | None = None, tables: Sequence[GoldTable] = TABLES
) -> dict[str, int]:
    """Asserts that every gold table equals `plain_gold`'s computation, or `wanted`; returns the tables' row counts."""
    wanted = wanted or plain.gold(plain.processed(lake_at(settings.lake)))
    for table in tables:
        names = [name for name, _, _ in table.columns]
        # Floats are compared separately: the last digits of their sums depend on the order of addition.
        kinds = {name: kind == "double" for name, kind, _ in table.columns}
        found, expected = (
            sorted(
                (
                    ([row[name] for name in names if not kinds[name]], [row[name] for name in names if kinds[name]])
                    for row in rows
                ),
                key=lambda row: str(row[0]),
            )
            for rows in (gold_rows(settings, table.name, tables), wanted[table.name])
        )
        assert [exact for exact, _ in found] == [exact for exact, _ in expected], table.name
        for (_, numbers), (_, others) in zip(found, expected, strict=True):
            assert [number is None for number in numbers] == [number is None for number in others], table.name
            assert [number or 0 for number in numbers] == pytest.approx([number or 0 for number in others], rel=1e-9)
    return {name: len(rows) for name, rows in wanted.items()}
