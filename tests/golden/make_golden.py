"""Makes a golden lake: what a release leaves in Kinesis, S3 and Glue, for `tests/system/test_golden_lake.py`.

Run once for a release, with that release's code, and commit what it writes. The folder `f249adf` beside this script is
of commit f249adf, the last one before the new layout of the repository:

    git worktree add ../before f249adf && cd ../before && make setup
    .venv/bin/python /path/to/tests/golden/make_golden.py /path/to/tests/golden/f249adf

It uses the release only through its command line, `jobs.stream_job` and MOVEMENT_FAULT, and takes about five minutes.
It starts an embedded AWS of its own, and stops it. The stream `golden` has two shards; one of them is split. Two lakes
read it:

lake        Plain Parquet. Streaming runs, the batch path, parity and gold, `replay --quarantine` for one reason, and a
            compaction that moved one partition. Killed are `replay --quarantine` for another reason before it notes
            what it has sent, `replay --raw` after its plan, a compaction that has filled a partition's next location,
            and the streaming job before its ledger entry (its last batch is planned in the checkpoint, has files in
            the tables, and is in no ledger).
delta-lake  `sink.format: delta`. Streaming runs and a compaction. The last streaming run is killed between the ledger
            entry and the commit to the Delta log.

Some records then go onto the stream that no job reads. Written are

stream.json   the stream's shards with their records, and when the stream was created
catalog.json  the databases of the Glue Data Catalog, with tables and partitions
objects.zip   every object of the bucket, the checkpoints among them
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3

NAME = "golden"
DATABASES = ("golden", "golden_delta")
# ZIP keeps no earlier time; a fixed one gives the same file for the same objects.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
# Keys of a Glue answer that the catalog sets itself.
SET_BY_GLUE = {
    "CatalogId", "CreateTime", "CreatedBy", "CreationTime", "DatabaseName", "IsRegisteredWithLakeFormation",
    "LastAccessTime", "TableName", "UpdateTime", "VersionId",
}  # fmt: skip


class Release:
    """The release in the current folder, run through its command line."""

    def __init__(self, work: Path) -> None:
        self._work = work
        # The settings have the names that they have in the release.
        state = {"state": str(work / "state"), "port": _free_port()}
        shared = {
            "stream": {"name": NAME, "shards": 2},
            "producer": {"check": False},
            "source": {"max_records_per_batch": 16},
            "compact": {"min_files": 2},
            "spark": {"master": "local[2]", "conf": {"spark.sql.shuffle.partitions": 2}},
            "local": state,
        }
        self.plain = self._config("plain", shared | {"lake": f"s3://{NAME}/lake", "database": DATABASES[0]})
        delta = {"lake": f"s3://{NAME}/delta-lake", "database": DATABASES[1], "sink": {"format": "delta"}}
        self.delta = self._config("delta", shared | delta)
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MOVEMENT_"))
        }
        self.environment |= {"PYTHONPATH": os.getcwd(), "PYSPARK_PYTHON": sys.executable}

    def _config(self, name: str, settings: dict[str, Any]) -> str:
        file = self._work / f"{name}.yaml"
        file.write_text(json.dumps(settings), encoding="utf-8")
        return str(file)

    def movement(self, *arguments: str) -> str:
        """Runs a command; its output. Raises where it fails."""
        print("movement", *arguments, flush=True)  # noqa: T201
        command = [sys.executable, "-m", "movement", *arguments]
        return subprocess.run(command, env=self.environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    def killed(self, fault: str, *arguments: str) -> None:
        """Runs a Python module until the fault point kills it, and ends all that it has started."""
        print("killed at", fault, *arguments, flush=True)  # noqa: T201
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=self.environment | {"MOVEMENT_FAULT": fault},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
        )
        code = process.wait(300)
        with suppress(ProcessLookupError):  # all of them had ended
            os.killpg(process.pid, signal.SIGKILL)
        if code != -signal.SIGKILL:
            raise RuntimeError(f"{arguments} ended with {code}, and not at {fault}")

    def produce(self, rows: int, seed: int) -> None:
        """Puts `rows` rows of three cities on the stream, one in eight of them bad."""
        folder = self._work / f"exports-{seed}"
        self.movement(
            "sample", "--rows", str(rows), "--out", str(folder), "--cities", "3", "--seed", str(seed),
            "--bad-rate", "0.125",
        )  # fmt: skip
        self.movement("produce", str(folder), "--no-check", "--config", self.plain)

    def stream(self, *configs: str) -> None:
        for config in configs:
            self.movement("stream", "--until-drained", "--config", config)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        release = Release(Path(folder))
        try:
            release.movement("local", "up", "--config", release.plain)
            for line in release.movement("local", "env", "--config", release.plain).splitlines():
                name, _, value = line.removeprefix("export ").partition("=")
                release.environment[name] = os.environ[name] = value.strip("'")
            release.movement("local", "up", "--config", release.delta)
            build(release)
            dump(out)
        finally:
            release.movement("local", "down", "--config", release.plain)


def build(release: Release) -> None:
    kinesis = boto3.client("kinesis")
    plain, delta = release.plain, release.delta
    release.produce(24, 1)
    for data in (b"\xff no text", b'{"City": "Paris"', b"two\nlines"):
        kinesis.put_record(StreamName=NAME, PartitionKey="no record", Data=data)
    release.stream(plain, delta)
    first_run = datetime.now(UTC)

    release.produce(9, 2)
    shard = kinesis.list_shards(StreamName=NAME)["Shards"][0]
    low, high = (int(shard["HashKeyRange"][f"{end}HashKey"]) for end in ("Starting", "Ending"))
    kinesis.split_shard(StreamName=NAME, ShardToSplit=shard["ShardId"], NewStartingHashKey=str((low + high) // 2))
    release.produce(9, 3)
    release.stream(plain)
    release.movement("batch", "--config", plain)
    release.movement("parity", "--config", plain)
    release.movement("gold", "--config", plain)

    replay = ["replay", "--quarantine", "--config", plain, "--reason"]
    release.movement(*replay, "not_json")
    release.killed("replay.sent", "movement", *replay, "wrong_type")
    release.stream(plain, delta)
    release.movement("compact", "--partition", "city=Paris/start_date=2016-07-31", "--config", plain)
    release.movement("compact", "--config", delta)
    window = ["--from", (first_run - timedelta(days=1)).isoformat(), "--to", first_run.isoformat()]
    release.killed("rebuild.planned", "movement", "replay", "--raw", *window, "--config", plain)
    release.killed(
        "move.filled", "movement", "compact", "--partition", "city=Boston/start_date=2016-07-31", "--config", plain
    )

    release.produce(12, 4)
    release.killed("catalog.registered", "jobs.stream_job", "--until-drained", "--config", plain)
    release.killed("delta.committing", "jobs.stream_job", "--until-drained", "--config", delta)
    release.produce(9, 5)


def dump(out: Path) -> None:
    _write(out / "stream.json", _stream())
    _write(out / "catalog.json", {name: _database(name) for name in DATABASES})
    s3 = boto3.client("s3")
    with zipfile.ZipFile(out / "objects.zip", "w") as archive:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=NAME):
            for key in (found["Key"] for found in page.get("Contents", [])):
                entry = zipfile.ZipInfo(key, ZIP_TIME)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, s3.get_object(Bucket=NAME, Key=key)["Body"].read(), compresslevel=9)


def _stream() -> dict[str, Any]:
    kinesis = boto3.client("kinesis")
    summary = kinesis.describe_stream_summary(StreamName=NAME)["StreamDescriptionSummary"]
    return {
        "name": NAME,
        "created_at": summary["StreamCreationTimestamp"],
        "shards": [_shard(kinesis, found) for found in kinesis.list_shards(StreamName=NAME)["Shards"]],
    }


def _shard(kinesis: Any, found: dict[str, Any]) -> dict[str, Any]:
    iterator = kinesis.get_shard_iterator(StreamName=NAME, ShardId=found["ShardId"], ShardIteratorType="TRIM_HORIZON")[
        "ShardIterator"
    ]
    return {
        "shard_id": found["ShardId"],
        "parent": found.get("ParentShardId"),
        "starting_hash": found["HashKeyRange"]["StartingHashKey"],
        "ending_hash": found["HashKeyRange"]["EndingHashKey"],
        "closed": "EndingSequenceNumber" in found["SequenceNumberRange"],
        "records": [
            {
                "sequence_number": record["SequenceNumber"],
                "partition_key": record["PartitionKey"],
                "arrived_at": record["ApproximateArrivalTimestamp"],
                "data": base64.b64encode(record["Data"]).decode(),
            }
            for record in kinesis.get_records(ShardIterator=iterator)["Records"]
        ],
    }


def _database(name: str) -> list[dict[str, Any]]:
    glue = boto3.client("glue")
    tables = glue.get_paginator("get_tables").paginate(DatabaseName=name)
    return [
        {"table": _input(table), "partitions": _partitions(glue, name, table["Name"])}
        for page in tables
        for table in page["TableList"]
    ]


def _partitions(glue: Any, database: str, table: str) -> list[dict[str, Any]]:
    pages = glue.get_paginator("get_partitions").paginate(DatabaseName=database, TableName=table)
    return [_input(partition) for page in pages for partition in page["Partitions"]]


def _input(found: dict[str, Any]) -> dict[str, Any]:
    """A Glue answer as the input that makes the same thing again."""
    return {key: value for key, value in found.items() if key not in SET_BY_GLUE}


def _write(file: Path, content: Any) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, default=lambda moment: moment.astimezone(UTC).isoformat())
    file.write_text(text + "\n", encoding="utf-8")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
