"""What becomes of a value that fails a check of its column: `on_fail: reject | null | warn`.

`reject` sends the record to quarantine. With `null` and `warn` the record stays: the value becomes null, or stays as it
is, and is counted by column and reason. The counts go with the task's report into the ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator

from jobs.schema.rejections import BAD_PARTITION, WRONG_TYPE


def _named(value: Any) -> Any:
    # YAML reads an unquoted null as no value.
    return "null" if value is None else value


def _no_null(value: Any) -> Any:
    if value in (None, "null"):
        raise ValueError(
            "null: a check of several columns does not say which of them is wrong; allowed: reject, warn. To make "
            "single values null, give their columns min, max or allowed with on_fail: null"
        )
    return value


OnFail = Annotated[Literal["reject", "null", "warn"], BeforeValidator(_named)]
# Of a check across columns.
OnFailOfCheck = Annotated[Literal["reject", "warn"], BeforeValidator(_no_null)]

# A value that is not of the column's type, or cannot name a folder, cannot stay: `warn` rejects its record.
CANNOT_STAY = (WRONG_TYPE, BAD_PARTITION)


@dataclass(frozen=True, slots=True)
class FailedValues:
    """The values of n records that failed one check and did not reject their records.

    check    `<column>.<reason>`, or `<check>.failed_check` for a check across columns
    action   what became of them
    records  a mask of n booleans, without nulls
    """

    check: str
    action: Literal["null", "warn"]
    records: pa.Array


@dataclass(slots=True)
class OnFailMasks:
    """Applies `on_fail` to columns of n values and keeps the FailedValues. A value counts for its first failure."""

    found: list[FailedValues] = field(default_factory=list)

    def apply(
        self, name: str, on_fail: OnFail, values: pa.Array, failures: Iterable[tuple[str, pa.Array]]
    ) -> tuple[pa.Array, list[pa.Array]]:
        """The values, those that fail null if `on_fail` is null, and the masks of the records to reject.

        `failures`: (reason, mask without nulls) of each check, in the order of the reasons. Not for `reject`.
        """
        rejected: list[pa.Array] = []
        failed: pa.Array | None = None
        for reason, mask in failures:
            if on_fail == "warn" and reason in CANNOT_STAY:
                rejected.append(mask)
                continue
            new = mask if failed is None else pc.and_not(mask, failed)
            failed = mask if failed is None else pc.or_(failed, mask)
            self.add(f"{name}.{reason}", "null" if on_fail == "null" else "warn", new)
        if failed is not None and on_fail == "null":
            values = pc.if_else(failed, pa.scalar(None, values.type), values)
        return values, rejected

    def add(self, check: str, action: Literal["null", "warn"], mask: pa.Array) -> None:
        """Keeps a mask that is not all false."""
        if pc.any(mask, min_count=0).as_py():
            self.found.append(FailedValues(check, action, mask))


def count_failed(found: Iterable[FailedValues], others: Collection[int], action: str) -> dict[str, int]:
    """How many values failed, by check, without those of the records at the positions `others`, which are no rows."""
    rejected = pa.array(sorted(set(others)), pa.int64())
    counts: dict[str, int] = {}
    for each in found:
        if each.action != action:
            continue
        number = (pc.sum(each.records).as_py() or 0) - (pc.sum(each.records.take(rejected)).as_py() or 0)
        if number:
            counts[each.check] = counts.get(each.check, 0) + number
    return counts
