"""How a reading task tells of its calls to Kinesis that had to be repeated: in a column beside the records.

Source and sink run in Python workers of their own, with Spark between them, so the records' way is the only one. The
column is null but for the first record of an answer that took more than one call.
"""

from __future__ import annotations

import msgspec

REPEATS = "repeats"


class Repeats(msgspec.Struct, frozen=True, omit_defaults=True):
    """Calls that were repeated, and how many of these Kinesis had refused as too many."""

    retries: int = 0
    throttles: int = 0

    def text(self) -> str | None:
        """As it stands in the column; None where there is nothing to tell."""
        return msgspec.json.encode(self).decode() if self.retries else None

    @classmethod
    def from_text(cls, text: str) -> Repeats:
        return msgspec.json.decode(text, type=cls)
