"""The whole batch path with the real handlers: every file is read once, in any order and at any time.

These tests' job is a small script that, like `jobs/batch_job.py`, reads the delivered files that its ledger does not
name.
"""

from __future__ import annotations

import json
import random
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from jobs.common.errors import ConfigurationError, TerminalError
from jobs.settings.settings import Settings
from lambdas import crawler_trigger, gluejob_trigger
from local import batch_path, resources, server
from local.batch_path import BatchPath, BatchPathResult, ResourceNames
from local.crawler import Crawler
from local.delivery_stream import DeliveryOptions

pytestmark = pytest.mark.aws

# Speaks HTTP to the embedded AWS, which asks for no signature: importing boto3 would take most of its time.
SCRIPT = r"""
import gzip, html, json, os, pathlib, re, sys, urllib.parse, urllib.request
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder = pathlib.Path(sys.argv[0]).parent
if (folder / "broken").exists():
    sys.exit("the job is broken")
ledger = folder / "ledger.json"
done = json.loads(ledger.read_text()) if ledger.exists() else {}

def ask(path, service, body=None, **headers):
    signed = f"AWS4-HMAC-SHA256 Credential=x/20261123/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    url = os.environ["AWS_ENDPOINT_URL"] + path
    return urllib.request.urlopen(urllib.request.Request(url, body, {"Authorization": signed, **headers})).read()

wanted = json.dumps({"DatabaseName": arguments["--database"], "TableName": arguments["--table"]}).encode()
target = {"X-Amz-Target": "AWSGlue.GetPartitions", "Content-Type": "application/x-amz-json-1.1"}
for partition in json.loads(ask("/", "glue", wanted, **target))["Partitions"]:
    bucket, _, prefix = partition["StorageDescriptor"]["Location"].removeprefix("s3://").partition("/")
    listed = ask(f"/{bucket}?list-type=2&prefix={urllib.parse.quote(prefix, safe='')}", "s3").decode()
    for key in map(html.unescape, re.findall("<Key>(.*?)</Key>", listed)):
        if key not in done:
            body = ask(f"/{bucket}/{urllib.parse.quote(key)}", "s3")
            body = gzip.decompress(body) if key.endswith(".gz") else body
            done[key] = [int(n) for n in re.findall(rb'"n": (\d+)', body)]
ledger.write_text(json.dumps(done))
if (folder / "breaks-at-the-end").exists():
    (folder / "breaks-at-the-end").unlink()
    sys.exit("the job broke after its work")
"""


class Site:
    """The test's batch path, and the files that its job has read."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.s3 = boto3.client("s3")
        self.names = ResourceNames(
            *(f"{settings.stream.name}-{part}" for part in ("c", "j", "objects", "crawls", "rule"))
        )
        self.steps: list[str] = []
        self.hooks: dict[str, Callable[[], None]] = {}
        folder.mkdir()
        (folder / "job.py").write_text(SCRIPT)
        resources.ensure(settings)
        self.path = self.build()

    def build(self, **options: Any) -> BatchPath:
        path = BatchPath(
            self.settings,
            crawler_trigger.handler,
            gluejob_trigger.handler,
            str(self.folder / "job.py"),
            [sys.executable],
            names=self.names,
            options=DeliveryOptions(**options),
            on_step=self._step,
        )
        path.ensure()
        return path

    def run(self) -> BatchPathResult:
        return self.path.run(timeout_seconds=50)

    def put_records(self, numbers: range) -> None:
        records = [{"Data": json.dumps({"n": number}).encode(), "PartitionKey": str(number)} for number in numbers]
        boto3.client("kinesis").put_records(StreamName=self.settings.stream.name, Records=records)

    def put_file(self, number: int, hour: int = 0) -> None:
        bucket, prefix = resources.lake_location(self.settings.lake)
        key = f"{prefix}delivery/ingest_date=2026-11-23/hour={hour:02d}/{uuid.uuid4()}"
        self.s3.put_object(Bucket=bucket, Key=key, Body=json.dumps({"n": number}).encode())

    def once(self, step: str, do: Callable[[], None]) -> None:
        """Calls a function at the first step that contains this text."""
        self.hooks[step] = do

    def read(self) -> list[int]:
        """The records that the job has read; a record read twice is there twice."""
        ledger = self.folder / "ledger.json"
        files = json.loads(ledger.read_text()) if ledger.exists() else {}
        return sorted(number for numbers in files.values() for number in numbers)

    def messages_of(self, queue: str) -> list[str]:
        """Copies of the queue's messages; the queue keeps them."""
        sqs = boto3.client("sqs")
        url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        found: list[Any] = []
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=60).get(
            "Messages"
        ):
            found += messages
        for message in found:
            sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
        return [message["Body"] for message in found]

    def send(self, queue: str, bodies: list[str]) -> None:
        sqs = boto3.client("sqs")
        url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        for body in bodies:
            sqs.send_message(QueueUrl=url, MessageBody=body)

    def _step(self, what: str) -> None:
        self.steps.append(what)
        for step in [step for step in self.hooks if step in what]:
            self.hooks.pop(step)()


@pytest.fixture
def site(aws_here: server.RunningServer, named: Callable[..., Settings], tmp_path: Path) -> Iterator[Site]:
    found = Site(named("stream.shards=2", f"local.state_dir={tmp_path / 'state'}"), tmp_path / "job")
    yield found
    batch_path.remove(found.names)


def test_records_of_the_stream_reach_the_job_through_every_step(site: Site) -> None:
    site.put_records(range(300))
    done = site.run()
    assert site.read() == list(range(300))
    assert done.error is None
    assert [len(done.crawls), len(done.job_runs)] == [1, 1]
    assert sum(file.records for file in done.delivered) == 300
    told = " | ".join(site.steps)
    for step in ("delivered", '"started"', "crawler listed", "crawled", "RUNNING", "SUCCEEDED", '"answered"'):
        assert step in told


def test_a_second_run_reads_new_records_and_a_third_none(site: Site) -> None:
    site.put_records(range(10))
    site.run()
    site.put_records(range(10, 20))
    site.path = site.build()  # another process
    site.run()
    assert site.read() == list(range(20))
    third = site.run()
    assert (third.delivered, third.crawls, third.job_runs, third.error) == ((), (), (), None)


def test_500_files_are_read_once_by_a_few_crawls_and_runs(site: Site) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: site.put_file(number, hour=number % 24), range(500)))
    done = site.run()
    assert site.read() == list(range(500))
    assert len(done.crawls) == 1
    assert len(done.job_runs) == 1


@pytest.mark.parametrize("moment", ["crawler listed", "crawler stopping", "RUNNING"])
def test_a_file_that_arrives_during_a_step_is_read_too(site: Site, moment: str) -> None:
    site.put_file(1, hour=1)
    site.once(moment, lambda: site.put_file(2, hour=2))
    done = site.run()
    assert site.read() == [1, 2]
    assert len(done.crawls) == 2


def test_duplicated_events_out_of_order_start_nothing_more(site: Site) -> None:
    for number in range(12):
        site.put_file(number)
    doubled = site.messages_of(site.names.object_queue) * 3
    random.Random(7).shuffle(doubled)
    site.send(site.names.object_queue, doubled)

    def double_the_crawl() -> None:
        site.send(site.names.crawl_queue, site.messages_of(site.names.crawl_queue) * 3)

    site.once("crawled", double_the_crawl)
    done = site.run()
    assert Counter(site.read()) == Counter(range(12))
    assert [len(done.crawls), len(done.job_runs)] == [1, 1]


def test_a_failed_crawl_is_repeated(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = Crawler.crawl, [ValueError("S3 was away")]

    def failing_once(self: Crawler, described: dict[str, Any]) -> Any:
        if failures:
            raise failures.pop()
        return real(self, described)

    monkeypatch.setattr(Crawler, "crawl", failing_once)
    site.put_file(1)
    done = site.run()
    assert [crawl.error for crawl in done.crawls] == ["ValueError: S3 was away", None]
    assert site.read() == [1]
    assert done.error is None


def test_a_failed_job_run_is_started_again_and_reads_nothing_twice(site: Site) -> None:
    (site.folder / "breaks-at-the-end").touch()
    site.put_file(1)
    done = site.run()
    assert [run.state for run in done.job_runs] == ["FAILED", "SUCCEEDED"]
    assert site.read() == [1]
    assert done.error is None


def test_a_job_that_keeps_failing_is_given_up_with_its_reason_and_tried_again_in_the_next_run(site: Site) -> None:
    (site.folder / "broken").touch()
    site.put_file(1)
    done = site.run()
    assert [run.state for run in done.job_runs] == ["FAILED"] * 3
    assert "the job is broken" in str(done.error)
    assert str(done.job_runs[-1].log) in str(done.error)
    (site.folder / "broken").unlink()
    again = site.run()
    assert site.read() == [1]
    assert again.error is None


def test_the_next_process_finishes_the_work_of_a_killed_one(site: Site) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    site.put_records(range(5))
    for moment in ("crawler listed", "crawler stopping", "RUNNING"):
        site.once(moment, kill)
        with pytest.raises(Killed):
            site.run()
        site.path = site.build()
    site.run()
    assert site.read() == list(range(5))


def test_a_lake_that_is_a_folder_is_refused(site: Site) -> None:
    folder = site.settings.model_copy(update={"lake": "/some/folder"})
    with pytest.raises(ConfigurationError, match="batch path needs a lake on S3"):
        BatchPath(folder, crawler_trigger.handler, gluejob_trigger.handler, "job.py", ["spark-submit"])


@pytest.mark.parametrize("service", ["SQS", "GLUE"])
def test_real_aws_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch, service: str) -> None:
    monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", "https://service.us-east-1.amazonaws.com")
    with pytest.raises(TerminalError, match="refused to replace Firehose"):
        site.path.ensure()
    with pytest.raises(TerminalError, match="refused to delete anything"):
        batch_path.remove(site.names)


def test_remove_deletes_what_ensure_made(site: Site) -> None:
    for _ in range(2):
        batch_path.remove(site.names)
    glue, sqs, events = (boto3.client(service) for service in ("glue", "sqs", "events"))
    assert site.names.crawler not in glue.list_crawlers()["CrawlerNames"]
    assert site.names.job not in glue.list_jobs()["JobNames"]
    assert sqs.list_queues(QueueNamePrefix=site.names.object_queue).get("QueueUrls", []) == []
    assert events.list_rules(NamePrefix=site.names.rule)["Rules"] == []
    site.path.ensure()
