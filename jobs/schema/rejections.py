"""Why a record is rejected: the reason codes, in the order in which they are checked.

The stream, the batch path, the producer and the HTTP API use the same codes. A job writes a rejected record's bytes to
quarantine and goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

TOO_LARGE = "too_large"
KPL_AGGREGATE = "kpl_aggregate"
NOT_GZIP = "not_gzip"
NOT_UTF8 = "not_utf8"
NOT_JSON = "not_json"
NOT_AN_OBJECT = "not_an_object"
MISSING_FIELD = "missing_field"
WRONG_TYPE = "wrong_type"
UNPARSABLE = "unparsable"
FAILED_CHECK = "failed_check"
NOT_ALLOWED = "not_allowed"
TOO_LONG = "too_long"
PATTERN_MISMATCH = "pattern_mismatch"
BAD_PARTITION = "bad_partition_value"

# Not the record's fault: its partition would be one too many (`sink.max_new_partitions_per_batch`). Streaming job only.
TOO_MANY_PARTITIONS = "too_many_partitions"

# No rejection: the code under which values count that `privacy` has kept out of the rescued column.
WITHHELD = "withheld"

# A record that fails several checks is filed under the first of them.
REASONS = (
    TOO_LARGE,
    KPL_AGGREGATE,
    NOT_GZIP,
    NOT_UTF8,
    NOT_JSON,
    NOT_AN_OBJECT,
    MISSING_FIELD,
    WRONG_TYPE,
    UNPARSABLE,
    FAILED_CHECK,
    NOT_ALLOWED,
    TOO_LONG,
    PATTERN_MISMATCH,
    BAD_PARTITION,
)

# A rejected value is cut to this many characters; the record's bytes have all of it.
VALUE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Rejection:
    """One reason why a record cannot become a row.

    reason  a code of REASONS, or a contract's own, such as `bad_date_range`
    field   the source field or the check that failed; None if it is the record as a whole
    value   the field's value, cut to VALUE_CHARACTERS; of a record as a whole, what is wrong with it, or None
    """

    reason: str
    field: str | None = None
    value: str | None = None

    def __str__(self) -> str:
        where = f" {self.field!r}" if self.field else ""
        what = f" = {self.value!r}" if self.value is not None else ""
        return f"{self.reason}{where}{what}"
