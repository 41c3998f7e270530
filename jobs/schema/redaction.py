"""`raw: redacted`: records without their private values, before anything is written.

In: a record's bytes. Out: bytes that the same contract reads as the same row. A dropped field is removed; a hashed one
holds its hash with a seal, which only the salt can make, so that a replay does not hash it again. A record that cannot
be read may hold anything: only its reason and its size are left of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import pyarrow as pa

from jobs.schema.privacy import PrivatePlaces, Salt
from jobs.schema.rejections import TOO_LARGE, Rejection
from jobs.schema.table import TableContract
from jobs.schema.values import as_text, is_absent, read_object, value_at, withheld_reason, withheld_record

# What raw has in place of a withheld value.
WITHHELD_VALUE = "#withheld"
# A record's most additional bytes for each private column.
_GROWTH = 128

_encode = msgspec.json.Encoder().encode


def with_room(contract: TableContract) -> TableContract:
    """The contract for reading redacted records, which can be longer than the record was on the stream."""
    private = sum(1 for column in contract.record_columns if column.privacy)
    return contract.model_copy(update={"max_record_bytes": contract.max_record_bytes + _GROWTH * private})


def readable(contract: TableContract) -> TableContract:
    """The contract for reading what `redacted` returns."""
    return with_room(contract) if contract.raw == "redacted" else contract


class Redactor:
    """Redacts the records of one contract. To redact a redacted record changes nothing."""

    def __init__(self, contract: TableContract, salt: Salt | None) -> None:
        self._salt = salt
        self._limit = contract.max_record_bytes
        self._limit_with_room = with_room(contract).max_record_bytes
        self._columns = [column for column in contract.record_columns if column.privacy]
        self._places = PrivatePlaces(contract.record_columns)

    def redact(self, data: bytes) -> bytes:
        """The record without its private values."""
        if withheld_reason(data) is not None:
            return data
        record = read_object(data, self._limit_with_room)
        if isinstance(record, Rejection):
            return withheld_record(record.reason, len(data))
        for _ in self._places.withhold(record, WITHHELD_VALUE):
            pass
        sealed = False
        for column in self._columns:
            *way, name = column.location
            inner = value_at(record, tuple(way))
            if not isinstance(inner, dict) or name not in inner:
                continue
            if column.privacy == "drop":
                del inner[name]
            elif not is_absent(inner[name]):
                text = as_text(inner[name])
                assert self._salt is not None  # noqa: S101 - a hashed column has one
                if self._salt.sealed_hash(text) is None:
                    inner[name] = self._salt.seal(self._salt.sha256(text))
                else:
                    sealed = True
        if len(data) > self._limit and not sealed:
            return withheld_record(TOO_LARGE, len(data))
        return _encode(record)


def redacted(batches: Iterable[pa.RecordBatch], contract: TableContract, salt: Salt | None) -> Iterable[pa.RecordBatch]:
    """The batches of records with redacted bytes in the column `data`; the same ones with `raw: as_received`."""
    return _redacted(batches, Redactor(contract, salt)) if contract.raw == "redacted" else batches


def _redacted(batches: Iterable[pa.RecordBatch], redactor: Redactor) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        at = batch.schema.get_field_index("data")
        data = [redactor.redact(record) for record in batch["data"].to_pylist()]
        yield batch.set_column(at, batch.schema.field(at), pa.array(data, pa.binary()))
