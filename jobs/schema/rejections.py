"""Why a record is rejected: the reason codes, in the order in which they are tried.

A rejected record goes to quarantine with its bytes; the job goes on. The same codes come from the stream, the
batch path, the producer and the HTTP API.
"""

from __future__ import annotations

from dataclasses import dataclass

TOO_LARGE = "too_large"
NOT_UTF8 = "not_utf8"
NOT_JSON = "not_json"
NOT_AN_OBJECT = "not_an_object"
MISSING_FIELD = "missing_field"
WRONG_TYPE = "wrong_type"
UNPARSABLE = "unparsable"
FAILED_CHECK = "failed_check"
BAD_PARTITION = "bad_partition_value"

# The order is the contract: a record that fails twice is filed under the first.
REASONS = (
    TOO_LARGE,
    NOT_UTF8,
    NOT_JSON,
    NOT_AN_OBJECT,
    MISSING_FIELD,
    WRONG_TYPE,
    UNPARSABLE,
    FAILED_CHECK,
    BAD_PARTITION,
)

# A rejected value is shown up to this many characters; the whole of it stands in the record's bytes.
VALUE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Rejection:
    """One reason why one record cannot become a row.

    `reason` is a code from REASONS (or a contract's own, such as `bad_date_range`); `field` is the source
    field's name, or a check's, and `value` what stood there (cut to VALUE_CHARACTERS), None where the record
    as a whole is at fault.
    """

    reason: str
    field: str | None = None
    value: str | None = None

    def __str__(self) -> str:
        where = f" {self.field!r}" if self.field else ""
        what = f" = {self.value!r}" if self.value is not None else ""
        return f"{self.reason}{where}{what}"
