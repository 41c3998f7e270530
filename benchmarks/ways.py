"""Compares three ways to write a batch: `python benchmarks/ways.py [--json FILE] [--rows N] [--rounds N]`

one_pass    the job's way: each task reads, parses and writes raw lines, Parquet and quarantine in one pass, and small
            files are merged (docs/adr/0002, 0018)
persist     the records in Spark's cache, then Spark's text writer, Parquet writer, and text writer for rejections
raw_first   Spark's text writer, then parsing the files that it wrote, and Spark's Parquet writer

All three write the same replayed stream in one batch, with the same parser, to a local folder. `persist` and
`raw_first` omit the ledger, the catalog and repeatable file names. The figures of a ratio are from one run. Sends
requests to 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.stream import (  # noqa: E402
    TRAVEL_TIMES,
    cpu_seconds,
    drained,
    embedded_aws,
    in_child,
    job_settings,
    peaks,
    replayed,
)

WAYS = ("one_pass", "persist", "raw_first")


def with_spark_writers(way: str, folder: Path) -> Callable[[Any, int], None]:
    """A `foreachBatch` function that writes a batch of `kinesis` records with Spark's own writers."""
    from jobs.schema.record_parser import RecordParser
    from jobs.schema.table import load_contract

    contract = load_contract("travel_times.yaml")
    types = {name: kind for name, kind, _ in (*contract.table_columns, *contract.partition_columns)}
    parsed_names = [name for name in types if name not in ("shard_id", "sequence_number", "arrival_time", "batch")]
    schema = ", ".join(f"`{name}` {types[name]}" for name in parsed_names) + ", rejected string"

    def parse(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parser = RecordParser(contract)
        for batch in batches:
            found = parser.parse(batch["data"])
            reasons: list[str | None] = [None] * batch.num_rows
            for number, rejection in found.rejections.items():
                reasons[number] = rejection.reason
            columns = [found.columns[name] for name in parsed_names]
            yield pa.record_batch([*columns, pa.array(reasons, pa.string())], [*parsed_names, "rejected"])

    def write(rows: Any, number: int) -> None:
        if way == "persist":
            rows = rows.persist()
        raw = folder / "raw" / str(number)
        rows.selectExpr("cast(data as string)").write.option("compression", "gzip").text(str(raw))
        if way == "raw_first":
            rows = rows.sparkSession.read.text(str(raw)).selectExpr("cast(value as binary) as data")
        parsed = rows.mapInArrow(parse, schema)
        accepted = parsed.where("rejected is null").drop("rejected")
        if way == "persist":  # reads the rejections from the same cache
            parsed.where("rejected is not null").selectExpr("rejected").write.mode("append").text(str(folder / "bad"))
        accepted.write.mode("append").partitionBy(*contract.partition_by).option("compression", "zstd").parquet(
            str(folder / "processed")
        )
        if way == "persist":
            rows.unpersist()

    return write


def drained_by_spark(spark: Any, way: str, folder: Path) -> float:
    """Drains a query whose batches are written with Spark's writers; returns the seconds within batches."""
    from jobs.stream.connector import native_options
    from spark_kinesis import KinesisDataSource

    shutil.rmtree(folder, ignore_errors=True)
    spark.dataSource.register(KinesisDataSource)
    options = native_options(job_settings(str(folder))) | {"endingPosition": "LATEST"}
    write, spent = with_spark_writers(way, folder), [0.0]

    def timed(rows: Any, number: int) -> None:
        started = time.perf_counter()
        write(rows, number)
        spent[0] += time.perf_counter() - started

    rows = spark.readStream.format("kinesis").options(**options).load()
    query = rows.writeStream.foreachBatch(timed).option("checkpointLocation", str(folder / "checkpoint")).start()
    query.processAllAvailable()
    query.stop()
    return spent[0]


def measure(way: str, rows: int, rounds: int) -> dict[str, Any]:
    """The median of `rounds` runs, after a warm-up run."""
    seconds, cpu = [], []
    with replayed(rows) as (spark, folder, server_pid):
        for _ in range(rounds + 1):
            before = cpu_seconds(server_pid)
            if way == "one_pass":
                seconds.append(drained(spark, folder / "lake", TRAVEL_TIMES)[1])
            else:
                seconds.append(drained_by_spark(spark, way, folder / "lake"))
            cpu.append(cpu_seconds(server_pid) - before)
        return {
            "seconds": round(statistics.median(seconds[1:]), 2),
            "cpu_seconds": round(statistics.median(cpu[1:]), 2),
            "peak_mb": peaks(server_pid),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(*json.loads(options.child))))
        return
    result: dict[str, Any] = {"rows": options.rows}
    with embedded_aws():
        for way in WAYS:
            result[way] = in_child(__file__, [way, options.rows, options.rounds])
    result["ratios"] = {
        f"{way}_over_one_pass": round(result[way]["seconds"] / result["one_pass"]["seconds"], 2) for way in WAYS[1:]
    }
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
