"""The crawler's `Succeeded` event starts the job once with the table to read; for a busy job it returns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lambdas.gluejob_trigger import JobBusyError, handler

Build = Callable[..., Any]
Decisions = Callable[[], list[str]]
NOTHING_BACK: dict[str, list[Any]] = {"batchItemFailures": []}


def back(*messages: str) -> dict[str, list[dict[str, str]]]:
    return {"batchItemFailures": [{"itemIdentifier": message} for message in messages]}


def test_awss_own_example_starts_the_job_with_the_table_to_read(
    glue: Any, published: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = published("crawler_succeeded")
    monkeypatch.setenv("CRAWLER_NAME", event["detail"]["crawlerName"])
    assert handler(event) == NOTHING_BACK
    assert glue.runs[0]["JobName"] == "batch-job"
    assert glue.runs[0]["Arguments"] == {
        "--trigger_event": "3d675db5-59b9-6388-b8e8-e0a9b6d567a9",
        "--crawled_until": "2017-11-11T01:25:00Z",
        "--database": "uber_movement",
        "--table": "delivery",
    }


@pytest.mark.parametrize("example", ["crawler_started", "crawler_failed"])
def test_other_states_of_the_crawler_start_nothing(
    glue: Any, published: Build, decisions: Decisions, monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    event = published(example)
    monkeypatch.setenv("CRAWLER_NAME", event["detail"]["crawlerName"])
    assert handler(event) == NOTHING_BACK
    assert glue.runs == []
    assert decisions() == ["ignored"]


@pytest.mark.parametrize(
    "change", [{"source": "my.app"}, {"detail-type": "Glue Job State Change"}, {"detail": {"crawlerName": "another"}}]
)
def test_other_crawlers_and_sources_start_nothing(glue: Any, crawl_succeeded: Build, change: dict[str, Any]) -> None:
    event = crawl_succeeded()
    detail = event["detail"] | change.get("detail", {})
    handler(event | change | {"detail": detail})
    assert glue.runs == []


def test_an_event_returns_until_its_run_has_succeeded(
    glue: Any, sqs_event: Build, crawl_succeeded: Build, decisions: Decisions
) -> None:
    assert handler(sqs_event(crawl_succeeded())) == back("m0")
    glue.runs[0]["JobRunState"] = "RUNNING"
    assert handler(sqs_event(crawl_succeeded())) == back("m0")
    glue.runs[0]["JobRunState"] = "SUCCEEDED"
    assert handler(sqs_event(crawl_succeeded())) == NOTHING_BACK
    assert len(glue.runs) == 1
    assert decisions() == ["started", "busy", "answered"]


@pytest.mark.parametrize("state", ["STARTING", "RUNNING", "STOPPING", "WAITING", "SUCCEEDED"])
def test_a_repeated_event_starts_nothing(glue: Any, crawl_succeeded: Build, sqs_event: Build, state: str) -> None:
    handler(sqs_event(crawl_succeeded()))
    glue.runs[0]["JobRunState"] = state
    glue.now += timedelta(minutes=5)
    handler(sqs_event(crawl_succeeded(), crawl_succeeded()))
    assert len(glue.runs) == 1


@pytest.mark.parametrize("state", ["FAILED", "STOPPED", "TIMEOUT", "ERROR"])
def test_a_failed_run_is_started_again(glue: Any, crawl_succeeded: Build, sqs_event: Build, state: str) -> None:
    handler(sqs_event(crawl_succeeded()))
    glue.runs[0]["JobRunState"] = state
    assert handler(sqs_event(crawl_succeeded())) == back("m0")
    assert [run["JobRunState"] for run in glue.runs] == [state, "STARTING"]


def test_a_repeated_event_is_known_among_many_later_runs(glue: Any, sqs_event: Build, crawl_succeeded: Build) -> None:
    for number in range(30):
        handler(sqs_event(crawl_succeeded(number * 10, f"event-{number}")))
        glue.runs[-1]["JobRunState"] = "SUCCEEDED"
        glue.now += timedelta(seconds=10)
    handler(sqs_event(crawl_succeeded(0, "event-0")))
    assert len(glue.runs) == 30


def test_an_event_for_a_busy_job_returns_and_starts_it_later(
    glue: Any, sqs_event: Build, crawl_succeeded: Build, decisions: Decisions
) -> None:
    handler(sqs_event(crawl_succeeded(0, "event-1")))
    assert handler(sqs_event(crawl_succeeded(30, "event-2"))) == back("m0")
    glue.runs[0]["JobRunState"] = "SUCCEEDED"
    handler(sqs_event(crawl_succeeded(30, "event-2")))
    assert [run["Arguments"]["--trigger_event"] for run in glue.runs] == ["event-1", "event-2"]
    assert decisions() == ["started", "busy", "started"]


def test_only_messages_that_are_not_done_return(
    glue: Any, sqs_event: Build, crawl_succeeded: Build, published: Build, decisions: Decisions
) -> None:
    batch = sqs_event(published("crawler_failed"), crawl_succeeded(0, "event-1"), crawl_succeeded(1, "event-2"))
    assert handler(batch) == back("m1", "m2")
    assert decisions() == ["ignored", "started", "busy"]


def test_without_a_queue_a_busy_job_is_an_error_that_lambda_retries(glue: Any, crawl_succeeded: Build) -> None:
    handler(crawl_succeeded(0, "event-1"))
    with pytest.raises(JobBusyError, match="batch-job"):
        handler(crawl_succeeded(1, "event-2"))


def test_a_successful_run_that_started_after_the_crawl_completes_its_event(
    glue: Any, sqs_event: Build, crawl_succeeded: Build, decisions: Decisions
) -> None:
    handler(sqs_event(crawl_succeeded(0, "event-2")))
    glue.runs[0] |= {"JobRunState": "SUCCEEDED", "StartedOn": glue.now + timedelta(seconds=30)}
    assert handler(sqs_event(crawl_succeeded(10, "event-1"))) == NOTHING_BACK
    assert decisions() == ["started", "answered"]


def test_a_failed_run_that_started_after_the_crawl_completes_no_event(
    glue: Any, sqs_event: Build, crawl_succeeded: Build
) -> None:
    handler(sqs_event(crawl_succeeded(0, "event-2")))
    glue.runs[0] |= {"JobRunState": "FAILED", "StartedOn": glue.now + timedelta(seconds=30)}
    handler(sqs_event(crawl_succeeded(10, "event-1")))
    assert len(glue.runs) == 2


def test_a_run_that_started_in_the_events_second_does_not_count_as_later(
    glue: Any, sqs_event: Build, crawl_succeeded: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOCK_MARGIN_SECONDS", "0")
    handler(sqs_event(crawl_succeeded(-60, "event-1")))
    # The run started at 12:00:00.2, the crawl ended at 12:00:00.8, which EventBridge writes as 12:00:00.
    glue.runs[0] |= {"JobRunState": "SUCCEEDED", "StartedOn": glue.now + timedelta(seconds=0.2)}
    handler(sqs_event(crawl_succeeded(0, "event-2")))
    assert len(glue.runs) == 2


@pytest.mark.parametrize("body", ["", "no json", "[]", "{}", '{"source": "aws.glue", "detail": {}}'])
def test_an_invalid_message_returns_and_the_others_are_handled(
    glue: Any, sqs_event: Build, crawl_succeeded: Build, body: str
) -> None:
    assert handler(sqs_event(body, crawl_succeeded())) == back("m0", "m1")
    assert len(glue.runs) == 1


@pytest.mark.parametrize("operation", ["GetJobRuns", "StartJobRun"])
def test_an_error_of_glue_is_raised(glue: Any, sqs_event: Build, crawl_succeeded: Build, operation: str) -> None:
    glue.errors[operation] = "AccessDeniedException"
    with pytest.raises(ClientError, match="AccessDeniedException"):
        handler(sqs_event(crawl_succeeded()))


@pytest.mark.parametrize("name", ["JOB_NAME", "CRAWLER_NAME", "DATABASE", "DELIVERY_TABLE"])
def test_a_missing_variable_is_an_error_of_the_function_not_of_the_message(
    glue: Any, sqs_event: Build, crawl_succeeded: Build, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(RuntimeError, match=name):
        handler(sqs_event(crawl_succeeded()))
    assert glue.runs == []


def test_an_event_time_without_an_offset_is_invalid(glue: Any, sqs_event: Build, crawl_succeeded: Build) -> None:
    event = crawl_succeeded() | {"time": "2026-11-23T12:00:00"}
    assert handler(sqs_event(event)) == back("m0")
    assert glue.runs == []
