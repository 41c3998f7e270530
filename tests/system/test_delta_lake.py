"""The whole pipeline with `sink.format: delta`: a job killed before its Delta commit, the next job, all readers."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from jobs.common.aws import client
from jobs.common.errors import ConfigurationError
from jobs.delivery import job as delivery_job
from jobs.gold import job as gold_job
from jobs.lake.delta import open_delta
from jobs.lake.ledger import entries
from jobs.lake.store import lake_at
from jobs.maintenance import compact
from jobs.parity import job as parity_job
from jobs.settings.settings import Settings
from jobs.stream import job as stream_job
from local.delivery_stream import DeliveryOptions, DeliveryStream
from movement.cli.demo import count_lake
from tests.helpers.delivered import crawl, record
from tests.helpers.job_process import Job
from tests.helpers.lakes import make_lake, put

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.aws]

CITIES = ("Paris", "São Paulo", "a/b", "null", "007")


def rows_of(settings: Settings) -> list[dict[str, Any]]:
    opened = open_delta(f"{settings.lake}/processed")
    assert opened is not None
    return list(pa.table(opened.to_pyarrow_table()).to_pylist())


def send(settings: Settings, start: int) -> None:
    put(settings, [record(City=city, n=start + number) for number, city in enumerate(CITIES)] + [b"no record"])


@pytest.mark.nightly
def test_the_whole_pipeline_with_a_delta_table(embedded_aws: object, spark: SparkSession, tmp_path: Path) -> None:
    settings = make_lake(
        tmp_path, "sink.format=delta", "stream.shards=2", "spark.master=local[2]", "compact.min_files=2",
        "spark.conf={spark.sql.shuffle.partitions: 2}", "compact.grace_seconds=0",
        "gold.manifests=false",
    )  # fmt: skip
    lake = lake_at(settings.lake)
    send(settings, 0)

    job = Job(settings, tmp_path / "job.log", fault="delta.committing", until_drained=True)
    code = job.wait(120)
    job.lose_machine()
    assert code == -signal.SIGKILL, job.tail()
    assert [entry.report.processed for entry in entries(lake)] == [len(CITIES)], "the batch is in the ledger"
    assert rows_of(settings) == [], "but not in the table"
    assert gold_job.run(lambda: spark, settings).rows == 0, "gold waits for it"

    send(settings, 100)
    stream_job.run(lambda: spark, settings, until_drained=True)

    found = rows_of(settings)
    assert Counter((row["shard_id"], row["sequence_number"]) for row in found).most_common(1)[0][1] == 1
    assert len(found) == 2 * len(CITIES) == sum(entry.report.processed for entry in entries(lake))
    by_batch = {entry.name: entry.report.processed for entry in entries(lake)}
    assert Counter(row["batch"] for row in found) == Counter(by_batch)
    assert_catalog(settings)

    DeliveryStream(settings.stream.name, settings.lake, DeliveryOptions()).drain()
    crawl(settings)
    delivery_job.run(spark, settings)
    for compacted in (False, True):
        if compacted:
            done = compact.run(settings)
            assert done.files_after < done.files_before == done.removed
            assert sorted(map(str, rows_of(settings))) == sorted(map(str, found))
        parity = parity_job.run(spark, settings)
        assert (parity.equal, parity.stream, parity.batch) == (True, len(found), len(found))
        assert {part["partition"].partition("/")[0] for part in parity.partitions} >= {"city=São Paulo", "city=a%2Fb"}
        counts = count_lake(lake)
        assert (counts.processed, counts.processed + counts.quarantined) == (len(found), counts.raw)

    gold = gold_job.run(lambda: spark, settings)
    assert gold.tables["corridor_history"]["rows"] == gold.rows == len(found)
    plain = settings.model_copy(update={"sink": settings.sink.model_copy(update={"format": "parquet"})})
    with pytest.raises(ConfigurationError, match="is a Delta table"):
        stream_job.run(lambda: spark, plain, until_drained=True)


def assert_catalog(settings: Settings) -> None:
    """processed is a Delta table without Glue partitions; raw and quarantine have theirs."""
    glue = client("glue")
    table = glue.get_table(DatabaseName=settings.database, Name="processed")["Table"]
    assert table["Parameters"]["spark.sql.sources.provider"] == "delta"
    assert table["StorageDescriptor"]["SerdeInfo"]["Parameters"]["path"] == f"{settings.lake}/processed/"
    assert {"city", "start_date", "batch"} <= {column["Name"] for column in table["StorageDescriptor"]["Columns"]}
    found = {
        name: len(glue.get_partitions(DatabaseName=settings.database, TableName=name)["Partitions"])
        for name in ("raw", "processed", "quarantine")
    }
    assert (found["processed"], found["raw"] > 0, found["quarantine"] > 0) == (0, True, True)
