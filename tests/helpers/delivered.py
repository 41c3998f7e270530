"""Writes delivery files as Firehose does, crawls them, and reads the delivery job's rows and rejections."""

from __future__ import annotations

import gzip
import io
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from jobs.delivery import job as delivery_job
from jobs.lake.store import lake_at
from jobs.schema.partitions import parse_partition_path
from jobs.schema.table import load_contract
from jobs.settings.settings import Settings
from local.batch_path import ensure_crawler
from local.crawler import Crawler

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CONTRACT = load_contract("travel_times.yaml")
NOON = datetime(2026, 11, 23, 12, 0, 5, tzinfo=UTC)
GOOD = {
    "City": "Paris",
    "Origin Movement ID": "9",
    "Origin Display Name": "Quai des Orfèvres",
    "Destination Movement ID": "1",
    "Destination Display Name": "0 Rue du Jour, Paris",
    "Date Range": "09/03/2016 - 10/01/2016, Every day, Daily Average",
    "Mean Travel Time (Seconds)": 446,
    "Range - Lower Bound Travel Time (Seconds)": 229,
    "Range - Upper Bound Travel Time (Seconds)": 866,
}


def record(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes, ensure_ascii=False).encode()


def deliver(
    settings: Settings,
    records: Sequence[bytes],
    *,
    at: datetime = NOON,
    delimiter: bytes = b"",
    zipped: bool = True,
    content: bytes | None = None,
) -> str:
    """Writes one file; returns its path in the lake."""
    body = b"".join(part + delimiter for part in records) if content is None else content
    body = gzip.compress(body) if zipped and content is None else body
    path = f"delivery/{at:ingest_date=%Y-%m-%d/hour=%H}/movement-delivery-1-{at:%Y-%m-%d-%H-%M-%S}-{uuid.uuid4()}"
    path += ".gz" if zipped else ""
    lake_at(settings.lake).put(path, io.BytesIO(body))
    return path


def crawl(settings: Settings) -> None:
    """Runs the crawler, as after a delivery."""
    from jobs.common.aws import client

    name = f"crawler-{settings.database}"
    ensure_crawler(name, settings.database, f"{settings.lake}/delivery/")
    client("glue").start_crawler(Name=name)
    done = Crawler(name).run_pending()
    assert done is not None
    assert done.error is None


def run_batch(spark: SparkSession, settings: Settings) -> delivery_job.DeliveryResult:
    crawl(settings)
    return delivery_job.run(spark, settings)


def rows(settings: Settings, table: str = "processed_batch") -> Iterator[dict[str, Any]]:
    """Every row of the table with its partition's values, read with pyarrow."""
    lake = lake_at(settings.lake)
    for path, _ in lake.list(f"{table}/"):
        partition = parse_partition_path(path.removeprefix(f"{table}/").rpartition("/")[0])
        for row in pq.read_table(io.BytesIO(lake.get(path) or b"")).to_pylist():
            yield row | partition


def numbers(settings: Settings) -> list[int]:
    """The `n` of every record that became a row."""
    return sorted(json.loads(row["rescued_data"])["n"] for row in rows(settings))


def quarantined(settings: Settings, stage: str = "batch") -> list[dict[str, Any]]:
    lake = lake_at(settings.lake)
    lines = [
        json.loads(line)
        for path, _ in lake.list("quarantine/")
        for line in gzip.decompress(lake.get(path) or b"").splitlines()
    ]
    return [line for line in lines if line["stage"] == stage]


def reasons(settings: Settings, stage: str = "batch") -> Counter[str]:
    return Counter(line["reason"] for line in quarantined(settings, stage))
