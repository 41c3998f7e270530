"""Lambda: S3 ObjectCreated events, through an SQS queue → StartCrawler. EventBridge carries on when it is done.

No trigger is lost: a message is dropped only once a crawl that began after its object was there has succeeded;
till then it goes back to the queue, the one that started the crawl included. So one crawl answers for all that
came before it, a failed crawl is started again, and what keeps failing ends in the dead-letter queue.

Environment: CRAWLER_NAME; DELIVERY_PREFIX (keys elsewhere are ignored; default: every key);
CLOCK_MARGIN_SECONDS (default 2).
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote_plus

from botocore.exceptions import ClientError

from lambdas.sqs_batch import (
    ANSWERED,
    BUSY,
    FAILED,
    IGNORED,
    STARTED,
    clock_margin,
    glue,
    log,
    moment,
    partial_response,
    required,
)

# S3 cuts an event's time to the millisecond.
TIME_PRECISION = timedelta(milliseconds=1)


def handler(event: dict[str, Any], _context: object = None) -> dict[str, list[dict[str, str]]]:
    """Decides for a batch of SQS messages, each an S3 event notification; returns the partial batch response.

    Raises botocore's ClientError where Glue refuses, so that the whole batch comes back and the error counts.
    """
    crawler = required("CRAWLER_NAME")
    failed: list[str] = []
    waiting: dict[str, datetime] = {}
    for message in event["Records"]:
        try:
            latest = latest_object(message["body"])
        except (KeyError, TypeError, ValueError) as error:
            log(FAILED, message=message["messageId"], error=f"no S3 event: {error!r}")
            failed.append(message["messageId"])
            continue
        if latest is None:
            log(IGNORED, message=message["messageId"], crawler=crawler)
        else:
            waiting[message["messageId"]] = latest
    return partial_response(failed + (decide(crawler, waiting) if waiting else []))


def latest_object(body: str) -> datetime | None:
    """When the last of the notification's objects was created; None where none of them concerns us.

    Raises KeyError, TypeError or ValueError where the body is no S3 event notification.
    """
    content = json.loads(body)
    if not isinstance(content, dict):
        raise TypeError(f"a {type(content).__name__}, not an object")
    if content.get("Event") == "s3:TestEvent":  # S3 sends it once, when the notification is set up
        return None
    prefix = os.environ.get("DELIVERY_PREFIX", "")
    times = [
        moment(record["eventTime"])
        for record in content["Records"]
        if record["eventName"].startswith("ObjectCreated:")
        and (key := unquote_plus(record["s3"]["object"]["key"])).startswith(prefix)
        and not key.endswith("/")
    ]
    return max(times, default=None)


def decide(crawler: str, waiting: dict[str, datetime]) -> list[str]:
    """Starts the crawler if need be; returns those of `waiting` (id → the object's time) that must come back."""
    state = glue().get_crawler(Name=crawler)["Crawler"]
    last = state.get("LastCrawl", {})
    seen_until = last["StartTime"] - TIME_PRECISION - clock_margin() if last.get("Status") == "SUCCEEDED" else None
    unseen = [message for message, created in waiting.items() if seen_until is None or created >= seen_until]
    answered = len(waiting) - len(unseen)
    if answered:
        log(ANSWERED, crawler=crawler, messages=answered, crawl_started=last["StartTime"])
    if not unseen:
        return []
    started = state["State"] == "READY" and _start(crawler)
    log(STARTED if started else BUSY, crawler=crawler, messages=len(unseen), state=state["State"])
    return unseen


def _start(crawler: str) -> bool:
    """Starts the crawler; False where somebody else did so since we looked."""
    try:
        glue().start_crawler(Name=crawler)
    except ClientError as error:
        if error.response["Error"]["Code"] == "CrawlerRunningException":
            return False
        log(FAILED, crawler=crawler, error=str(error))
        raise
    return True
