"""Lambda: starts the crawler for S3 ObjectCreated events from an SQS queue. The crawl's end is an EventBridge event.

No event is lost. A message is deleted only after a successful crawl that started after its object was created. Until
then it returns to the queue, even the message that started the crawl. So one crawl completes all earlier messages, a
failed crawl is started again, and messages of crawls that keep failing end in the dead-letter queue.

Glue bills each crawl for ten minutes at least, so CRAWL_INTERVAL_SECONDS is the shortest time between two crawls'
starts; until then, messages return to the queue.

Environment: CRAWLER_NAME; DELIVERY_PREFIX (other keys are ignored; default: every key); CRAWL_INTERVAL_SECONDS (default
0); CLOCK_MARGIN_SECONDS (default 2).
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote_plus

from botocore.exceptions import ClientError

from lambdas.sqs_batch import (
    ANSWERED,
    BUSY,
    FAILED,
    IGNORED,
    STARTED,
    WAITING,
    clock_margin,
    event_time,
    glue,
    log,
    partial_response,
    required,
)

# S3 truncates an event's time to milliseconds.
TIME_PRECISION = timedelta(milliseconds=1)


def handler(event: dict[str, Any], _context: object = None) -> dict[str, list[dict[str, str]]]:
    """Handles SQS messages, each an S3 event notification; returns the partial batch response.

    Raises botocore's ClientError if Glue fails: then all messages return to the queue, and Lambda counts an error.
    """
    crawler = required("CRAWLER_NAME")
    failed: list[str] = []
    waiting: dict[str, datetime] = {}
    for message in event["Records"]:
        try:
            latest = latest_object(message["body"])
        except (KeyError, TypeError, ValueError) as error:
            log(FAILED, message=message["messageId"], error=f"not an S3 event: {error!r}")
            failed.append(message["messageId"])
            continue
        if latest is None:
            log(IGNORED, message=message["messageId"], crawler=crawler)
        else:
            waiting[message["messageId"]] = latest
    return partial_response(failed + (decide(crawler, waiting) if waiting else []))


def latest_object(body: str) -> datetime | None:
    """When the notification's newest delivery file was created; None if it has none.

    Raises KeyError, TypeError or ValueError if the body is not an S3 event notification.
    """
    content = json.loads(body)
    if not isinstance(content, dict):
        raise TypeError(f"a {type(content).__name__}, not an object")
    if content.get("Event") == "s3:TestEvent":  # S3 sends one when the notification is created
        return None
    prefix = os.environ.get("DELIVERY_PREFIX", "")
    times = [
        event_time(record["eventTime"])
        for record in content["Records"]
        if record["eventName"].startswith("ObjectCreated:")
        and (key := unquote_plus(record["s3"]["object"]["key"])).startswith(prefix)
        and not key.endswith("/")
    ]
    return max(times, default=None)


def decide(crawler: str, waiting: dict[str, datetime]) -> list[str]:
    """Starts the crawler if necessary; returns the ids in `waiting` (id: object's creation) that must return."""
    state = glue().get_crawler(Name=crawler)["Crawler"]
    last = state.get("LastCrawl", {})
    seen_until = last["StartTime"] - TIME_PRECISION - clock_margin() if last.get("Status") == "SUCCEEDED" else None
    unseen = [message for message, created in waiting.items() if seen_until is None or created >= seen_until]
    answered = len(waiting) - len(unseen)
    if answered:
        log(ANSWERED, crawler=crawler, messages=answered, crawl_started=last["StartTime"])
    if not unseen:
        return []
    interval = timedelta(seconds=float(os.environ.get("CRAWL_INTERVAL_SECONDS") or 0))
    if interval and last and state["State"] == "READY" and _now() < last["StartTime"] + interval:
        log(WAITING, crawler=crawler, messages=len(unseen), last_crawl_started=last["StartTime"])
        return unseen
    started = state["State"] == "READY" and _start(crawler)
    log(STARTED if started else BUSY, crawler=crawler, messages=len(unseen), state=state["State"])
    return unseen


def _now() -> datetime:
    return datetime.now(UTC)


def _start(crawler: str) -> bool:
    """Starts the crawler; False if another process has just started it."""
    try:
        glue().start_crawler(Name=crawler)
    except ClientError as error:
        if error.response["Error"]["Code"] == "CrawlerRunningException":
            return False
        log(FAILED, crawler=crawler, error=str(error))
        raise
    return True
