"""Checks and encodes the records of one request body, in slices of time. `api` uses it.

In: the decoded body. Out: the records to send, and what is wrong with the others. The event loop answers other requests
between two slices.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.schema.rejections import MISSING_FIELD, NOT_AN_OBJECT, TOO_LARGE, Rejection
from producer.record_encoder import PutRecordsEntry, RecordEncoder

# An answer lists the errors of the first 100 rejected records, and counts all of them.
MAX_COMPLAINTS = 100
# The event loop runs other requests at least this often.
SLICE_SECONDS = 0.01


@dataclass
class CheckedRecords:
    """The records of a body of `count`: (index, record) of the valid ones, and the first complaints.

    `reasons` counts all rejected records by the first reason of each.
    """

    count: int
    records: list[tuple[int, PutRecordsEntry]] = field(default_factory=list)
    complaints: list[dict[str, Any]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def rejected(self) -> int:
        """The number of rejected records."""
        return self.reasons.total()

    @property
    def all_too_large(self) -> bool:
        """Whether each rejected record is too large for the stream."""
        return self.reasons.keys() == {TOO_LARGE}

    def rejections(self) -> dict[str, Any]:
        """The part of the answer about rejected records."""
        return {"rejected": self.complaints, "rejected_count": self.rejected}

    def add(self, index: int, given: Any, encoder: RecordEncoder) -> None:
        """Checks and encodes the record at `index`."""
        if not isinstance(given, dict):
            self._reject(index, [Rejection(NOT_AN_OBJECT)])
        elif (first := encoder.checks.reject(given)) is not None:
            # Beyond the listed complaints the first reason is enough.
            self._reject(index, encoder.rejections(given) if len(self.complaints) < MAX_COMPLAINTS else [first])
        elif isinstance(encoded := encoder.encode(given), PutRecordsEntry):
            self.records.append((index, encoded))
        else:
            self._reject(index, [encoded])

    def _reject(self, index: int, rejections: Sequence[Rejection]) -> None:
        self.reasons[rejections[0].reason] += 1
        if len(self.complaints) < MAX_COMPLAINTS:
            self.complaints.append({"index": index, "errors": [_error(one) for one in rejections]})


async def check(given: Sequence[Any], encoder: RecordEncoder) -> CheckedRecords:
    """Checks and encodes all records. Other tasks of the event loop run every SLICE_SECONDS."""
    checked = CheckedRecords(len(given))
    pause_at = time.perf_counter() + SLICE_SECONDS
    for index, one in enumerate(given):
        checked.add(index, one, encoder)
        if time.perf_counter() > pause_at:
            await asyncio.sleep(0)
            pause_at = time.perf_counter() + SLICE_SECONDS
    return checked


def _error(rejection: Rejection) -> dict[str, Any]:
    error: dict[str, Any] = {"reason": rejection.reason, "field": rejection.field}
    if rejection.reason != MISSING_FIELD and rejection.value is not None:
        error["value"] = rejection.value
    return error
