"""`kill -9` at any moment, and a restart on the same checkpoint: every record exactly once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.emulators import Stream
from tests.helpers.paths import ROOT
from tests.helpers.stream_query import Query, names

pytestmark = [pytest.mark.spark, pytest.mark.aws]

KILLS = int(os.environ.get("SOURCE_KILLS", "1"))

SCRIPT = """
import sys
from pyspark.sql import SparkSession
from spark_kinesis import KinesisDataSource

name, endpoint, folder = sys.argv[1:]
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
spark.dataSource.register(KinesisDataSource)
rows = spark.readStream.format("kinesis").options(
    streamName=name, endpointUrl=endpoint, region="us-east-1", startingPosition="TRIM_HORIZON",
    discoverySeconds=0, planningCallsPerSecond=1000, maxRecordsPerBatch=150,
).load()
query = rows.writeStream.format("parquet").option("checkpointLocation", folder + "/checkpoint")
query.start(folder + "/out").awaitTermination()
"""


def start(stream: Stream, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, stream.name, stream.emulator.endpoint, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills the driver, its JVM and its workers at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def wait_for_batches(checkpoint: Path, count: int) -> None:
    deadline = time.monotonic() + 180  # Spark may start slowly
    while time.monotonic() < deadline:
        planned = list((checkpoint / "offsets").glob("[0-9]*")) if checkpoint.exists() else []
        if len(planned) >= count:
            return
        time.sleep(0.02)
    raise AssertionError("the query plans no batches")


@pytest.mark.parametrize("emulator", ["kinesis_mock"], indirect=True)
def test_a_query_killed_at_any_moment_reads_each_record_once(
    spark: Any, new_stream: Callable[..., Stream], tmp_path: Path
) -> None:
    stream = new_stream(shards=2)
    query = Query(spark, stream, tmp_path)
    put: list[str] = []
    for turn in range(KILLS):
        values = names(f"turn{turn:03}", 1500)
        put += values
        stream.put(values)
        if turn == 0:
            stream.split("shardId-000000000000")
        before = len(list((query.checkpoint / "offsets").glob("[0-9]*")))
        process = start(stream, tmp_path)
        try:
            wait_for_batches(query.checkpoint, before + 2)
            time.sleep(random.uniform(0, 0.6))
        finally:
            kill(process)
    query.run()
    assert query.values == sorted(put)
