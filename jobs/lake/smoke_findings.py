"""Where a smoke run works, and what it found: written by jobs/stream/smoke.py, read by `movement deploy smoke`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec

FINDINGS = "findings.json"


@dataclass(frozen=True)
class Proof:
    """One proof. `status`: unknown if it could not be tried; `remedy`: what to do about it, empty for a pass."""

    name: str
    status: Literal["pass", "fail", "unknown"]
    found: str
    remedy: str = ""


_decode = msgspec.json.Decoder(list[Proof]).decode


def smoke_folder(lake: str, run: str) -> str:
    """The address of a run's folder. The role of the streaming job may read, write and delete below `_checkpoints/`."""
    return f"{lake}/_checkpoints/_smoke/{run}"


def encode_proofs(proofs: Iterable[Proof]) -> bytes:
    """The content of `findings.json`."""
    return msgspec.json.format(msgspec.json.encode(list(proofs)))


def decode_proofs(content: bytes) -> list[Proof]:
    """Reads `findings.json`. Raises msgspec.DecodeError."""
    return _decode(content)
