"""What both functions share: one log line a decision, names from the environment, SQS's partial batch response.

A message whose id is in the response's `batchItemFailures` returns to the queue and is delivered again after
the queue's visibility timeout; the others are deleted. After the queue's `maxReceiveCount` it goes to the
dead-letter queue. Source: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
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

# Decisions, as they stand in the log.
STARTED = "started"  # the crawler or the job was started; the message comes back until that has succeeded
BUSY = "busy"  # it runs already; the message comes back
ANSWERED = "answered"  # a run that began after this event has succeeded; the message is done
IGNORED = "ignored"  # not for this function; the message is done
FAILED = "failed"  # the message cannot be read, or AWS refused; the message comes back


def log(decision: str, **fields: Any) -> None:
    """Writes one JSON object on one line; CloudWatch Logs makes a log event of it."""
    sys.stdout.write(json.dumps({"decision": decision, **fields}, default=str) + "\n")
    sys.stdout.flush()


def required(name: str) -> str:
    """The environment variable `name`. Raises RuntimeError with its name where it is missing or empty."""
    value = os.environ.get(name, "")
    if not value:
        raise RuntimeError(f"environment variable {name} is not set")
    return value


def moment(text: str) -> datetime:
    """An event's time. Raises ValueError where it is no ISO 8601 time with an offset."""
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        raise ValueError(f"time without offset: {text}")
    return parsed


def clock_margin() -> timedelta:
    """By how much a run must have begun after an event to have seen its data (CLOCK_MARGIN_SECONDS, default 2).

    S3, EventBridge and Glue each stamp with a clock of their own.
    """
    return timedelta(seconds=float(os.environ.get("CLOCK_MARGIN_SECONDS") or 2))


@cache
def glue() -> Any:
    """The Glue client, made at the first call and kept while the function's container lives."""
    return boto3.client("glue", config=Config(retries={"mode": "standard", "max_attempts": 5}))


def partial_response(failed: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    """Lambda's answer for an SQS batch: the ids of the messages that come back."""
    return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}
