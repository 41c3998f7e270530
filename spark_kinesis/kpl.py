"""Splits KPL aggregates: Kinesis records that each hold many user records (option `deaggregate`).

Records come from `reader`, page by page, and go back to it. A range ends after a whole Kinesis record, so an aggregate
is never split between two batches. A user record's sequence number is `<sequence>:<sub>`; <sub> counts from 0.
Format: https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md

After a reshard, an aggregate may arrive on a shard that does not take all of its user records by their hash keys. The
KPL sends those records again, to their own shards, so they are dropped here, as the KCL does.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from hashlib import md5
from typing import Any

from spark_kinesis.client import Record
from spark_kinesis.errors import SourceConfigurationError
from spark_kinesis.offset import ShardRange

_log = logging.getLogger(__name__)


class Deaggregator:
    """Splits aggregates with awslabs' package `aws_kinesis_agg`. Thread-safe.

    counters  counts the user records that were dropped because they were sent again ("resent")

    Raises SourceConfigurationError if the package is not installed.
    """

    def __init__(self, counters: Counter[str] | None = None) -> None:
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
        self._counters: Counter[str] = Counter() if counters is None else counters
        self._lock = threading.Lock()

    def user_records(self, records: Sequence[Record], part: ShardRange) -> list[Record]:
        """The user records, in order. A record that is no aggregate, or a damaged one, stays as it is.

        Example: if the range starts at `5:2`, the user records 0 to 2 of aggregate 5 were read before; 3 is the first.
        """
        found: list[Record] = []
        dropped = 0
        for record in records:
            parts = self._parts(record)
            if parts is None:
                found.append(record)
                continue
            first = 0
            if part.start.sub is not None and record.sequence_number == part.start.sequence:
                first = part.start.sub + 1
            parts = parts[first:]
            kept = [each for each, hash_key in parts if _takes(part.hash_keys, hash_key)]
            dropped += len(parts) - len(kept)
            found += kept
        if dropped:
            self._count(dropped, part)
        return found

    def _count(self, dropped: int, part: ShardRange) -> None:
        with self._lock:
            self._counters["resent"] += dropped
        _log.warning(
            "%s: dropped %d user records of KPL aggregates, because their hash keys are outside of the shard's range: "
            "after a reshard the KPL sends such records again",
            part,
            dropped,
        )

    def _parts(self, record: Record) -> list[tuple[Record, int]] | None:
        """The user records of an aggregate with their hash keys; None if the record is not a valid one."""
        data = record.data
        if not data.startswith(self._magic) or len(data) <= len(self._magic) + self._digest_bytes:
            return None
        body, digest = data[len(self._magic) : -self._digest_bytes], data[-self._digest_bytes :]
        if md5(body, usedforsecurity=False).digest() != digest:
            return None
        message = self._message()
        try:
            message.ParseFromString(body)
            keys, hash_keys = message.partition_key_table, message.explicit_hash_key_table
            found = []
            for sub, part in enumerate(message.records):
                key = keys[part.partition_key_index]
                explicit = hash_keys[part.explicit_hash_key_index] if part.HasField("explicit_hash_key_index") else None
                user_record = Record(
                    f"{record.sequence_number}:{sub}", key, record.approximate_arrival_timestamp, part.data
                )
                found.append((user_record, _hash_of(key) if explicit is None else int(explicit)))
            return found
        except (self._broken, IndexError, ValueError):
            return None


def _hash_of(partition_key: str) -> int:
    return int.from_bytes(md5(partition_key.encode(), usedforsecurity=False).digest())


def _takes(hash_keys: tuple[int, int] | None, hash_key: int) -> bool:
    """Whether the shard of these hash keys takes the record."""
    return hash_keys is None or hash_keys[0] <= hash_key <= hash_keys[1]
