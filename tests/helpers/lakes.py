"""Lakes that a test has for itself: stream, bucket and database, and what is in them."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import lake_tables
from jobs.common.aws import client
from jobs.lake.store import lake_at
from jobs.schema.partitions import parse_partition_path, partition_path
from jobs.schema.table import load_contract
from jobs.settings.config_files import SHIPPED
from jobs.settings.settings import Settings, load_settings
from local import resources
from tests.helpers.samples import GOOD

_numbers = itertools.count(1)


def make_lake(folder: Path, *overrides: str) -> Settings:
    """A stream, a bucket and a database that no other test uses."""
    number = f"{os.getpid()}-{next(_numbers)}"
    settings = load_settings(
        None,
        [
            f"stream.name=test-{number}",
            f"lake=s3://test-{number}/lake",
            f"database=test_{number.replace('-', '_')}",
            f"local.state_dir={folder}",
            *overrides,
        ],
    )
    resources.ensure(settings)
    return settings


CONTRACT = load_contract("travel_times.yaml")


def put(settings: Settings, payloads: Iterable[bytes]) -> None:
    kinesis = client("kinesis")
    for number, payload in enumerate(payloads):
        kinesis.put_record(StreamName=settings.stream.name, Data=payload, PartitionKey=str(number))


def record(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes, ensure_ascii=False).encode()


def raw_lines(settings: Settings, table: str = "raw") -> list[bytes]:
    lake = lake_at(settings.lake)
    return [
        line for path, _ in lake.list(f"{table}/") for line in gzip.decompress(lake.get(path) or b"").split(b"\n")[:-1]
    ]


def processed_rows(settings: Settings) -> Iterator[dict[str, Any]]:
    """Every row of the processed table, read by pyarrow alone, with its partition's values."""
    lake = lake_at(settings.lake)
    for path, _ in lake.list("processed/"):
        partition = parse_partition_path(path.removeprefix("processed/").rpartition("/")[0])
        for row in pq.read_table(io.BytesIO(lake.get(path) or b"")).to_pylist():
            yield row | partition


def catalogued(settings: Settings, table: str = "processed") -> list[str]:
    catalog = GlueCatalog(client("glue"), settings.database, settings.lake)
    tables = lake_tables(CONTRACT)
    catalog.ensure_tables(tables)
    names = next([name for name, _, _ in found.partitions] for found in tables if found.name == table)
    return sorted(partition_path(names, values) for values in catalog.partitions(table))


def folders(settings: Settings, table: str = "processed") -> list[str]:
    return sorted(
        {path.removeprefix(f"{table}/").rpartition("/")[0] for path, _ in lake_at(settings.lake).list(f"{table}/")}
    )


def record_numbers(settings: Settings) -> list[int]:
    return sorted(json.loads(row["rescued_data"])["n"] for row in processed_rows(settings))


def contract_file(folder: Path, **columns: dict[str, Any] | None) -> str:
    """The travel times' contract without gold tables, with columns changed, removed (None) or added, in a file."""
    content = yaml.safe_load((SHIPPED / "travel_times.yaml").read_text(encoding="utf-8"))
    del content["gold"]  # they name columns
    known = content["columns"]
    added = {name: {"source": name.title(), **(keys or {})} for name, keys in columns.items() if name not in known}
    changed = {
        name: keys | (columns.get(name) or {}) for name, keys in known.items() if columns.get(name, {}) is not None
    }
    content["columns"] = added | changed
    path = folder / f"contract-{len(list(folder.glob('contract-*')))}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return str(path)
