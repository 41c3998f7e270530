"""The parity check: compares processed (the stream's) with processed_batch (the batch path's), row for row.

`movement parity` runs the same code. Only the columns that come from the record are compared, not its origin; the same
record twice is two rows. With `since` and `until` the check compares the rows that arrived in that time, so it can run
every hour on live data (docs/batch-path.md says which hours are complete on both sides).
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.common.errors import ConfigurationError, TerminalError
from jobs.common.spark_errors import explained_failure
from jobs.common.spark_session import spark_session
from jobs.common.times import time_option
from jobs.lake.delta import is_delta
from jobs.lake.partition_locations import RELOCATED, LayoutFile
from jobs.lake.store import Lake, lake_at
from jobs.lake.table_files import live_files
from jobs.parity.comparison import ARRIVAL, Comparison, Window, compare
from jobs.parity.kept_out import kept_out_files, kept_out_rows
from jobs.schema.columns import ColumnType
from jobs.schema.partitions import partition_path
from jobs.schema.table import TableContract, load_contract
from jobs.schema.types import data_type
from jobs.settings.job_main import job_parser, run_job
from jobs.settings.settings import Settings

log = logging.getLogger(__name__)

STREAM_TABLE, BATCH_TABLE = "processed", "processed_batch"
# The last check's result, which the HTML page shows.
RESULT_PATH = "_parity/latest.json"
# Firehose buffers a record for at most 15 minutes; an hour is a safe maximum.
DELIVERY_SECONDS = 3600


@dataclass
class ParityResult:
    """The result of a check.

    stream, batch            each side's rows; the stream's include records that the limit of new partitions kept out
    only_stream, only_batch  how many rows a side has that the other lacks (twice here and once there: 1)
    partitions               the same counts for each partition
    samples                  some rows that one side lacks: side, count, row (the contract's columns)
    """

    equal: bool
    stream: int
    batch: int
    only_stream: int
    only_batch: int
    partitions: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    since: str | None = None
    until: str | None = None
    seconds: float = 0.0


def run(
    spark: SparkSession,
    settings: Settings,
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    samples: int = 5,
    delivery_seconds: float = DELIVERY_SECONDS,
) -> ParityResult:
    """Compares the two tables, or the rows of them that arrived in [since, until). A time without a zone is in UTC.

    A table whose folder does not exist is empty. `samples`: the most rows shown of each side. `delivery_seconds`: the
    longest time that Firehose buffers a record. Raises ConfigurationError if `since` is not before `until`.
    """
    started = time.perf_counter()
    contract = load_contract(settings.contract)
    window = _window(since, until, delivery_seconds)
    stream, batch = (read_table(spark, settings.lake, table, contract) for table in (STREAM_TABLE, BATCH_TABLE))
    columns = [name for name, _, _ in contract.data_columns]
    first_day = (window.since - window.delivery).date() if window and window.since else None
    files = kept_out_files(settings.lake, first_day)
    if files:
        stream = stream.unionByName(kept_out_rows(spark, settings.lake, contract, files, stream))
    maps = [name for name, kind, _ in contract.data_columns if "map<" in kind]
    if maps:
        # Spark neither hashes nor compares maps. A record's entries are in the same order on both sides.
        stream, batch = (rows.withColumns({name: F.to_json(name) for name in maps}) for rows in (stream, batch))
    try:
        found = compare(stream, batch, columns, compared_partitions(contract), window, samples)
    except Exception as error:
        raise explained_failure(error, f"the parity check of {settings.lake}") from error
    return _result(found, contract, window, round(time.perf_counter() - started, 3))


def store_result(settings: Settings, result: ParityResult) -> None:
    """Stores the result in the lake for the HTML page, without partitions and samples; replaces the last result."""
    stored = {key: value for key, value in asdict(result).items() if key not in ("partitions", "samples")}
    stored["checked_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    lake_at(settings.lake).put(RESULT_PATH, io.BytesIO(json.dumps(stored).encode()))


def read_table(spark: SparkSession, lake: str, table: str, contract: TableContract) -> DataFrame:
    """The contract's columns and ARRIVAL of a table of the lake, with the contract's types."""
    wanted = [name for name, _, _ in contract.data_columns]
    schema = T.StructType([T.StructField(name, spark_type(kind)) for name, kind, _ in contract.data_columns])
    schema.add(ARRIVAL, T.TimestampType())
    if is_delta(lake_at(lake), table):
        return _delta_rows(spark, f"{lake}/{table}", schema)
    folders = _folders_by_root(lake_at(lake), table)
    if not folders:
        return spark.createDataFrame([], schema)
    try:
        parts = [
            spark.read.schema(schema)
            .option("basePath", f"{lake}/{root}")
            .parquet(*[f"{lake}/{path}" for path in paths])
            for root, paths in folders.items()
        ]
        rows = reduce(DataFrame.unionByName, parts)
    except AnalysisException as error:
        raise TerminalError(f"{lake}/{table} is not readable as the contract's table: {error}") from error
    return rows.select(*wanted, ARRIVAL)


def compared_partitions(contract: TableContract) -> list[str]:
    """The partition columns that both tables have alike; not those from the metadata, as an arrival date."""
    compared = {name for name, _, _ in contract.data_columns}
    return [name for name in contract.partition_by if name in compared]


def spark_type(kind: ColumnType) -> T.DataType:
    """A column's type in Spark."""
    field = {"name": "column", "type": data_type(kind).spark_json(), "nullable": True, "metadata": {}}
    return T.StructType.fromJson({"type": "struct", "fields": [field]}).fields[0].dataType


def _delta_rows(spark: SparkSession, uri: str, schema: T.StructType) -> DataFrame:
    """The columns of `schema` from a Delta table; null if the table does not have the column yet."""
    try:
        rows = spark.read.format("delta").load(uri)
    except AnalysisException as error:
        raise TerminalError(f"{uri} is not readable as a Delta table: {error}") from error
    existing = set(rows.columns)
    return rows.select(
        *[
            (F.col(each.name) if each.name in existing else F.lit(None)).cast(each.dataType).alias(each.name)
            for each in schema
        ]
    )


def _folders_by_root(lake: Lake, table: str) -> dict[str, list[str]]:
    """The folders to read, by the root that Spark derives their partitions from: the table's, or of relocated ones."""
    if not LayoutFile(lake, table).read().relocated:
        return {} if next(lake.list(f"{table}/"), None) is None else {table: [table]}
    folders: dict[str, set[str]] = {}
    for file in live_files(lake, table):
        root = table if file.path.startswith(f"{table}/") else f"{RELOCATED}/{table}"
        folders.setdefault(root, set()).add(file.path.rpartition("/")[0])
    return {root: sorted(below) for root, below in folders.items()}


def _window(since: datetime | None, until: datetime | None, delivery_seconds: float) -> Window | None:
    if since is None and until is None:
        return None
    bounds = [bound and (bound if bound.tzinfo else bound.replace(tzinfo=UTC)) for bound in (since, until)]
    if bounds[0] and bounds[1] and bounds[0] >= bounds[1]:
        raise ConfigurationError(f"since {since} is not before until {until}")
    return Window(bounds[0], bounds[1], timedelta(seconds=delivery_seconds))


def _result(found: Comparison, contract: TableContract, window: Window | None, seconds: float) -> ParityResult:
    names = compared_partitions(contract)
    return ParityResult(
        equal=not found.only_stream and not found.only_batch,
        stream=sum(part.stream for part in found.partitions),
        batch=sum(part.batch for part in found.partitions),
        only_stream=found.only_stream,
        only_batch=found.only_batch,
        partitions=[
            asdict(part) | {"partition": partition_path(names, dict(zip(names, part.partition, strict=True)))}
            for part in found.partitions
        ],
        samples=[asdict(difference) for difference in found.samples],
        since=window.since.isoformat() if window and window.since else None,
        until=window.until.isoformat() if window and window.until else None,
        seconds=seconds,
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the check for spark-submit and Glue; returns the exit code, which is 0 if both tables are equal."""
    parser = job_parser(__doc__)
    parser.add_argument("--since", metavar="TIME", help="compare rows that arrived at this time or later (ISO 8601)")
    parser.add_argument("--until", metavar="TIME", help="compare rows that arrived before this time")
    return run_job(parser, _work, arguments)


def _work(settings: Settings, options: argparse.Namespace) -> ParityResult:
    bounds = [
        time_option(text, option) if text else None
        for option, text in (("--since", options.since), ("--until", options.until))
    ]
    spark = spark_session(
        "movement-parity", settings.spark.master, settings.spark.conf, delta=settings.sink.format == "delta"
    )
    result = run(spark, settings, *bounds)
    store_result(settings, result)
    return result
