"""Puts a golden lake back: its stream into a Kinesis of this process, its objects and catalog into the embedded AWS.

`make_golden.py` writes the golden lakes. Stream, objects and catalog get the names and the contents that they had, the
stream's creation time and every arrival time among them: the checkpoint and the delivery stream's position refer to
these. Two things differ from the release's AWS, so that a golden lake stays readable for years and on any machine:

- The restored stream keeps records for a hundred years. AWS allows 8760 hours; with that, the source would rightly
  report the records that no job has read as lost, a year after the golden lake was made.
- A lease of a job that was killed names the machine that the job ran on. It gets the name of this machine. So the next
  job sees at once that the process is gone, instead of watching another machine's lease for a minute.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import boto3
from moto.core import DEFAULT_ACCOUNT_ID
from moto.kinesis.models import Record, Shard, Stream, kinesis_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from jobs.common.process_identity import machine
from local import moto_kinesis
from local.emulator import SerialApplication
from local.server import HOST, REGION
from tests.golden.dump import Dump

RETENTION_HOURS = 100 * 366 * 24


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: the tests' output is for the tests."""


def restore_objects(dump: Dump, lake: str) -> None:
    """Puts a lake into the bucket; what the bucket holds of it now is deleted first."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=dump.name)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=dump.name, Prefix=f"{lake}/"):
        for found in page.get("Contents", []):
            s3.delete_object(Bucket=dump.name, Key=found["Key"])
    for path, content in dump.objects(lake).items():
        body = _on_this_machine(content) if path.startswith("_claims/") else content
        s3.put_object(Bucket=dump.name, Key=f"{lake}/{path}", Body=body)


def restore_catalog(dump: Dump, database: str) -> None:
    """Makes a database with its tables and partitions; one of this name is deleted first."""
    glue = boto3.client("glue")
    if database in {found["Name"] for found in glue.get_databases()["DatabaseList"]}:
        glue.delete_database(Name=database)
    glue.create_database(DatabaseInput={"Name": database})
    for found in dump.catalog[database]:
        glue.create_table(DatabaseName=database, TableInput=found["table"])
        for partition in found["partitions"]:
            glue.create_partition(DatabaseName=database, TableName=found["table"]["Name"], PartitionInput=partition)


def restore_stream(dump: Dump) -> Stream:
    """Makes the stream in this process's moto, with the shards, sequence numbers and times that it had."""
    stream = Stream(dump.name, 1, None, RETENTION_HOURS, DEFAULT_ACCOUNT_ID, REGION)
    stream.creation_datetime = _as_moto(dump.stream["created_at"])
    stream.shards = {found["shard_id"]: _shard(found) for found in dump.stream["shards"]}
    stream.shard_count = sum(shard.is_open for shard in stream.shards.values())
    kinesis_backends[DEFAULT_ACCOUNT_ID][REGION].streams[dump.name] = stream
    return stream


def records_on(stream: Stream) -> dict[tuple[str, str], bytes]:
    """The data of every record that is on a restored stream now, by shard and sequence number."""
    return {
        (shard.shard_id, str(record.sequence_number)): record.to_json()["Data"]
        for shard in stream.shards.values()
        for record in shard.records.values()
    }


@contextmanager
def kinesis_server() -> Iterator[str]:
    """Serves this process's moto on a free port; its URL, for AWS_ENDPOINT_URL_KINESIS."""
    moto_kinesis.apply()
    application = SerialApplication(DomainDispatcherApplication(create_backend_app), {"service": "golden stream"})
    server = make_server(HOST, 0, application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, name="golden-kinesis", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _shard(found: dict[str, Any]) -> Shard:
    number = int(found["shard_id"].removeprefix("shardId-"))
    shard = Shard(number, int(found["starting_hash"]), int(found["ending_hash"]), found["parent"])
    shard.is_open = not found["closed"]
    shard.records = OrderedDict((int(each["sequence_number"]), _record(each)) for each in found["records"])
    return shard


def _record(found: dict[str, Any]) -> Record:
    record = Record(found["partition_key"], found["data"], int(found["sequence_number"]), "")
    record.created_at_datetime = _as_moto(found["arrived_at"])
    record.created_at = record.created_at_datetime.replace(tzinfo=UTC).timestamp()
    return record


def _as_moto(text: str) -> datetime:
    """A time as moto keeps it: UTC, without a zone."""
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)


def _on_this_machine(lease: bytes) -> bytes:
    return json.dumps(json.loads(lease) | {"machine": machine()}, separators=(",", ":")).encode()
