"""The batch path on a laptop, connected as on AWS: delivery → S3 event → crawler → EventBridge → job.

Every step goes through the same queue, rule and Lambda handler as on AWS; delivery stream, crawler and job runner are
this package's. `movement batch` calls `ensure` once, then `run`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common import aws
from jobs.common.errors import ConfigurationError, TransientError
from jobs.settings.settings import Settings
from local.crawler import Crawler, CrawlResult
from local.delivery_stream import DeliveredFile, DeliveryOptions, DeliveryStream
from local.events import Handler, Queue, QueueTrigger, ensure_queue, notify_of_objects, route_crawler_events
from local.job_runner import JobRun, JobRunner, ensure_job
from local.resources import allowed, embedded_clients, lake_location

DELIVERY_TABLE = "delivery"
SERVICES = ("kinesis", "s3", "glue", "sqs", "events")

# Called with each step's description.
Step = Callable[[str], None]


@dataclass(frozen=True)
class ResourceNames:
    """Names of the batch path's AWS resources."""

    crawler: str = "movement-crawler"
    job: str = "movement-batch"
    object_queue: str = "movement-delivery-objects"
    crawl_queue: str = "movement-crawls"
    rule: str = "movement-crawl-succeeded"


@dataclass(frozen=True)
class BatchPathResult:
    """What one `run` did."""

    delivered: tuple[DeliveredFile, ...]
    crawls: tuple[CrawlResult, ...]
    job_runs: tuple[JobRun, ...]
    dead_letters: int
    seconds: float

    @property
    def error(self) -> str | None:
        """The last failure if messages are in the dead-letter queues, else None."""
        if not self.dead_letters:
            return None
        failures = [f"crawl: {crawl.error}" for crawl in self.crawls if crawl.error]
        failures += [f"job run: {run.error} (log: {run.log})" for run in self.job_runs if run.error]
        return (
            f"{self.dead_letters} messages in the dead-letter queues; {failures[-1] if failures else 'see the steps'}"
        )


class BatchPath:
    """The batch path of the settings' stream and lake.

    crawler_trigger, gluejob_trigger  the handlers of `lambdas`
    script                            the job's script
    submit, job_environment           the command before the script, and its environment: `job_runner.spark_submit()`
    job_arguments                     the job's default arguments; keys start with `--`

    Raises ConfigurationError if the lake is a folder, because S3 events start this path.
    """

    def __init__(
        self,
        settings: Settings,
        crawler_trigger: Handler,
        gluejob_trigger: Handler,
        script: str,
        submit: Sequence[str],
        job_arguments: dict[str, str] | None = None,
        job_environment: dict[str, str] | None = None,
        names: ResourceNames | None = None,
        options: DeliveryOptions | None = None,
        on_step: Step = lambda _what: None,
    ):
        bucket, prefix = lake_location(settings.lake)
        if bucket is None:
            raise ConfigurationError(
                f"lake: the batch path needs a lake on S3 (s3://…), not the folder {settings.lake}"
            )
        self._settings, self._bucket = settings, bucket
        self._crawler_trigger, self._gluejob_trigger = crawler_trigger, gluejob_trigger
        self._delivery_prefix = f"{prefix}{DELIVERY_TABLE}/"
        self._script, self._job_arguments = script, job_arguments or {}
        self._names = names or ResourceNames()
        self._on_step = on_step
        state = Path(settings.local.state_dir)
        self._delivery_stream = DeliveryStream(settings.stream.name, settings.lake, options)
        self._crawler = Crawler(self._names.crawler, lambda phase: on_step(f"crawler {phase}"))
        self._runner = JobRunner(
            self._names.job,
            submit,
            state / "job-runs",
            job_environment,
            lambda run, now: on_step(f"job run {run[:9]} {now}"),
        )
        self._triggers: list[QueueTrigger] = []

    def ensure(self) -> None:
        """Creates or updates the queues, the notification, the rule, the crawler and the job.

        Raises TerminalError unless every service is the embedded AWS.
        """
        names = self._names
        embedded_clients("replace Firehose, Lambda and Glue", *SERVICES)
        # Only this process receives, so a returned message may be visible again at once. A crawl is tried up to ten
        # times, a job three times.
        objects = ensure_queue(names.object_queue, visibility_seconds=0, max_receives=10)
        crawls = ensure_queue(names.crawl_queue, visibility_seconds=0, max_receives=3)
        notify_of_objects(self._bucket, self._delivery_prefix, objects)
        route_crawler_events(names.rule, names.crawler, crawls)
        target = f"s3://{self._bucket}/{self._delivery_prefix}"
        ensure_crawler(names.crawler, self._settings.database, target)
        ensure_job(names.job, self._script, self._job_arguments)
        self._runner.fail_abandoned()
        self._triggers = [self._crawl_on(objects), self._job_on(crawls)]

    def run(self, timeout_seconds: float = 1800.0) -> BatchPathResult:
        """Delivers the stream's records, then runs events, crawler and job until the queues are empty.

        Failures of an earlier run are tried again, because their messages return from the dead-letter queues. Calls
        `ensure` if nobody has. Raises TransientError after `timeout_seconds`.
        """
        started = time.monotonic()
        if not self._triggers:
            self.ensure()
        delivered = self._delivery_stream.drain()
        for file in delivered:
            self._on_step(f"delivered {file.records} records to {file.key}")
        for trigger in self._triggers:
            if moved := trigger.redrive():
                self._on_step(f"{moved} dead letters return to their queue")
        crawls: list[CrawlResult] = []
        job_runs: list[JobRun] = []
        while True:
            polled, worked = self._poll(), self._work(crawls, job_runs)
            if not polled and not worked:
                if not any(trigger.waiting() for trigger in self._triggers):
                    break
                time.sleep(0.05)  # returned messages are not visible yet
            if time.monotonic() - started > timeout_seconds:
                raise TransientError(f"the batch path did not finish within {timeout_seconds:.0f} s; run it again")
        dead = sum(trigger.dead_letters() for trigger in self._triggers)
        return BatchPathResult(tuple(delivered), tuple(crawls), tuple(job_runs), dead, time.monotonic() - started)

    def _poll(self) -> bool:
        """Receives once from each queue; True if there was a message."""
        invocations = [invocation for trigger in self._triggers if (invocation := trigger.poll()) is not None]
        for invocation in invocations:
            for line in [*invocation.log, *([invocation.error] if invocation.error else [])]:
                self._on_step(f"function: {line}")
        return bool(invocations)

    def _work(self, crawls: list[CrawlResult], job_runs: list[JobRun]) -> bool:
        crawled = self._crawler.run_pending()
        if crawled is not None:
            crawls.append(crawled)
            self._on_step(f"crawled {crawled.files} files" if not crawled.error else f"crawl failed: {crawled.error}")
        ended = self._runner.run_pending()
        job_runs += ended
        return bool(crawled or ended)

    def _crawl_on(self, objects: Queue) -> QueueTrigger:
        environment = {
            "CRAWLER_NAME": self._names.crawler,
            "DELIVERY_PREFIX": self._delivery_prefix,
            "CLOCK_MARGIN_SECONDS": "0",  # one machine, one clock
        }
        return QueueTrigger(objects, self._crawler_trigger, environment)

    def _job_on(self, crawls: Queue) -> QueueTrigger:
        environment = {
            "JOB_NAME": self._names.job,
            "CRAWLER_NAME": self._names.crawler,
            "DATABASE": self._settings.database,
            "DELIVERY_TABLE": DELIVERY_TABLE,
            "CLOCK_MARGIN_SECONDS": "0",
        }
        return QueueTrigger(crawls, self._gluejob_trigger, environment)


def ensure_crawler(name: str, database: str, target: str) -> None:
    """Creates the Glue crawler of one S3 folder; replaces one of that name with another folder or database."""
    glue = aws.client("glue")
    targets: Any = {"S3Targets": [{"Path": target}]}
    with aws.translate_aws_errors(f"create the crawler {name}"):
        with allowed("EntityNotFoundException"):
            existing = glue.get_crawler(Name=name)["Crawler"]
            if (existing["Targets"], existing["DatabaseName"]) == (targets, database):
                return
            glue.delete_crawler(Name=name)
        glue.create_crawler(
            Name=name,
            Role="arn:aws:iam::123456789012:role/embedded",
            DatabaseName=database,
            Targets=targets,
            SchemaChangePolicy={"UpdateBehavior": "UPDATE_IN_DATABASE", "DeleteBehavior": "LOG"},
            RecrawlPolicy={"RecrawlBehavior": "CRAWL_EVERYTHING"},
        )


def remove(names: ResourceNames | None = None) -> None:
    """Deletes the resources of `BatchPath.ensure` that exist.

    Raises TerminalError, before anything is deleted, unless every service is the embedded AWS.
    """
    names = names or ResourceNames()
    clients = embedded_clients("delete anything", *SERVICES)
    with aws.translate_aws_errors("delete the batch path"):
        with allowed("ResourceNotFoundException"):
            clients["events"].remove_targets(Rule=names.rule, Ids=["queue"])
            clients["events"].delete_rule(Name=names.rule)
        for queue in (names.object_queue, names.crawl_queue):
            for name in (queue, f"{queue}-dead-letters"):
                with allowed("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"):
                    clients["sqs"].delete_queue(QueueUrl=clients["sqs"].get_queue_url(QueueName=name)["QueueUrl"])
        with allowed("EntityNotFoundException"):
            clients["glue"].delete_crawler(Name=names.crawler)
        with allowed("EntityNotFoundException"):
            clients["glue"].delete_job(JobName=names.job)
