"""A streaming query in Spark, on a stream of an emulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spark_kinesis import KinesisDataSource
from tests.helpers.emulators import Stream


class Query:
    """Runs one query several times on the same checkpoint. `rows`: everything that its batches delivered."""

    def __init__(self, spark: Any, stream: Stream, folder: Path, **options: str) -> None:
        spark.dataSource.register(KinesisDataSource)
        self.spark = spark
        self.out = folder / "out"
        self.checkpoint = folder / "checkpoint"
        self.options = {
            "streamName": stream.name,
            "endpointUrl": stream.emulator.endpoint,
            "region": "us-east-1",
            "startingPosition": "TRIM_HORIZON",
            "discoverySeconds": "0",
            "planningCallsPerSecond": "1000",
            "retrySeconds": "10",
            **options,
        }

    def start(self, **trigger: Any) -> Any:
        rows = self.spark.readStream.format("kinesis").options(**self.options).load()
        writer = rows.writeStream.format("parquet").option("checkpointLocation", str(self.checkpoint))
        if trigger:
            writer = writer.trigger(**trigger)
        return writer.start(str(self.out))

    def run(self) -> None:
        """Starts the query, waits until it has read everything, and stops it."""
        query = self.start()
        try:
            query.processAllAvailable()
        finally:
            query.stop()

    @property
    def planned(self) -> list[Path]:
        return list((self.checkpoint / "offsets").glob("[0-9]*"))

    def batch(self, number: int) -> list[str]:
        """What one batch delivered, by the sink's own log."""
        log = (self.out / "_spark_metadata" / str(number)).read_text().splitlines()[1:]
        rows = self.spark.read.parquet(*(json.loads(line)["path"] for line in log)).collect()
        return sorted(bytes(row.data).decode() for row in rows)

    @property
    def rows(self) -> list[Any]:
        return list(self.spark.read.parquet(str(self.out)).collect()) if self.out.exists() else []

    @property
    def values(self) -> list[str]:
        return sorted(bytes(row.data).decode() for row in self.rows)


def names(prefix: str, count: int) -> list[str]:
    return sorted(f"{prefix}-{number:05}" for number in range(count))
