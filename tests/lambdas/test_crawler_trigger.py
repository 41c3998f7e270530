"""S3 events start the crawler once; each message stays until a crawl that started after it has succeeded."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lambdas.crawler_trigger import handler

Build = Callable[..., Any]
Decisions = Callable[[], list[str]]
NOTHING_BACK: dict[str, list[Any]] = {"batchItemFailures": []}


def back(*messages: str) -> dict[str, list[dict[str, str]]]:
    return {"batchItemFailures": [{"itemIdentifier": message} for message in messages]}


def test_awss_own_example_starts_the_crawler(
    glue: Any, published: Build, sqs_event: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DELIVERY_PREFIX")
    handler(sqs_event(published("s3_object_created")))
    assert len(glue.crawls_started) == 1


def test_one_crawl_completes_all_messages(
    glue: Any, sqs_event: Build, object_created: Build, decisions: Decisions
) -> None:
    batch = sqs_event(*(object_created(second) for second in range(3)))
    glue.now += timedelta(seconds=10)
    assert handler(batch) == back("m0", "m1", "m2")
    glue.crawl_ends()
    assert handler(batch) == NOTHING_BACK
    assert len(glue.crawls_started) == 1
    assert decisions() == ["started", "answered"]


def test_the_message_of_a_failed_crawl_starts_another_crawl(
    glue: Any, sqs_event: Build, object_created: Build, decisions: Decisions
) -> None:
    for status in ("FAILED", "SUCCEEDED"):
        glue.now += timedelta(seconds=10)
        assert handler(sqs_event(object_created())) == back("m0")
        glue.crawl_ends(status)
    assert handler(sqs_event(object_created())) == NOTHING_BACK
    assert len(glue.crawls_started) == 2


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED"])
def test_two_crawls_start_at_least_the_interval_apart(
    glue: Any,
    sqs_event: Build,
    object_created: Build,
    decisions: Decisions,
    status: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CRAWL_INTERVAL_SECONDS", "3600")
    later = sqs_event(object_created(60))
    for minutes in (0, 55, 5):  # a file every minute would otherwise start a crawl each time
        glue.now += timedelta(minutes=minutes)
        assert handler(later) == back("m0")
        if glue.state == "RUNNING":
            glue.crawl_ends(status)

    assert [f"{start:%H:%M}" for start in glue.crawls_started] == ["12:00", "13:00"]
    assert decisions() == ["started", "waiting", "started"]


@pytest.mark.parametrize("state", ["RUNNING", "STOPPING"])
def test_while_the_crawler_is_busy_every_message_returns(
    glue: Any, sqs_event: Build, object_created: Build, decisions: Decisions, state: str
) -> None:
    glue.state = state
    assert handler(sqs_event(object_created(), object_created())) == back("m0", "m1")
    assert decisions() == ["busy"]


def test_a_crawler_that_another_process_just_started_is_busy(
    glue: Any, sqs_event: Build, object_created: Build
) -> None:
    glue.errors["StartCrawler"] = "CrawlerRunningException"
    assert handler(sqs_event(object_created())) == back("m0")


def test_a_successful_crawl_that_started_after_the_object_completes_its_message(
    glue: Any, sqs_event: Build, object_created: Build, decisions: Decisions
) -> None:
    glue.last_crawl = {"Status": "SUCCEEDED", "StartTime": glue.now + timedelta(seconds=10)}
    assert handler(sqs_event(object_created(5))) == NOTHING_BACK
    assert glue.crawls_started == []
    assert decisions() == ["answered"]


@pytest.mark.parametrize("status", ["FAILED", "CANCELLED"])
def test_a_crawl_without_success_completes_no_message(
    glue: Any, sqs_event: Build, object_created: Build, status: str
) -> None:
    glue.last_crawl = {"Status": status, "StartTime": glue.now + timedelta(seconds=10)}
    assert handler(sqs_event(object_created(5))) == back("m0")
    assert len(glue.crawls_started) == 1


def test_an_object_of_the_last_second_of_a_crawl_starts_another(
    glue: Any, sqs_event: Build, object_created: Build
) -> None:
    handler(sqs_event(object_created(0)))
    assert handler(sqs_event(object_created(59))) == back("m0")
    glue.crawl_ends()
    glue.now += timedelta(seconds=65)
    assert handler(sqs_event(object_created(59))) == back("m0")
    assert len(glue.crawls_started) == 2
    glue.crawl_ends()
    assert handler(sqs_event(object_created(59))) == NOTHING_BACK


def test_old_messages_are_deleted_and_new_ones_start_a_crawl(
    glue: Any, sqs_event: Build, object_created: Build, decisions: Decisions
) -> None:
    glue.last_crawl = {"Status": "SUCCEEDED", "StartTime": glue.now + timedelta(seconds=10)}
    assert handler(sqs_event(object_created(5), object_created(20))) == back("m1")
    assert len(glue.crawls_started) == 1
    assert decisions() == ["answered", "started"]


def test_during_a_crawl_only_messages_that_no_earlier_crawl_completed_return(
    glue: Any, sqs_event: Build, object_created: Build
) -> None:
    glue.last_crawl = {"Status": "SUCCEEDED", "StartTime": glue.now + timedelta(seconds=10)}
    glue.state = "RUNNING"
    assert handler(sqs_event(object_created(5), object_created(20))) == back("m1")


@pytest.mark.parametrize(("margin", "crawls"), [("2", 1), ("0", 0)])
def test_clocks_may_differ_by_the_margin(
    glue: Any, sqs_event: Build, object_created: Build, monkeypatch: pytest.MonkeyPatch, margin: str, crawls: int
) -> None:
    monkeypatch.setenv("CLOCK_MARGIN_SECONDS", margin)
    glue.last_crawl = {"Status": "SUCCEEDED", "StartTime": glue.now + timedelta(seconds=1.5)}
    handler(sqs_event(object_created(0.5)))
    assert len(glue.crawls_started) == crawls


def test_an_object_of_the_millisecond_of_the_crawls_start_counts_as_unseen(
    glue: Any, sqs_event: Build, object_created: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOCK_MARGIN_SECONDS", "0")
    glue.last_crawl = {"Status": "SUCCEEDED", "StartTime": glue.now + timedelta(microseconds=500)}
    handler(sqs_event(object_created(0.0009)))  # S3 says .000
    assert len(glue.crawls_started) == 1


def test_a_notification_of_several_objects_counts_as_its_last(
    glue: Any, sqs_event: Build, object_created: Build
) -> None:
    glue.last_crawl = {"Status": "SUCCEEDED", "StartTime": glue.now + timedelta(seconds=10)}
    both = {"Records": [*object_created(20)["Records"], *object_created(5)["Records"]]}
    handler(sqs_event(both))
    assert len(glue.crawls_started) == 1


def test_messages_for_others_are_deleted_without_a_call_to_glue(
    glue: Any, sqs_event: Build, object_created: Build, published: Build, decisions: Decisions
) -> None:
    glue.errors["GetCrawler"] = "must not be asked"
    others = [
        published("s3_test_event"),
        object_created(key="lake/delivery-errors/file.gz"),
        object_created(key="lake/delivery/hour%3D12/"),
        object_created(name="ObjectRemoved:Delete"),
    ]
    assert handler(sqs_event(*others)) == NOTHING_BACK
    assert decisions() == ["ignored"] * 4


def test_a_url_encoded_key_is_decoded(glue: Any, sqs_event: Build, object_created: Build) -> None:
    handler(sqs_event(object_created(key="lake%2Fdelivery/city%3DS%C3%A3o+Paulo/file.gz")))
    assert len(glue.crawls_started) == 1


@pytest.mark.parametrize("body", ["", "no json", "[]", "{}", '{"Records": [{}]}', '{"Records": 5}'])
def test_an_invalid_message_returns_and_the_others_are_handled(
    glue: Any, sqs_event: Build, object_created: Build, decisions: Decisions, body: str
) -> None:
    glue.last_crawl = {"Status": "SUCCEEDED", "StartTime": glue.now + timedelta(seconds=10)}
    assert handler(sqs_event(object_created(), body)) == back("m1")
    assert sorted(decisions()) == ["answered", "failed"]


@pytest.mark.parametrize("operation", ["GetCrawler", "StartCrawler"])
def test_an_error_of_glue_is_raised_so_that_all_messages_return(
    glue: Any, sqs_event: Build, object_created: Build, operation: str
) -> None:
    glue.errors[operation] = "AccessDeniedException"
    with pytest.raises(ClientError, match="AccessDeniedException"):
        handler(sqs_event(object_created()))


def test_the_error_names_the_missing_variable(glue: Any, sqs_event: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRAWLER_NAME")
    with pytest.raises(RuntimeError, match="CRAWLER_NAME"):
        handler(sqs_event())


def test_the_log_line_names_crawler_and_messages(
    glue: Any, sqs_event: Build, object_created: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    handler(sqs_event(object_created()))
    assert json.loads(capsys.readouterr().out) == {
        "decision": "started",
        "crawler": "delivery-crawler",
        "messages": 1,
        "state": "READY",
    }
