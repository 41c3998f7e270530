"""Rows of the records that the stream kept out because of `sink.max_new_partitions_per_batch` (docs/adr/0027).

The batch path has no micro-batches and no such limit: it writes these records. Parity therefore counts them on the
stream's side. In: quarantine files. Out: the rows that their records would be, with the current contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import islice

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from jobs.lake.quarantine_files import committed_files, read_lines
from jobs.lake.store import lake_at
from jobs.schema.privacy import Salt, privacy_salt
from jobs.schema.record_parser import RecordParser
from jobs.schema.redaction import readable
from jobs.schema.rejections import TOO_MANY_PARTITIONS
from jobs.schema.table import TableContract

_RECORDS_AT_ONCE = 10_000
_ARRIVAL = pa.timestamp("us", tz="UTC")


def kept_out_files(lake: str, since: date | None = None) -> list[str]:
    """The quarantine files with such records of the streaming job; with `since`, of that day and later."""
    found = committed_files(lake_at(lake), since, TOO_MANY_PARTITIONS)
    return [file.path for file in found.files if not file.batch_path]


def kept_out_rows(
    spark: SparkSession, lake: str, contract: TableContract, files: list[str], like: DataFrame
) -> DataFrame:
    """The rows of the records in `files`, with the columns of `like`: the contract's and the arrival time."""
    paths = spark.createDataFrame([(path,) for path in files], "path string")
    return paths.mapInArrow(
        ReadKeptOut(lake, contract, tuple(like.columns), privacy_salt(contract.columns)), like.schema
    )


@dataclass(frozen=True)
class ReadKeptOut:
    """A Spark task: paths of quarantine files in, rows out."""

    lake: str
    contract: TableContract
    columns: tuple[str, ...]
    salt: Salt | None = field(default=None, repr=False)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parser, lake = RecordParser(readable(self.contract), self.salt), lake_at(self.lake)
        for batch in batches:
            for path in batch["path"].to_pylist():
                lines = (line for line in read_lines(lake, path) if line.reason == TOO_MANY_PARTITIONS)
                while some := list(islice(lines, _RECORDS_AT_ONCE)):
                    parsed = parser.parse(pa.array([line.data for line in some], pa.binary()))
                    arrivals = pa.array([line.arrival_time for line in some], _ARRIVAL)
                    rows = parsed.columns.append_column("arrival_time", arrivals).select(list(self.columns))
                    # With a contract that has changed since, the batch path rejects the record too.
                    good = [index for index in range(len(some)) if index not in parsed.rejections]
                    yield rows.take(pa.array(good, pa.int64()))
