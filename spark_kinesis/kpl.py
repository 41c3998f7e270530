"""Splits KPL aggregates: Kinesis records that each hold many user records (option `deaggregate`).

Records come from `reader`, page by page, and go back to it. A range ends after a whole Kinesis record, so an aggregate
is never split between two batches. A user record's sequence number is `<sequence>:<sub>`; <sub> counts from 0.
Format: https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import md5
from typing import Any

from spark_kinesis.client import Record
from spark_kinesis.errors import SourceConfigurationError
from spark_kinesis.offset import Position


class Deaggregator:
    """Splits aggregates with awslabs' package `aws_kinesis_agg`.

    Raises SourceConfigurationError if it is not installed.
    """

    def __init__(self) -> None:
        try:
            import aws_kinesis_agg
            import aws_kinesis_agg.deaggregator  # makes the package's generated modules importable
            from aws_kinesis_agg import messages_pb2
            from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        except ImportError as error:
            raise SourceConfigurationError(
                "option 'deaggregate' needs the package aws_kinesis_agg: pip install 'movement-lake[kpl]' "
                "or 'spark-kinesis-source[kpl]'"
            ) from error
        self._magic: bytes = aws_kinesis_agg.MAGIC
        self._digest_bytes: int = aws_kinesis_agg.DIGEST_SIZE
        self._message: Any = messages_pb2.AggregatedRecord
        self._broken: Any = DecodeError

    def user_records(self, records: Sequence[Record], start: Position) -> list[Record]:
        """The user records, in order. A record that is no aggregate, or a damaged one, stays as it is.

        Example: if `start` is `5:2`, the user records 0 to 2 of aggregate 5 were read before; 3 is the first.
        """
        found: list[Record] = []
        for record in records:
            parts = self._parts(record)
            if parts is None:
                found.append(record)
                continue
            first = 0
            if start.sub is not None and record.sequence_number == start.sequence:
                first = start.sub + 1
            found += parts[first:]
        return found

    def _parts(self, record: Record) -> list[Record] | None:
        """The user records of an aggregate; None if the record is not a valid one."""
        data = record.data
        if not data.startswith(self._magic) or len(data) <= len(self._magic) + self._digest_bytes:
            return None
        body, digest = data[len(self._magic) : -self._digest_bytes], data[-self._digest_bytes :]
        if md5(body, usedforsecurity=False).digest() != digest:
            return None
        message = self._message()
        try:
            message.ParseFromString(body)
            keys = message.partition_key_table
            return [
                Record(
                    f"{record.sequence_number}:{sub}",
                    keys[part.partition_key_index],
                    record.approximate_arrival_timestamp,
                    part.data,
                )
                for sub, part in enumerate(message.records)
            ]
        except (self._broken, IndexError):
            return None
