"""What a check of `movement doctor`, or a proof of the smoke run, found: pass, fail or unknown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "fail", "unknown"]


@dataclass(frozen=True)
class Answer:
    """What was found. `remedy`: what to do about it, in one sentence; empty for a pass."""

    status: Status
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Finding:
    """An answer with the name of its check."""

    name: str
    status: Status
    found: str
    remedy: str = ""


def passed(found: str) -> Answer:
    """The thing was seen, and is as the jobs need it."""
    return Answer("pass", found)


def failed(found: str, remedy: str) -> Answer:
    """The thing was seen, and the jobs fail or are unsafe with it."""
    return Answer("fail", found, remedy)


def unknown(found: str, remedy: str = "") -> Answer:
    """The thing was not seen. `found` says why."""
    return Answer("unknown", found, remedy)
