"""What the settings name, created: the Kinesis stream, the lake's bucket, the Glue database.

`ensure` runs after `local.server.up`; the producer writes to the stream next. Glue tables are `jobs/catalog`'s.
AWS is found by the standard environment variables alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from jobs.common import aws
from jobs.common.errors import TerminalError, TransientError
from jobs.settings.settings import Settings

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ObjectIdentifierTypeDef

ACTIVE_SECONDS = 60.0
EMBEDDED_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Resources:
    """What the settings name. `bucket` is None where the lake is a folder; `created`: what was not there before."""

    stream: str
    shards: int
    bucket: str | None
    database: str
    created: tuple[str, ...]


def ensure(settings: Settings) -> Resources:
    """Creates what is missing and leaves what is there as it is, another number of shards included.

    Returns when the stream is ACTIVE. Raises AwsAccessError or TransientError with the thing's name.
    """
    created = []
    bucket, _ = lake_location(settings.lake)
    with aws.translate_aws_errors(f"create the stream {settings.stream.name}"):
        shards, is_new = _ensure_stream(aws.client("kinesis"), settings.stream.name, settings.stream.shards)
        created += ["stream"] * is_new
    if bucket is not None:
        with aws.translate_aws_errors(f"create the bucket {bucket}"):
            created += ["bucket"] * _ensure_bucket(aws.client("s3"), bucket)
    with aws.translate_aws_errors(f"create the database {settings.database}"), allowed("AlreadyExistsException"):
        aws.client("glue").create_database(DatabaseInput={"Name": settings.database})
        created.append("database")
    return Resources(settings.stream.name, shards, bucket, settings.database, tuple(created))


def remove(settings: Settings) -> None:
    """Deletes what `ensure` makes: stream, objects under the lake's prefix, bucket if then empty, database.

    A lake that is a folder is left alone. Nothing there is no error. Raises TerminalError, before anything is
    deleted, unless Kinesis, S3 and Glue are all found on this machine.
    """
    clients = embedded_clients("delete anything", "kinesis", "s3", "glue")
    with aws.translate_aws_errors(f"delete the stream {settings.stream.name}"), allowed("ResourceNotFoundException"):
        clients["kinesis"].delete_stream(StreamName=settings.stream.name, EnforceConsumerDeletion=True)
        _wait_for_stream(clients["kinesis"], settings.stream.name, wanted=None)
    bucket, prefix = lake_location(settings.lake)
    if bucket is not None:
        with aws.translate_aws_errors(f"empty the lake {settings.lake}"), allowed("NoSuchBucket"):
            _remove_objects(clients["s3"], bucket, prefix)
            with allowed("BucketNotEmpty"):
                clients["s3"].delete_bucket(Bucket=bucket)
    # Glue deletes a database's tables with it.
    with aws.translate_aws_errors(f"delete the database {settings.database}"), allowed("EntityNotFoundException"):
        clients["glue"].delete_database(Name=settings.database)


def embedded_clients(what: str, *services: str) -> dict[str, Any]:
    """boto3 clients of `services`. Raises TerminalError, `refused to <what>`, unless all are on this machine."""
    clients = {service: aws.client(service) for service in services}
    for service, client in clients.items():
        if urlsplit(client.meta.endpoint_url).hostname not in EMBEDDED_HOSTS:
            raise TerminalError(
                f"refused to {what}: {service} is at {client.meta.endpoint_url}, not the embedded AWS; "
                'run `eval "$(movement local env)"` first'
            )
    return clients


@contextmanager
def allowed(*codes: str) -> Iterator[None]:
    """Passes over the error answers `codes`, which say that the wanted state is there already."""
    try:
        yield
    except ClientError as error:
        if aws.error_code(error) not in codes:
            raise


def lake_location(lake: str) -> tuple[str | None, str]:
    """(bucket, key prefix that ends in `/` or is empty) of an s3:// lake; (None, its path) of a folder."""
    if not lake.startswith("s3://"):
        return None, lake
    bucket, _, prefix = lake.removeprefix("s3://").partition("/")
    return bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""


def _ensure_stream(kinesis: KinesisClient, name: str, shards: int) -> tuple[int, bool]:
    created = False
    with allowed("ResourceInUseException"):
        kinesis.create_stream(StreamName=name, ShardCount=shards)
        created = True
    summary = _wait_for_stream(kinesis, name, wanted="ACTIVE")
    return int(summary["OpenShardCount"]), created


def _wait_for_stream(kinesis: KinesisClient, name: str, wanted: str | None) -> Any:
    """Waits for the stream's state `wanted`, or (None) until it is gone; returns its summary."""
    deadline = time.monotonic() + ACTIVE_SECONDS
    while True:
        summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        # UPDATING: being resharded, and open to readers and writers all the while.
        if summary["StreamStatus"] == wanted or (wanted and summary["StreamStatus"] == "UPDATING"):
            return summary
        if time.monotonic() > deadline:
            raise TransientError(
                f"stream {name} is {summary['StreamStatus']} after {ACTIVE_SECONDS:.0f} s; wanted {wanted or 'it gone'}"
            )
        time.sleep(0.1)


def _ensure_bucket(s3: S3Client, bucket: str) -> bool:
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if aws.error_code(error) != "404":
            raise
    else:
        return False
    region = s3.meta.region_name
    # S3 takes its oldest region by silence only.
    where: dict[str, Any] = (
        {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    )
    with allowed("BucketAlreadyOwnedByYou"):
        s3.create_bucket(Bucket=bucket, **where)
    return True


def _remove_objects(s3: S3Client, bucket: str, prefix: str) -> None:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        keys: list[ObjectIdentifierTypeDef] = [{"Key": entry["Key"]} for entry in page.get("Contents", ())]
        if keys:
            answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
            if answer.get("Errors"):
                first = answer["Errors"][0]
                raise TransientError(f"delete s3://{bucket}/{first['Key']}: {first['Code']}: {first.get('Message')}")
