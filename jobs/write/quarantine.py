"""Quarantine lines: each rejected record as JSON, with its reason, its origin and its exact bytes."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

import msgspec
import pyarrow as pa

from jobs.lake.quarantine_files import QuarantinedRecord
from jobs.schema.rejections import Rejection

_encode = msgspec.json.Encoder().encode


def quarantine_lines(records: pa.RecordBatch, rejections: Mapping[int, Rejection], batch: str, stage: str) -> pa.Array:
    """The lines of the rejected records, in their order. `rejections`: by the record's position in `records`."""
    positions = sorted(rejections)
    rows: Iterable[dict[str, object]] = records.take(pa.array(positions, pa.int64())).to_pylist()
    lines = []
    for position, row in zip(positions, rows, strict=True):
        rejection, data = rejections[position], row["data"]
        assert isinstance(data, bytes)  # noqa: S101 - the source's schema
        encoding, payload = _as_text(data)
        line = QuarantinedRecord(
            reason=rejection.reason,
            stage=stage,
            field=rejection.field,
            value=rejection.value,
            shard_id=row["shard_id"],  # type: ignore[arg-type]
            sequence_number=row["sequence_number"],  # type: ignore[arg-type]
            partition_key=row["partition_key"],  # type: ignore[arg-type]
            arrival_time=row["arrival_time"],  # type: ignore[arg-type]
            batch=batch,
            encoding=encoding,
            payload=payload,
        )
        lines.append(_encode(line))
    return pa.array(lines, pa.binary())


def _as_text(data: bytes) -> tuple[str, str]:
    """(encoding, payload): the bytes as UTF-8 text if they are valid, otherwise as base64."""
    try:
        return "utf-8", data.decode("utf-8")
    except UnicodeDecodeError:
        return "base64", base64.b64encode(data).decode("ascii")
