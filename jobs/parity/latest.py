"""Where the last parity check's result stands in the lake, for the page to show."""

from __future__ import annotations

LATEST = "_parity/latest.json"
