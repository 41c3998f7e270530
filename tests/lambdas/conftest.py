"""A fake Glue client, and events from AWS's documentation."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lambdas import crawler_trigger, gluejob_trigger

EVENTS = Path(__file__).parent / "events"
NOON = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


class ScriptedGlue:
    """One crawler and one job, with boto3's answers and errors; `now` is the clock."""

    def __init__(self) -> None:
        self.now = NOON
        self.state = "READY"
        self.last_crawl: dict[str, Any] = {}
        self.crawls_started: list[datetime] = []
        self.runs: list[dict[str, Any]] = []
        self.errors: dict[str, str] = {}

    def get_crawler(self, Name: str) -> dict[str, Any]:
        self._fail("GetCrawler")
        crawler = {"Name": Name, "State": self.state}
        return {"Crawler": crawler | ({"LastCrawl": self.last_crawl} if self.last_crawl else {})}

    def start_crawler(self, Name: str) -> dict[str, Any]:
        self._fail("StartCrawler")
        if self.state != "READY":
            raise refusal("CrawlerRunningException", "StartCrawler")
        self.state = "RUNNING"
        self.crawls_started.append(self.now)
        return {}

    def crawl_ends(self, status: str = "SUCCEEDED") -> None:
        self.state = "READY"
        self.last_crawl = {"Status": status, "StartTime": self.crawls_started[-1]}

    def get_paginator(self, operation: str) -> ScriptedGlue:
        assert operation == "get_job_runs"
        return self

    def paginate(self, JobName: str, PaginationConfig: dict[str, int]) -> list[dict[str, Any]]:
        self._fail("GetJobRuns")
        newest_first = list(reversed(self.runs))[: PaginationConfig["MaxItems"]]
        return [{"JobRuns": copy.deepcopy(newest_first[at : at + 2])} for at in range(0, len(newest_first), 2)]

    def start_job_run(self, JobName: str, Arguments: dict[str, str]) -> dict[str, Any]:
        self._fail("StartJobRun")
        if any(run["JobRunState"] in ("STARTING", "RUNNING") for run in self.runs):
            raise refusal("ConcurrentRunsExceededException", "StartJobRun")
        run = {
            "Id": f"jr_{len(self.runs)}",
            "JobName": JobName,
            "StartedOn": self.now,
            "JobRunState": "STARTING",
            "Arguments": Arguments,
        }
        self.runs.append(run)
        return {"JobRunId": run["Id"]}

    def _fail(self, operation: str) -> None:
        if operation in self.errors:
            raise refusal(self.errors[operation], operation)


def refusal(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "scripted"}}, operation)


@pytest.fixture
def glue(monkeypatch: pytest.MonkeyPatch) -> ScriptedGlue:
    scripted = ScriptedGlue()
    for module in (crawler_trigger, gluejob_trigger):
        monkeypatch.setattr(module, "glue", lambda: scripted)
    monkeypatch.setattr(crawler_trigger, "_now", lambda: scripted.now)
    for name, value in {
        "CRAWLER_NAME": "delivery-crawler",
        "DELIVERY_PREFIX": "lake/delivery/",
        "JOB_NAME": "batch-job",
        "DATABASE": "uber_movement",
        "DELIVERY_TABLE": "delivery",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("CLOCK_MARGIN_SECONDS", "CRAWL_INTERVAL_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    return scripted


@pytest.fixture
def published() -> Callable[[str], Any]:
    """One of AWS's examples, by its file's name."""
    return lambda name: json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def sqs_event(published: Callable[[str], Any]) -> Callable[..., dict[str, Any]]:
    """A Lambda event of SQS messages m0, m1 … with these bodies."""

    def build(*bodies: Any) -> dict[str, Any]:
        records = []
        for number, body in enumerate(bodies):
            text = body if isinstance(body, str) else json.dumps(body)
            records.append({**published("sqs_message"), "messageId": f"m{number}", "body": text})
        return {"Records": records}

    return build


@pytest.fixture
def object_created(published: Callable[[str], Any]) -> Callable[..., dict[str, Any]]:
    """AWS's ObjectCreated example for our key, `seconds` after noon."""

    def build(seconds: float = 0, key: str = "lake/delivery/hour%3D12/file.gz", name: str = "ObjectCreated:Put") -> Any:
        event = published("s3_object_created")
        moment = NOON + timedelta(seconds=seconds)
        event["Records"][0]["eventTime"] = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
        event["Records"][0]["eventName"] = name
        event["Records"][0]["s3"]["object"]["key"] = key
        return event

    return build


@pytest.fixture
def crawl_succeeded(published: Callable[[str], Any]) -> Callable[..., dict[str, Any]]:
    """AWS's `Crawler Succeeded` example for our crawler, `seconds` after noon."""

    def build(seconds: float = 0, identity: str = "event-1", crawler: str = "delivery-crawler") -> Any:
        event = published("crawler_succeeded")
        event["id"] = identity
        event["time"] = f"{NOON + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"
        event["detail"]["crawlerName"] = crawler
        return event

    return build


@pytest.fixture
def decisions(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """The decisions logged since the last call; fails if a line is not a JSON object."""
    return lambda: [json.loads(line)["decision"] for line in capsys.readouterr().out.splitlines()]
