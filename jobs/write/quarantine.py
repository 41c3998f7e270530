"""Quarantine: each rejected record as a line of JSON with its reason and its exact bytes, gzip."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

import msgspec
import pyarrow as pa

from jobs.lake.quarantine_files import QuarantinedRecord
from jobs.schema.rejections import Rejection

_encode = msgspec.json.Encoder().encode


def quarantine_lines(records: pa.RecordBatch, rejections: Mapping[int, Rejection], batch: str, stage: str) -> pa.Array:
    """The rejected records of `records` (a source's columns) as lines of JSON, in the order of the batch."""
    positions = sorted(rejections)
    rows: Iterable[dict[str, object]] = records.take(pa.array(positions, pa.int64())).to_pylist()
    encoded = []
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
        encoded.append(_encode(line))
    return pa.array(encoded, pa.binary())


def _as_text(data: bytes) -> tuple[str, str]:
    try:
        return "utf-8", data.decode("utf-8")
    except UnicodeDecodeError:
        return "base64", base64.b64encode(data).decode("ascii")
