"""Delta tables of the lake, opened with delta-rs (no Spark): processed if `sink.format: delta`, and the gold tables.

Only this project writes them (docs/adr/0017).
Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md (add file, transaction identifiers).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import unquote, urlsplit

import boto3
import pyarrow as pa
from botocore.exceptions import ClientError
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from jobs.common.aws import ca_bundle, client, region, translate_aws_errors
from jobs.common.errors import ConfigurationError, TransientError
from jobs.lake.partition_locations import LayoutFile
from jobs.lake.store import Lake
from jobs.schema.partitions import partition_path

PROCESSED = "processed"
NO_BATCH = -1  # batches count from 0
_PARTITION = "partition."


def is_delta(lake: Lake, table: str = PROCESSED) -> bool:
    """Whether the table has a Delta log; one request."""
    return next(lake.list(f"{table}/_delta_log/"), None) is not None


def open_delta(uri: str) -> DeltaTable | None:
    """The Delta table at `uri` at its latest version; None if it does not exist.

    `uri` is such as `s3://bucket/lake/processed`, or a local folder. Raises TransientError if it cannot be read.
    """
    try:
        return DeltaTable(uri, storage_options=storage_options(uri))
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise TransientError(f"read the Delta log of {uri}: {error}") from error


def storage_options(uri: str) -> dict[str, str] | None:
    """How delta-rs reaches the table: with boto3's credentials, endpoint and CAs, in the bucket's region.

    None for a local folder. Allows plain HTTP only if the endpoint says `http://`. Raises ConfigurationError if no
    region is configured.
    """
    if "://" not in uri:
        return None
    endpoint = urlsplit(client("s3").meta.endpoint_url)
    bundle = ca_bundle()
    if bundle is not None:
        # It has no storage option for CAs. AWS_CA_BUNDLE takes precedence, as it does for boto3 and S3A.
        os.environ["SSL_CERT_FILE"] = bundle
    options = {"AWS_REGION": str(region()), "connect_timeout": "5s", "timeout": "60s", "max_retries": "4"}
    if ".amazonaws.com" not in endpoint.netloc:
        options["AWS_ENDPOINT_URL"] = endpoint.geturl()
        options["AWS_ALLOW_HTTP"] = str(endpoint.scheme == "http").lower()
    else:
        options["AWS_REGION"] = _bucket_region(urlsplit(uri).netloc)
    credentials = boto3.Session().get_credentials()
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        options |= {"AWS_ACCESS_KEY_ID": str(frozen.access_key), "AWS_SECRET_ACCESS_KEY": str(frozen.secret_key)}
        if frozen.token:
            options["AWS_SESSION_TOKEN"] = frozen.token
    return options


@lru_cache(maxsize=16)
def _bucket_region(bucket: str) -> str:
    """The region of the bucket, which may not be ours: boto3 and S3A follow S3's redirection, delta-rs does not."""
    with translate_aws_errors(f"find the region of the bucket {bucket}"):
        try:
            headers = client("s3").head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]
        except ClientError as error:  # S3 names the region in a refusal too
            headers = error.response["ResponseMetadata"]["HTTPHeaders"]
    return headers.get("x-amz-bucket-region") or str(region())


def last_committed_batch(table: DeltaTable | None, query: str) -> int:
    """The number of the query's last batch in the table, which then has all earlier ones too; NO_BATCH if none."""
    if table is None:
        return NO_BATCH
    try:
        version: int | None = table.transaction_version(query)
    except (DeltaError, OSError) as error:
        raise TransientError(f"read the Delta log of {table.table_uri}: {error}") from error
    return NO_BATCH if version is None else version


def active_files(table: DeltaTable, name: str = PROCESSED) -> Iterator[tuple[str, str, int]]:
    """(partition `city=…/start_date=…`, path in the lake, size in bytes) of each file in the opened version.

    `name`: the table's folder in the lake.
    """
    try:
        files = pa.table(table.get_add_actions(flatten=True))
    except (DeltaError, OSError) as error:
        raise TransientError(f"read the Delta log of {table.table_uri}: {error}") from error
    columns = table.metadata().partition_columns
    values = [files[_PARTITION + column].to_pylist() for column in columns]
    for path, size, *row in zip(files["path"].to_pylist(), files["size_bytes"].to_pylist(), *values, strict=True):
        # From the values, not the path: delta-rs' compaction escapes folder names differently from Hive.
        yield partition_path(columns, dict(zip(columns, row, strict=True))), f"{name}/{unquote(path)}", size


def check_format(lake: Lake, wanted: str) -> None:
    """Raises ConfigurationError if the lake's processed table has another format than `wanted` (`sink.format`).

    Takes two requests, or three if a Delta table is to be created.
    """
    if is_delta(lake):
        if wanted != "delta":
            raise ConfigurationError(
                f"sink.format: {wanted}, but {lake.uri}/{PROCESSED} is a Delta table, whose readers would not see "
                "files that its log does not name. Set sink.format: delta, or give this job another lake (`lake`, "
                "`database`) and checkpoint. Nothing was started"
            )
    elif wanted == "delta":
        parquet = next((path for path, _ in lake.list(f"{PROCESSED}/") if path.endswith(".parquet")), None)
        moved = next(iter(LayoutFile(lake, PROCESSED).read().relocated.values()), None)
        if parquet or moved:
            raise ConfigurationError(
                f"sink.format: delta, but {lake.uri}/{PROCESSED} holds plain Parquet ({parquet or moved}) and no Delta "
                "log. Set sink.format: parquet, or give this job another lake (`lake`, `database`) and checkpoint, and "
                "read the stream again (source.starting_position: TRIM_HORIZON). Nothing was started"
            )
