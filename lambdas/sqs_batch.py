"""Shared by both functions: the log line of a decision, environment variables, SQS's partial batch response.

A message whose id is in the response's `batchItemFailures` returns to the queue and is received again after the
visibility timeout; the others are deleted. After `maxReceiveCount` receives it goes to the dead-letter queue.
Source: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

# Decisions, as in the log.
STARTED = "started"  # the crawler or the job was started; the message returns until it has succeeded
BUSY = "busy"  # it is already running; the message returns
WAITING = "waiting"  # the last crawl is too recent for another one; the message returns
ANSWERED = "answered"  # a run that started after this event has succeeded; the message is deleted
IGNORED = "ignored"  # not for this function; the message is deleted
FAILED = "failed"  # the message is invalid or AWS failed; the message returns


def log(decision: str, **fields: Any) -> None:
    """Writes one JSON object on one line, which becomes a log event in CloudWatch Logs."""
    sys.stdout.write(json.dumps({"decision": decision, **fields}, default=str) + "\n")
    sys.stdout.flush()


def required(name: str) -> str:
    """The environment variable `name`. Raises RuntimeError if it is missing or empty."""
    value = os.environ.get(name, "")
    if not value:
        raise RuntimeError(f"environment variable {name} is not set")
    return value


def event_time(text: str) -> datetime:
    """Parses an event's ISO 8601 time. Raises ValueError if it is invalid or has no offset."""
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        raise ValueError(f"time without offset: {text}")
    return parsed


def clock_margin() -> timedelta:
    """How long after an event a run must start to be sure to read its data (CLOCK_MARGIN_SECONDS, default 2).

    S3, EventBridge and Glue have different clocks.
    """
    return timedelta(seconds=float(os.environ.get("CLOCK_MARGIN_SECONDS") or 2))


@cache
def glue() -> Any:
    """The Glue client, created once in each Lambda container."""
    return boto3.client("glue", config=Config(retries={"mode": "standard", "max_attempts": 5}))


def partial_response(failed: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    """Lambda's answer for SQS messages: the ids of those that return to the queue."""
    return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}
