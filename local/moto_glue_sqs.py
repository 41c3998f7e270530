"""Changes moto's Glue, SQS and EventBridge where they differ from AWS in ways that the batch path meets.

- A crawl and a job run keep their state until `local.crawler` or `local.job_runner` sets the next one through
  `/_movement/glue/…` (see `glue_states`). Unpatched, both are complete the first time they are read.
- StartCrawler on a crawler that is STOPPING is a CrawlerRunningException. Unpatched, a second crawl starts.
- LastCrawl is the last finished crawl, with AWS's states (SUCCEEDED, CANCELLED, FAILED) and the crawl's error.
- A job run that has ended has CompletedOn, ErrorMessage and its real ExecutionTime.
- An event that a rule forwards contains its `account`.
- UpdateTable with an old VersionId is a ConcurrentModificationException.
- UpdateJob and BatchStopJobRun work.
- Long polling returns at once, because it would block the other clients of a server that handles one request at a
  time.
- The list of moto's modules is read once, not twice in each request (1.2 of 2.9 ms).
- The age of a received message is read from the message; unpatched, moto counts the queue three times for it (0.2 s a
  call at 500 messages).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from moto import backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.events.utils import EventTemplateParser
from moto.glue.exceptions import CrawlerRunningException
from moto.glue.models import FakeCrawl, FakeCrawler, FakeJobRun, glue_backends
from moto.glue.responses import GlueResponse
from moto.moto_api import state_manager
from moto.sqs.models import SQSBackend

CRAWL_PATH = "/_movement/glue/crawl"
JOB_RUN_PATH = "/_movement/glue/job-run"

# The states of a finished crawl: moto's, and AWS's in LastCrawl.
_ENDED = {"COMPLETED": "SUCCEEDED", "STOPPED": "CANCELLED", "FAILED": "FAILED"}


def apply() -> None:
    """Patches moto's classes in this process."""
    never = {"progression": "manual", "times": 1_000_000_000}
    state_manager.set_transition("glue::crawl", never)
    state_manager.set_transition("glue::job_run", never)
    FakeCrawler.start_crawler = _start_crawler
    FakeCrawler.as_dict = _crawler_as_dict(FakeCrawler.as_dict)
    FakeJobRun.as_dict = _job_run_as_dict(FakeJobRun.as_dict)
    modules = list(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: modules
    template = EventTemplateParser.DEFAULT_EVENT_INPUT_TEMPLATE
    EventTemplateParser.DEFAULT_EVENT_INPUT_TEMPLATE = template.replace("{", '{"account": "<account>", ', 1)
    GlueResponse.batch_stop_job_run = _batch_stop_job_run
    GlueResponse.update_job = _update_job
    GlueResponse.update_table = _update_table(GlueResponse.update_table)
    SQSBackend.is_message_valid_based_on_retention_period = _is_retained
    SQSBackend.receive_message = _without_waiting(SQSBackend.receive_message)


def set_state(path: str, content: dict[str, Any]) -> None:
    """Sets the state of a crawler's latest crawl or of a job run; `content` as `glue_states.set_state` sends it.

    Raises KeyError, IndexError or StopIteration if it does not exist.
    """
    backend = glue_backends[DEFAULT_ACCOUNT_ID][content["region"]]
    if path == CRAWL_PATH:
        found = backend.crawlers[content["crawler"]].crawls[-1]
    else:
        runs = backend.jobs[content["job"]].job_runs
        found = next(run for run in runs if run.job_run_id == content["run"])
    found.status = content["state"]
    found.error = content.get("error")
    if content["state"] not in ("RUNNING", "STOPPING"):
        found.end_time = found.completed_on = datetime.now(UTC).replace(tzinfo=None)


def _start_crawler(self: Any) -> None:
    if self.status != "READY":
        raise CrawlerRunningException(f"Crawler with name {self.name} has already started")
    self.crawls.append(FakeCrawl(self.name))


def _crawler_as_dict(original: Any) -> Any:
    def as_dict(self: Any) -> dict[str, Any]:
        described: dict[str, Any] = original(self)
        described.pop("LastCrawl", None)
        for crawl in reversed(self.crawls):
            if crawl.status in _ENDED:
                described["LastCrawl"] = {
                    "Status": _ENDED[crawl.status],
                    "LogGroup": crawl.log_group,
                    "LogStream": crawl.log_stream,
                    "MessagePrefix": crawl.message_prefix,
                    "StartTime": crawl.start_time,
                }
                if getattr(crawl, "error", None):
                    described["LastCrawl"]["ErrorMessage"] = crawl.error
                break
        return described

    return as_dict


def _job_run_as_dict(original: Any) -> Any:
    def as_dict(self: Any) -> dict[str, Any]:
        described: dict[str, Any] = original(self)
        ended = getattr(self, "end_time", None)
        described["ExecutionTime"] = int(
            ((ended or datetime.now(UTC).replace(tzinfo=None)) - self.started_on).total_seconds()
        )
        if ended is None:
            del described["CompletedOn"]
        if getattr(self, "error", None):
            described["ErrorMessage"] = self.error
        return described

    return as_dict


def _update_job(self: Any) -> Any:
    name, update = self.parameters["JobName"], self.parameters["JobUpdate"]
    job = self.glue_backend.get_job(name)
    job.role, job.command = update["Role"], update["Command"]
    job.default_arguments = update.get("DefaultArguments", {})
    job.execution_property = update.get("ExecutionProperty", {})
    return ActionResult({"JobName": name})


def _update_table(original: Any) -> Any:
    def update_table(self: Any) -> Any:
        expected = self.parameters.get("VersionId")
        table = self.glue_backend.get_table(self.parameters["DatabaseName"], self.parameters["TableInput"]["Name"])
        if expected is not None and expected != table.as_dict()["VersionId"]:
            raise JsonRESTError(
                "ConcurrentModificationException", "Update table failed due to concurrent modifications."
            )
        return original(self)

    return update_table


def _without_waiting(original: Any) -> Any:
    def receive_message(self: Any, queue_name: str, count: int, _wait_seconds: int, *others: Any, **named: Any) -> Any:
        return original(self, queue_name, count, 0, *others, **named)

    return receive_message


def _is_retained(self: Any, queue_name: str, message: Any) -> bool:
    retained = self.get_queue(queue_name).message_retention_period
    return bool(message.sent_timestamp / 1000 + retained > time.time())


def _batch_stop_job_run(self: Any) -> Any:
    name = self._get_param("JobName")
    stopped = []
    for identity in self._get_param("JobRunIds"):
        run = self.glue_backend.get_job_run(name, identity)
        run.status = "STOPPED"
        stopped.append({"JobName": name, "JobRunId": identity})
    return ActionResult({"SuccessfulSubmissions": stopped, "Errors": []})
