"""What the transform hands to the sink: a batch of records, read by the contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from jobs.contract.rejects import Rejection
from jobs.contract.table import TableContract

ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


@dataclass(slots=True)
class Parsed:
    """A batch of n records, read.

    `columns`: n rows of `contract.data_columns`; a rejected record's row holds what could be read of it.
    `rejections`: position in the batch → why that record is no row.
    `rescued`: how many records hold fields that the contract does not name.
    """

    columns: pa.RecordBatch
    rejections: dict[int, Rejection] = field(default_factory=dict)
    rescued: int = 0


class Parser(Protocol):
    """Reads records by a contract: `jobs.transform.records.RecordParser`."""

    def __init__(self, contract: TableContract) -> None: ...

    def parse(self, data: pa.BinaryArray) -> Parsed:
        """Reads n records' bytes, none null."""
        ...
