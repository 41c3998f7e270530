"""Where a smoke run works, and what it found: written by jobs/stream/smoke.py, read by `movement deploy smoke`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from jobs.common.findings import Finding

FINDINGS = "findings.json"


_decode = msgspec.json.Decoder(list[Finding]).decode


def smoke_folder(lake: str, run: str) -> str:
    """The address of a run's folder. The role of the streaming job may read, write and delete below `_checkpoints/`."""
    return f"{lake}/_checkpoints/_smoke/{run}"


def encode_findings(findings: Iterable[Finding]) -> bytes:
    """The content of `findings.json`."""
    return msgspec.json.format(msgspec.json.encode(list(findings)))


def decode_findings(content: bytes) -> list[Finding]:
    """Reads `findings.json`. Raises msgspec.DecodeError."""
    return _decode(content)
