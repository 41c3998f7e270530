"""Measures compaction of many small files: files, bytes and scan times before and after, and the run's own time.

    python -m benchmarks.compaction --json compaction.json [--batches 150] [--rows 1200]

The table has twelve partitions and one file for each batch and partition, in a local folder; moto's Glue runs in this
process. pyarrow scans every row of three columns, and the rows of one origin, which sorted files answer from their
statistics. Times are medians of five.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from moto import mock_aws

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import lake_tables
from jobs.common.aws import client
from jobs.lake.ledger import TABLES, Ledger, LedgerEntry
from jobs.lake.store import lake_at
from jobs.lake.table_files import live_files
from jobs.maintenance import compact
from jobs.schema.table import load_contract
from jobs.settings.settings import Settings, load_settings
from jobs.write.processed import file_schema
from jobs.write.task import WriteTask

TIMES = 5
CITIES = 12


def write_batches(settings: Settings, batches: int, rows: int) -> None:
    """Writes and commits batches of generated records, as the streaming job does."""
    contract, lake, chance = load_contract(settings.contract), lake_at(settings.lake), random.Random(1)
    catalog = GlueCatalog(client("glue"), settings.database, settings.lake)
    catalog.ensure_tables(lake_tables(contract))
    for batch in range(batches):
        records = [record(chance, number) for number in range(rows)]
        now = datetime.now(UTC)
        arrived = pa.record_batch(
            {
                "data": pa.array(records, pa.binary()),
                "shard_id": pa.array(["shardId-000000000000"] * rows),
                "sequence_number": pa.array([str(batch * rows + number) for number in range(rows)]),
                "partition_key": pa.array(["key"] * rows),
                "arrival_time": pa.array([now] * rows, pa.timestamp("us", tz="UTC")),
            }
        )
        task = WriteTask(settings.lake, f"benchmark-{batch}", contract, settings.sink)
        report = task.write(iter([arrived]), f"benchmark-{batch}-00000")
        partitions = {table: report.partitions(table) for table in TABLES}
        catalog.register("processed", partitions["processed"])
        entry = LedgerEntry("benchmark", batch, "stream", now, now, report, partitions, {})
        Ledger(lake, "benchmark").commit(entry)


def record(chance: random.Random, number: int) -> bytes:
    mean = chance.randint(100, 3000)
    ring = [[round(chance.uniform(2, 3), 6), round(chance.uniform(48, 49), 6)] for _ in range(4)]
    return json.dumps(
        {
            "City": f"City {number % CITIES}",
            "Origin Movement ID": str(chance.randint(1, 2000)),
            "Origin Display Name": f"{chance.randint(1, 300)} Rue de Rivoli",
            "Origin Geometry": json.dumps([ring]),
            "Destination Movement ID": str(chance.randint(1, 2000)),
            "Destination Display Name": f"{chance.randint(1, 300)} Rue de la Paix",
            "Date Range": "01/01/2016 - 01/31/2016, Every day, Daily Average",
            "Mean Travel Time (Seconds)": mean,
            "Range - Lower Bound Travel Time (Seconds)": mean - 50,
            "Range - Upper Bound Travel Time (Seconds)": mean + 50,
        }
    ).encode()


def scans(settings: Settings) -> dict[str, float]:
    """The seconds of each kind of scan, including the listing, and the number of rows."""
    schema = file_schema(load_contract(settings.contract))
    columns = ["origin_movement_id", "destination_movement_id", "mean_travel_time_seconds"]

    def table(chosen: ds.Expression | None) -> int:
        paths = [f"{settings.lake}/{file.path}" for file in live_files(lake_at(settings.lake), "processed")]
        return int(ds.dataset(paths, schema=schema, format="parquet").to_table(columns=columns, filter=chosen).num_rows)

    one = ds.field("origin_movement_id") == "777"
    return {"every row": timed(lambda: table(None)), "one origin": timed(lambda: table(one)), "rows": table(None)}


def timed(call: Callable[[], object]) -> float:
    call()
    seconds = []
    for _ in range(TIMES):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measure(settings: Settings, batches: int, rows: int) -> dict[str, Any]:
    write_batches(settings, batches, rows)
    before = scans(settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = compact.run(settings)
    after = scans(settings)
    if before["rows"] != after["rows"]:
        raise SystemExit(f"{before['rows']} rows before, {after['rows']} after: compaction is broken")
    return {
        "rows": int(before["rows"]),
        "files": {"before": done.files_before, "after": done.files_after},
        "bytes": {"before": done.bytes_before, "after": done.bytes_after},
        "scan_seconds": {
            name: {"before": round(before[name], 4), "after": round(after[name], 4)}
            for name in ("every row", "one origin")
        },
        "compaction_seconds": done.seconds,
        "compaction_rows_per_second": round(before["rows"] / done.seconds),
        "peak_mib_more": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024),
        "ratios": {
            "files before / after": round(done.files_before / max(done.files_after, 1), 1),
            "bytes before / after": round(done.bytes_before / max(done.bytes_after, 1), 2),
            "scan of every row before / after": round(before["every row"] / after["every row"], 1),
            "scan of one origin before / after": round(before["one origin"] / after["one origin"], 1),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Files and scan time before and after compaction")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--batches", type=int, default=150)
    parser.add_argument("--rows", type=int, default=1200, help="records a batch")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ["AWS_REGION"] = "us-east-1"
    with tempfile.TemporaryDirectory() as folder, mock_aws():
        settings = load_settings(None, [f"lake={folder}/lake", "compact.grace_seconds=0"])
        result = measure(settings, options.batches, options.rows)
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
