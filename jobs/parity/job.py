"""The parity check. processed (the stream's) against processed_batch (the batch path's), row for row.

`movement parity` runs the same code. Compared is what came from the record, not where the row came from; the same
record twice is two rows. With `since` and `until` it compares what arrived in between, and can run every hour on
live data (docs/batch-path.md says which hours both sides have completed).
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

from jobs.common.errors import ConfigurationError, MovementError, TerminalError
from jobs.common.spark_session import spark_session
from jobs.common.times import time_option
from jobs.lake.delta import is_delta
from jobs.lake.partition_locations import RELOCATED, LayoutFile
from jobs.lake.store import Lake, lake_at
from jobs.lake.table_files import live_files
from jobs.parity.comparison import ARRIVAL, Comparison, Window, compare
from jobs.schema.partitions import partition_path
from jobs.schema.table import ColumnType, TableContract, load_contract
from jobs.settings.job_main import job_parser, run_job
from jobs.settings.settings import Settings

log = logging.getLogger(__name__)

STREAM_TABLE, BATCH_TABLE = "processed", "processed_batch"
# Firehose holds a record back for 15 minutes at most; an hour leaves room.
DELIVERY_SECONDS = 3600

_TYPES: dict[ColumnType, T.DataType] = {
    "string": T.StringType(),
    "int": T.IntegerType(),
    "long": T.LongType(),
    "double": T.DoubleType(),
    "boolean": T.BooleanType(),
    "date": T.DateType(),
    "timestamp": T.TimestampType(),
}


@dataclass
class ParityResult:
    """What the check found. `partitions`: partition, stream, batch (rows), only_stream, only_batch, of each.

    `samples`: side, count, row (the contract's columns): some of the rows that one side has more often.
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
    """Compares the two tables, whole or what arrived in [since, until); a time without a zone is UTC.

    A folder that does not exist is an empty table. `samples`: rows shown of each side, at most; `delivery_seconds`:
    how long a record may wait for its file. Raises ConfigurationError for a window that is none.
    """
    begun = time.perf_counter()
    contract = load_contract(settings.contract)
    window = _window(since, until, delivery_seconds)
    stream, batch = (read_table(spark, settings.lake, table, contract) for table in (STREAM_TABLE, BATCH_TABLE))
    columns = [name for name, _, _ in contract.data_columns]
    try:
        found = compare(stream, batch, columns, contract.partition_by, window, samples)
    except Exception as error:
        if isinstance(error, MovementError):
            raise
        first = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise TerminalError(f"the parity check of {settings.lake} failed: {first}") from error
    return _result(found, contract, window, round(time.perf_counter() - begun, 3))


def keep(settings: Settings, result: ParityResult) -> None:
    """Puts the result, without its rows and partitions, into the lake, over the one before: the page shows it."""
    kept = {key: value for key, value in asdict(result).items() if key not in ("partitions", "samples")}
    kept["checked_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    lake_at(settings.lake).put(LATEST, io.BytesIO(json.dumps(kept).encode()))


def read_table(spark: SparkSession, lake: str, table: str, contract: TableContract) -> DataFrame:
    """The contract's columns and ARRIVAL of a table of the lake, typed by the contract, not by Spark's guesses."""
    wanted = [name for name, _, _ in contract.data_columns]
    schema = T.StructType([T.StructField(name, _TYPES[kind]) for name, kind, _ in contract.data_columns])
    schema.add(ARRIVAL, T.TimestampType())
    if is_delta(lake_at(lake), table):
        return _delta_rows(spark, f"{lake}/{table}", schema)
    places = _places(lake_at(lake), table)
    if not places:
        return spark.createDataFrame([], schema)
    try:
        found = [
            spark.read.schema(schema)
            .option("basePath", f"{lake}/{root}")
            .parquet(*[f"{lake}/{path}" for path in paths])
            for root, paths in places.items()
        ]
        rows = reduce(DataFrame.unionByName, found)
    except AnalysisException as error:
        raise TerminalError(f"{lake}/{table} is not readable as the contract's table: {error}") from error
    return rows.select(*wanted, ARRIVAL)


def _delta_rows(spark: SparkSession, uri: str, schema: T.StructType) -> DataFrame:
    """The columns of `schema` from a Delta table, null where it has none of that name yet."""
    try:
        rows = spark.read.format("delta").load(uri)
    except AnalysisException as error:
        raise TerminalError(f"{uri} is not readable as a Delta table: {error}") from error
    there = set(rows.columns)
    return rows.select(
        *[
            (F.col(each.name) if each.name in there else F.lit(None)).cast(each.dataType).alias(each.name)
            for each in schema
        ]
    )


def _places(lake: Lake, table: str) -> dict[str, list[str]]:
    """Root folder → the folders below it to read: the table's own, but for partitions that lie elsewhere."""
    if not LayoutFile(lake, table).read().relocated:
        return {} if next(lake.list(f"{table}/"), None) is None else {table: [table]}
    found: dict[str, set[str]] = {}
    for file in live_files(lake, table):
        root = table if file.path.startswith(f"{table}/") else f"{RELOCATED}/{table}"
        found.setdefault(root, set()).add(file.path.rpartition("/")[0])
    return {root: sorted(folders) for root, folders in found.items()}


def _window(since: datetime | None, until: datetime | None, delivery_seconds: float) -> Window | None:
    if since is None and until is None:
        return None
    bounds = [moment and (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) for moment in (since, until)]
    if bounds[0] and bounds[1] and bounds[0] >= bounds[1]:
        raise ConfigurationError(f"since {since} is not before until {until}")
    return Window(bounds[0], bounds[1], timedelta(seconds=delivery_seconds))


def _result(found: Comparison, contract: TableContract, window: Window | None, seconds: float) -> ParityResult:
    names = contract.partition_by
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
    """For spark-submit and Glue; the exit code: 0 where both are equal."""
    parser = job_parser(__doc__)
    parser.add_argument("--since", metavar="TIME", help="what arrived then or later (ISO 8601)")
    parser.add_argument("--until", metavar="TIME", help="what arrived before")
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
    keep(settings, result)
    return result


# Where the last parity check's result stands in the lake, for the page to show.

LATEST = "_parity/latest.json"
