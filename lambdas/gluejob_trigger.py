"""Lambda: starts the batch path's Glue job for the crawler's `Succeeded` event.

EventBridge sends the event to an SQS queue that this function reads. A message is deleted only after a successful run
of the job that started after the crawl. Until then it returns to the queue: a busy job is started later, a failed run
is started again, and events of runs that keep failing end in the dead-letter queue. Each run's arguments contain the
id of the event that started it, so a repeated event starts nothing. The function also handles an event directly from
EventBridge; then a busy job is an error, and Lambda's asynchronous invocation retries it twice.

Environment: JOB_NAME, CRAWLER_NAME, DATABASE, DELIVERY_TABLE; CLOCK_MARGIN_SECONDS (default 2).
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from botocore.exceptions import ClientError

from lambdas.sqs_batch import (
    ANSWERED,
    BUSY,
    FAILED,
    IGNORED,
    STARTED,
    clock_margin,
    event_time,
    glue,
    log,
    partial_response,
    required,
)

# The job run's argument with the id of the event that started it.
EVENT_ARGUMENT = "--trigger_event"

# EventBridge truncates an event's time to seconds.
TIME_PRECISION = timedelta(seconds=1)

# How many of the job's runs are searched for an event, newest first.
RUNS_SEARCHED = 200

# https://docs.aws.amazon.com/glue/latest/dg/job-run-statuses.html
IN_PROGRESS = ("STARTING", "RUNNING", "STOPPING", "WAITING")


class JobBusyError(Exception):
    """The job is running and the event came without a queue; Lambda retries the function later."""


def handler(event: dict[str, Any], _context: object = None) -> dict[str, list[dict[str, str]]]:
    """Handles SQS messages, each an EventBridge event, or one event; returns the partial batch response.

    Raises botocore's ClientError if Glue fails, JobBusyError if the job is busy and there is no queue.
    """
    if "Records" not in event:
        if decide(event) == BUSY:
            raise JobBusyError(f"{required('JOB_NAME')} is running")
        return partial_response([])
    return partial_response(message["messageId"] for message in event["Records"] if not _is_done(message))


def _is_done(message: dict[str, Any]) -> bool:
    try:
        event = json.loads(message["body"])
        _check(event)
    except (KeyError, TypeError, ValueError) as error:
        log(FAILED, message=message["messageId"], error=f"not a crawler event: {error!r}")
        return False
    return decide(event) in (ANSWERED, IGNORED)


def _check(event: dict[str, Any]) -> None:
    """Raises KeyError, TypeError or ValueError if the event lacks a field that `decide` reads."""
    event_time(event["time"])
    _ = event["id"], event["source"], event["detail-type"], event["detail"]["crawlerName"], event["detail"]["state"]


def decide(event: dict[str, Any]) -> str:
    """Starts a job run for a crawler event if necessary; returns the decision, as logged."""
    job, crawler = required("JOB_NAME"), required("CRAWLER_NAME")
    detail = event["detail"]
    if (
        event["source"] != "aws.glue"
        or event["detail-type"] != "Glue Crawler State Change"
        or detail["crawlerName"] != crawler
        or detail["state"] != "Succeeded"
    ):
        return _logged(IGNORED, event, state=detail["state"], crawler=detail["crawlerName"])
    catalogued = event_time(event["time"]) + TIME_PRECISION + clock_margin()
    for run in _recent_runs(job):
        ours = run.get("Arguments", {}).get(EVENT_ARGUMENT) == event["id"]
        if run["JobRunState"] == "SUCCEEDED" and (ours or run["StartedOn"] >= catalogued):
            return _logged(ANSWERED, event, job=job, run=run["Id"])
        if ours and run["JobRunState"] in IN_PROGRESS:
            return _logged(BUSY, event, job=job, run=run["Id"])
    try:
        started = glue().start_job_run(
            JobName=job,
            Arguments={
                EVENT_ARGUMENT: event["id"],
                "--crawled_until": event["time"],
                "--database": required("DATABASE"),
                "--table": required("DELIVERY_TABLE"),
            },
        )
    except ClientError as error:
        if error.response["Error"]["Code"] == "ConcurrentRunsExceededException":
            return _logged(BUSY, event, job=job)
        _logged(FAILED, event, job=job, error=str(error))
        raise
    return _logged(STARTED, event, job=job, run=started["JobRunId"])


def _recent_runs(job: str) -> list[dict[str, Any]]:
    pages = glue().get_paginator("get_job_runs").paginate(JobName=job, PaginationConfig={"MaxItems": RUNS_SEARCHED})
    return [run for page in pages for run in page["JobRuns"]]


def _logged(decision: str, event: dict[str, Any], **fields: Any) -> str:
    log(decision, event=event["id"], time=event["time"], **fields)
    return decision
