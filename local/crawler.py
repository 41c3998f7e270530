"""A local Glue crawler: reads sample files under `delivery/` and writes the Glue table's columns and partitions.

moto's StartCrawler only changes the crawler's state. `Crawler.run_pending` does the crawl that was started, for example
by `lambdas.crawler_trigger`; the states are RUNNING, STOPPING, then READY with LastCrawl. The `Glue Crawler State
Change` events go to EventBridge, where a rule starts the job (`local.events`).
Sources: https://docs.aws.amazon.com/glue/latest/dg/crawler-s3-folder-table-partition.html, …/add-crawler.html
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from jobs.common import aws
from jobs.schema.partitions import parse_partition_path
from local.events import put_glue_event
from local.glue_states import set_state
from local.json_schema import columns_of, merge_names, objects_in
from local.resources import lake_location

# The most partitions in one BatchCreatePartition.
PARTITIONS_A_CALL = 100
# A crawler reads the first bytes of at most this many files.
FILES_SAMPLED = 20
BYTES_SAMPLED = 1_000_000

_SERDE = "org.openx.data.jsonserde.JsonSerDe"
_INPUT = "org.apache.hadoop.mapred.TextInputFormat"
_OUTPUT = "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat"

Phase = Callable[[str], None]


@dataclass(frozen=True)
class CrawlResult:
    """What one crawl did. `files`: the files that it listed; `error`: why it failed, else None."""

    crawler: str
    table: str
    files: int = 0
    tables_created: int = 0
    tables_updated: int = 0
    partitions_created: int = 0
    error: str | None = None


class Crawler:
    """Does the crawls of the crawler `name`, whose first S3 target is a folder of JSON files.

    `on_phase` is called with `listed`, `catalogued` and `stopping` during a crawl.
    """

    def __init__(self, name: str, on_phase: Phase = lambda _phase: None):
        self.name = name
        self._on_phase = on_phase
        self._glue = aws.client("glue")
        self._s3 = aws.client("s3")
        self._events = aws.client("events")

    def run_pending(self) -> CrawlResult | None:
        """Does the crawl that was started; None if none was. A failed crawl is returned, not raised."""
        described = self._glue.get_crawler(Name=self.name)["Crawler"]
        if described["State"] == "STOPPING":  # by StopCrawler, before the crawl started
            set_state(self._glue, "crawl", crawler=self.name, state="STOPPED")
        if described["State"] != "RUNNING":
            return None
        started = datetime.now(UTC)
        self._announce("Started", startTime=_stamp(started))
        try:
            done = self.crawl(described)
        except (BotoCoreError, ClientError, KeyError, ValueError) as error:
            done = CrawlResult(self.name, "", error=f"{type(error).__name__}: {error}")
        self._on_phase("stopping")
        set_state(self._glue, "crawl", crawler=self.name, state="STOPPING")
        set_state(
            self._glue,
            "crawl",
            crawler=self.name,
            state="FAILED" if done.error else "COMPLETED",
            error=done.error,
        )
        self._announce_end(done, started)
        return done

    def crawl(self, described: Mapping[str, Any]) -> CrawlResult:
        """Does one crawl; `described` is the crawler as GetCrawler describes it."""
        target = described["Targets"]["S3Targets"][0]["Path"].rstrip("/")
        bucket, prefix = lake_location(target)
        if bucket is None:
            raise ValueError(f"crawler target {target}: not of the form s3://bucket/prefix")
        database = described["DatabaseName"]
        table = described.get("TablePrefix", "") + target.rsplit("/", 1)[-1].lower()
        files = self._files(bucket, prefix)
        self._on_phase("listed")
        if not files:
            return CrawlResult(self.name, table)
        folders = sorted({key.removeprefix(prefix).rpartition("/")[0] for key in files} - {""})
        wanted = self._table_input(table, target, bucket, files, folders)
        created, updated = self._keep_table(database, wanted)
        partitions = self._add_partitions(database, wanted, target, folders)
        self._on_phase("catalogued")
        return CrawlResult(self.name, table, len(files), int(created), int(updated), partitions)

    def _files(self, bucket: str, prefix: str) -> list[str]:
        """Keys of the data files under the prefix; names that begin with `_` or `.` and folder markers are no data."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = (entry["Key"] for page in pages for entry in page.get("Contents", ()) if entry["Size"])
        return [key for key in keys if not any(part[:1] in "_." for part in key.removeprefix(prefix).split("/"))]

    def _table_input(
        self, table: str, target: str, bucket: str, files: list[str], folders: list[str]
    ) -> dict[str, Any]:
        # New fields are in the newest files, so half of the sample is from each end.
        sample = dict.fromkeys([*files[: FILES_SAMPLED // 2], *files[-FILES_SAMPLED // 2 :]])
        columns = columns_of(found for key in sample for found in self._objects(bucket, key))
        zipped = all(key.endswith(".gz") for key in files)
        kind = {"classification": "json", "compressionType": "gzip" if zipped else "none", "typeOfData": "file"}
        return {
            "Name": table,
            "TableType": "EXTERNAL_TABLE",
            "Parameters": {**kind, "UPDATED_BY_CRAWLER": self.name},
            "PartitionKeys": [{"Name": name, "Type": "string"} for name in _partition_keys(folders)],
            "StorageDescriptor": {
                "Columns": [{"Name": name, "Type": hive_type} for name, hive_type in columns],
                "Location": f"{target}/",
                "InputFormat": _INPUT,
                "OutputFormat": _OUTPUT,
                "Compressed": zipped,
                "SerdeInfo": {
                    "SerializationLibrary": _SERDE,
                    "Parameters": {"paths": ",".join(sorted(name for name, _ in columns))},
                },
                "Parameters": kind,
            },
        }

    def _objects(self, bucket: str, key: str) -> Iterator[Any]:
        body = self._s3.get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{BYTES_SAMPLED - 1}")["Body"].read()
        if key.endswith(".gz"):
            try:
                body = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(body, BYTES_SAMPLED * 4)
            except zlib.error:
                return iter(())  # no schema in it; the job quarantines its bytes
        return objects_in(body.decode("utf-8", errors="replace"))

    def _keep_table(self, database: str, wanted: Any) -> tuple[bool, bool]:
        """Creates the table, or adds new columns and widens types; returns (created, updated)."""
        try:
            there = self._glue.get_table(DatabaseName=database, Name=wanted["Name"])["Table"]
        except ClientError as error:
            if aws.error_code(error) != "EntityNotFoundException":
                raise
            self._glue.create_table(DatabaseName=database, TableInput=wanted)
            return True, False
        if [key["Name"] for key in there.get("PartitionKeys", [])] != [key["Name"] for key in wanted["PartitionKeys"]]:
            raise ValueError(f"table {database}.{wanted['Name']} has other partition columns than its folders")
        known = {column["Name"]: column["Type"] for column in there["StorageDescriptor"]["Columns"]}
        found = {column["Name"]: column["Type"] for column in wanted["StorageDescriptor"]["Columns"]}
        # Columns that no sampled file has stay, because older files have them.
        merged = known | {name: merge_names(known.get(name), kind) for name, kind in found.items()}
        wanted["StorageDescriptor"]["Columns"] = [{"Name": name, "Type": kind} for name, kind in merged.items()]
        if merged == known:
            return False, False
        self._glue.update_table(DatabaseName=database, TableInput=wanted)
        return False, True

    def _add_partitions(self, database: str, table: dict[str, Any], target: str, folders: list[str]) -> int:
        if not table["PartitionKeys"]:
            return 0
        pages = self._glue.get_paginator("get_partitions").paginate(DatabaseName=database, TableName=table["Name"])
        known = {tuple(found["Values"]) for page in pages for found in page["Partitions"]}
        new = ((values, folder) for folder in folders if (values := _partition_values(folder)) not in known)
        inputs: list[Any] = [
            {
                "Values": list(values),
                "StorageDescriptor": table["StorageDescriptor"] | {"Location": f"{target}/{folder}/"},
                "Parameters": table["StorageDescriptor"]["Parameters"],
            }
            for values, folder in new
        ]
        remaining = iter(inputs)
        while batch := list(islice(remaining, PARTITIONS_A_CALL)):
            answer = self._glue.batch_create_partition(
                DatabaseName=database, TableName=table["Name"], PartitionInputList=batch
            )
            refused = [
                error["ErrorDetail"]
                for error in answer.get("Errors", [])
                if error["ErrorDetail"]["ErrorCode"] != "AlreadyExistsException"
            ]
            if refused:
                raise ValueError(f"{len(refused)} partitions of {table['Name']} were refused, the first: {refused[0]}")
        return len(inputs)

    def _announce_end(self, done: CrawlResult, started: datetime) -> None:
        ended = datetime.now(UTC)
        if done.error:
            self._announce("Failed", errorMessage=done.error, cloudWatchLogLink="")
            return
        self._announce(
            "Succeeded",
            tablesCreated=str(done.tables_created),
            tablesUpdated=str(done.tables_updated),
            tablesDeleted="0",
            partitionsCreated=str(done.partitions_created),
            partitionsUpdated="0",
            partitionsDeleted="0",
            warningMessage="N/A",
            completionDate=_stamp(ended),
            cloudWatchLogLink="",
            **{"runningTime (sec)": str(round((ended - started).total_seconds()))},
        )

    def _announce(self, state: str, **detail: str) -> None:
        put_glue_event(
            self._events,
            "Glue Crawler State Change",
            {"crawlerName": self.name, "state": state, "message": f"Crawler {state}", **detail},
        )


def _partition_keys(folders: list[str]) -> list[str]:
    """Names of the partition columns: from `name=value` folders, else `partition_0`, … as Glue names them."""
    if not folders:
        return []
    parts = folders[0].split("/")
    return [part.partition("=")[0] if "=" in part else f"partition_{level}" for level, part in enumerate(parts)]


def _partition_values(folder: str) -> tuple[str, ...]:
    parts = folder.split("/")
    return tuple(str(next(iter(parse_partition_path(part).values()))) if "=" in part else part for part in parts)


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
