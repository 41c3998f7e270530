"""The figures of every gold table that the contract names, from the Delta logs: no data file is read."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from deltalake.exceptions import DeltaError

from jobs.common.errors import TerminalError, TransientError
from jobs.lake.delta import open_delta
from jobs.schema.gold_section import ZonesTable
from jobs.schema.table import TableContract
from movement.report.model import GoldTable


def gold_tables(lake: str, contract: TableContract) -> list[GoldTable]:
    """The tables of the contract's section `gold`, in its order, whether they exist yet or not.

    Raises TerminalError, naming the table, if one exists and cannot be read.
    """
    return [
        GoldTable(name, spec.kind, spec.comment, *_figures(lake, name)) for name, spec in (contract.gold or {}).items()
    ]


def has_map(contract: TableContract) -> bool:
    """Whether the contract says which columns are zones, so that the page has a section with a map."""
    return any(isinstance(spec, ZonesTable) for spec in (contract.gold or {}).values())


def _figures(lake: str, name: str) -> tuple[int | None, int | None, int | None]:
    """(rows, files, bytes) of a table; None for each if it does not exist."""
    uri = f"{lake}/gold/{name}"
    try:
        table = open_delta(uri)
        if table is None:
            return None, None, None
        files = pa.table(table.get_add_actions(flatten=True))
    except (TransientError, DeltaError) as error:
        raise TerminalError(f"{uri}: not readable as a Delta table: {error}") from error
    rows = pc.sum(files["num_records"], min_count=0).as_py()
    return int(rows), files.num_rows, int(pc.sum(files["size_bytes"], min_count=0).as_py())
