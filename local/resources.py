"""Creates and deletes the resources that the settings name: Kinesis stream, lake bucket and Glue database.

`ensure` runs after `local.server.up`. `jobs.catalog` creates the Glue tables. The standard AWS environment variables
say which AWS is used.
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
    """The settings' resources; `created` lists those that `ensure` created. `bucket` is None for a lake in a folder."""

    stream: str
    shards: int
    bucket: str | None
    database: str
    created: tuple[str, ...]


def ensure(settings: Settings) -> Resources:
    """Creates the resources that do not exist; an existing stream keeps its number of shards.

    Returns once the stream is ACTIVE. Raises AwsAccessError or TransientError with the resource's name.
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
    """Deletes the stream, the objects under the lake's prefix, the bucket if it is then empty, and the database.

    A lake in a folder stays. Raises TerminalError, before anything is deleted, unless Kinesis, S3 and Glue are the
    embedded AWS.
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
    """boto3 clients of `services`. Raises TerminalError (`refused to <what>`) unless all are the embedded AWS."""
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
    """Ignores AWS errors with one of these codes, such as "already exists"."""
    try:
        yield
    except ClientError as error:
        if aws.error_code(error) not in codes:
            raise


def lake_location(lake: str) -> tuple[str | None, str]:
    """(bucket, key prefix): `s3://b/lake` is (`b`, `lake/`), `s3://b` is (`b`, ``). A folder is (None, its path)."""
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
    """Waits until the stream has the state `wanted`, or is deleted (None); returns its summary."""
    deadline = time.monotonic() + ACTIVE_SECONDS
    while True:
        summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        # UPDATING: the stream is being resharded, and can be read and written.
        if summary["StreamStatus"] == wanted or (wanted and summary["StreamStatus"] == "UPDATING"):
            return summary
        if time.monotonic() > deadline:
            raise TransientError(
                f"stream {name} is {summary['StreamStatus']} after {ACTIVE_SECONDS:.0f} s; "
                f"expected {wanted or 'that it is deleted'}"
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
    # For us-east-1, S3 does not accept a LocationConstraint.
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
