"""The processed table where it is one Delta table (`sink.format: delta`): opening it, and what its log says.

Read and written by delta-rs, without Spark. Nothing but this project writes to it: see docs/adr/0017.
Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md (add file, transaction identifiers).
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from jobs.contract.delta_options import delta_options
from jobs.contract.errors import ConfigurationError, TransientError
from jobs.contract.partitions import partition_path
from jobs.sink.lake import Lake
from jobs.sink.layout import LayoutFile

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
        moved = next(iter(LayoutFile(lake, PROCESSED).read().elsewhere.values()), None)
        if parquet or moved:
            raise ConfigurationError(
                f"sink.format: delta, but {lake.uri}/{PROCESSED} holds plain Parquet ({parquet or moved}) and no Delta "
                "log. Set sink.format: parquet, or give this job another lake (`lake`, `database`) and checkpoint, and "
                "read the stream again (source.starting_position: TRIM_HORIZON). Nothing was started"
            )
