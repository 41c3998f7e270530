"""The processed table where it is one Delta table (`sink.format: delta`): opening it, and what its log says.

Read and written by delta-rs, without Spark. Nothing but this project writes to it: see docs/adr/0017.
Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md (add file, transaction identifiers).
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

import boto3
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from jobs.common.aws import client, region
from jobs.common.errors import ConfigurationError, TransientError
from jobs.lake.partition_locations import LayoutFile
from jobs.lake.store import Lake
from jobs.schema.partitions import partition_path

PROCESSED = "processed"
NOTHING = -1  # the progress in a query of which the table has no batch: batches count from 0
_PARTITION = "partition."


def is_delta(lake: Lake, table: str = PROCESSED) -> bool:
    """Whether the table has a Delta log; one request."""
    return next(lake.list(f"{table}/_delta_log/"), None) is not None


def open_delta(lake: Lake, table: str = PROCESSED) -> DeltaTable | None:
    """The table as it stands; None where it has no Delta log. Raises TransientError where the log cannot be read."""
    if not is_delta(lake, table):
        return None
    uri = f"{lake.uri}/{table}"
    try:
        return DeltaTable(uri, storage_options=storage_options(lake))
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise TransientError(f"read the Delta log of {uri}: {error}") from error


def storage_options(lake: Lake) -> dict[str, str] | None:
    """How delta-rs reaches the lake; None for a folder."""
    return delta_options() if "://" in lake.uri else None


def progress_of(opened: DeltaTable, query: str) -> int:
    """The last batch of `query` that is in the table, and with it all before it; NOTHING where none is."""
    try:
        version: int | None = opened.transaction_version(query)
    except (DeltaError, OSError) as error:
        raise TransientError(f"read the Delta log of {opened.table_uri}: {error}") from error
    return NOTHING if version is None else version


def active_files(opened: DeltaTable, table: str = PROCESSED) -> Iterator[tuple[str, str, int]]:
    """(partition `city=…/start_date=…`, path in the lake, bytes) of every file of the version that is open."""
    try:
        files = pa.table(opened.get_add_actions(flatten=True))
    except (DeltaError, OSError) as error:
        raise TransientError(f"read the Delta log of {opened.table_uri}: {error}") from error
    names = opened.metadata().partition_columns
    values = [files[_PARTITION + name].to_pylist() for name in names]
    for path, size, *of in zip(files["path"].to_pylist(), files["size_bytes"].to_pylist(), *values, strict=True):
        # From the values, not from the path: delta-rs' own compaction escapes folders in another way than Hive.
        yield partition_path(names, dict(zip(names, of, strict=True))), f"{table}/{unquote(path)}", size


def check_format(lake: Lake, wanted: str) -> None:
    """Raises ConfigurationError where the lake's processed table is of another format than `sink.format`.

    Two requests at most, three for a Delta table that is to be made.
    """
    if is_delta(lake):
        if wanted != "delta":
            raise ConfigurationError(
                f"sink.format: {wanted}, but {lake.uri}/{PROCESSED} is a Delta table: files that its log does not "
                "name would be seen by nobody. Set sink.format: delta, or give this job another lake (`lake`, "
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


# How the `deltalake` library (delta-rs) finds S3: exactly as boto3 does, its profiles and endpoints included.


def delta_options() -> dict[str, str]:
    """`storage_options` for `deltalake.DeltaTable`: boto3's credentials, region and endpoint as they are now.

    Plain HTTP is allowed only for an endpoint that says `http://`. Raises ConfigurationError where no region is found.
    """
    endpoint = urlsplit(client("s3").meta.endpoint_url)
    options = {"AWS_REGION": str(region()), "connect_timeout": "5s", "timeout": "60s", "max_retries": "4"}
    if ".amazonaws.com" not in endpoint.netloc:
        options["AWS_ENDPOINT_URL"] = endpoint.geturl()
        options["AWS_ALLOW_HTTP"] = str(endpoint.scheme == "http").lower()
    credentials = boto3.Session().get_credentials()
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        options |= {"AWS_ACCESS_KEY_ID": frozen.access_key, "AWS_SECRET_ACCESS_KEY": frozen.secret_key}
        if frozen.token:
            options["AWS_SESSION_TOKEN"] = frozen.token
    return options
