"""Measures the parity check of a million rows a side, relative to reading both tables once, and Spark's memory.

    python -m benchmarks.parity --json parity.json [--rows 1000000] [--memory 1g]

Both tables are in a local folder, in 48 partitions. Times are medians of three after a warm-up. `--memory` is the heap
of the one JVM of `local[*]`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.common.spark_session import spark_session
from jobs.parity import job as parity_job
from jobs.schema.table import load_contract
from jobs.settings.settings import Settings, load_settings

TIMES = 3


def write_tables(spark: SparkSession, settings: Settings, rows: int) -> None:
    """Writes processed and processed_batch with the same rows, in a different order and in different files."""
    number = F.col("id")
    ring = F.concat_ws(",", *[F.concat(F.lit("[2.35"), number % (90 + each), F.lit(",48.8]")) for each in range(12)])
    table = spark.range(rows).select(
        F.concat(F.lit("City "), (number % 12).cast("string")).alias("city"),
        F.date_add(F.lit("2016-01-01").cast("date"), (F.floor(number / 12) % 4 * 7).cast("int")).alias("start_date"),
        (number % 1000).cast("string").alias("origin_movement_id"),
        F.concat(F.lit("Street "), number % 5000).alias("origin_display_name"),
        ring.alias("origin_geometry"),
        F.floor(number / 1000).cast("string").alias("destination_movement_id"),
        F.when(number % 10 > 0, F.concat(F.lit("Road "), number % 7000)).alias("destination_display_name"),
        F.lit("01/01/2016 - 01/31/2016, Every day, Daily Average").alias("date_range"),
        F.lit("2016-01-31").cast("date").alias("end_date"),
        (number % 3600).cast("int").alias("mean_travel_time_seconds"),
        F.lit(0).alias("lower_bound_travel_time_seconds"),
        F.lit(3600).alias("upper_bound_travel_time_seconds"),
        F.current_timestamp().alias("arrival_time"),
    )
    by = ("city", "start_date")
    table.repartition(4, *by).write.partitionBy(*by).parquet(f"{settings.lake}/processed")
    shuffled = table.repartition(3, F.xxhash64("origin_movement_id", "destination_movement_id"))
    shuffled.write.partitionBy(*by).parquet(f"{settings.lake}/processed_batch")


def change_one_row(settings: Settings) -> None:
    """Changes one number of one row of the batch side."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = min(Path(settings.lake, "processed_batch").rglob("*.parquet"))
    rows = pq.ParquetFile(file).read()
    column = rows.schema.get_field_index("mean_travel_time_seconds")
    values = rows.column(column).to_pylist()
    values[0] += 1
    pq.write_table(
        rows.set_column(column, rows.schema.field(column), [pa.array(values, rows.schema.field(column).type)]), file
    )
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)


def median(work: Callable[[], Any]) -> float:
    """The median seconds of `work`, after one warm-up."""
    work()
    found = []
    for _ in range(TIMES):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def peak_mib(spark: SparkSession) -> float:
    """The JVM's peak resident memory (Linux)."""
    pid = spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid()
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)


def measure(spark: SparkSession, settings: Settings, rows: int) -> dict[str, Any]:
    contract = load_contract(settings.contract)

    def tables() -> list[DataFrame]:
        names = (parity_job.STREAM_TABLE, parity_job.BATCH_TABLE)
        return [parity_job.read_table(spark, settings.lake, name, contract) for name in names]

    def read() -> None:
        for table in tables():
            table.write.format("noop").mode("overwrite").save()

    def check(equal: bool) -> None:
        result = parity_job.run(spark, settings)
        assert result.stream == result.batch == rows, result  # noqa: S101
        assert (result.only_stream, result.only_batch) == ((0, 0) if equal else (1, 1)), result  # noqa: S101

    write_tables(spark, settings, rows)
    seconds = {"read both once": median(read), "equal": median(lambda: check(True))}
    change_one_row(settings)
    seconds["one row differs"] = median(lambda: check(False))
    every = settings.model_copy(update={"lake": f"{settings.lake}/none"})
    Path(every.lake).mkdir()
    Path(every.lake, "processed").symlink_to(Path(settings.lake, "processed"))
    started = time.perf_counter()
    result = parity_job.run(spark, every)
    seconds["every row differs"] = time.perf_counter() - started
    assert (result.only_stream, result.only_batch) == (rows, 0), result  # noqa: S101
    return {
        "rows_a_side": rows,
        "seconds": {name: round(spent, 2) for name, spent in seconds.items()},
        "ratios": {
            f"{name} / read both once": round(seconds[name] / seconds["read both once"], 2)
            for name in ("equal", "one row differs", "every row differs")
        },
        "jvm_peak_mib": peak_mib(spark),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Parity of a million rows a side, against reading both once")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--memory", default="1g", help="the JVM's heap")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(None, [f"lake={folder}/lake", f"spark.conf={{spark.driver.memory: {options.memory}}}"])
        spark = spark_session("parity-benchmark", settings.spark.master, settings.spark.conf, f"{folder}/spark.log")
        result = measure(spark, settings, options.rows) | {"heap": options.memory}
        spark.stop()
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
