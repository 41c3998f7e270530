"""The local crawler: states, tables, partitions, LastCrawl and events as Glue's crawler has them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from jobs.settings.settings import Settings
from local import resources, server
from local.batch_path import ensure_crawler
from local.crawler import Crawler
from local.events import Queue, ensure_queue
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.aws
EXAMPLES = ROOT / "tests" / "lambdas" / "events"


@dataclass
class Site:
    """A bucket to crawl, the crawler's name and database, and a queue that receives its events."""

    bucket: str
    name: str
    database: str
    events: Queue

    def put(self, key: str, *objects: Any, separator: str = "") -> None:
        body = separator.join(json.dumps(found) for found in objects).encode()
        body = gzip.compress(body) if key.endswith(".gz") else body
        boto3.client("s3").put_object(Bucket=self.bucket, Key=f"lake/delivery/{key}", Body=body)

    def crawl(self) -> Any:
        boto3.client("glue").start_crawler(Name=self.name)
        return Crawler(self.name).run_pending()

    def described(self) -> Any:
        return boto3.client("glue").get_crawler(Name=self.name)["Crawler"]

    def table(self) -> Any:
        return boto3.client("glue").get_table(DatabaseName=self.database, Name="delivery")["Table"]

    def columns(self) -> dict[str, str]:
        return {column["Name"]: column["Type"] for column in self.table()["StorageDescriptor"]["Columns"]}

    def partitions(self) -> dict[tuple[str, ...], str]:
        pages = (
            boto3.client("glue")
            .get_paginator("get_partitions")
            .paginate(DatabaseName=self.database, TableName="delivery")
        )
        return {
            tuple(found["Values"]): found["StorageDescriptor"]["Location"]
            for page in pages
            for found in page["Partitions"]
        }

    def received(self) -> list[Any]:
        sqs = boto3.client("sqs")
        found = sqs.receive_message(QueueUrl=self.events.url, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(message["Body"]) for message in found]


@pytest.fixture
def site(aws_here: server.RunningServer, named: Callable[..., Settings]) -> Iterator[Site]:
    settings = named()
    found = resources.ensure(settings)
    assert found.bucket is not None
    ensure_crawler(found.bucket, settings.database, f"{settings.lake}/delivery/")
    queue = ensure_queue(f"{found.bucket}-events")
    events = boto3.client("events")
    pattern = {"source": ["aws.glue"], "detail": {"crawlerName": [found.bucket]}}
    events.put_rule(Name=found.bucket, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=found.bucket, Targets=[{"Id": "all", "Arn": queue.arn}])
    yield Site(found.bucket, found.bucket, settings.database, queue)
    events.remove_targets(Rule=found.bucket, Ids=["all"])
    events.delete_rule(Name=found.bucket)


def test_a_crawl_creates_the_table_and_partitions(site: Site) -> None:
    site.put("ingest_date=2026-11-22/hour=23/a.gz", {"City": "Paris", "Mean": 1}, {"City": "Paris", "Mean": 2})
    site.put("ingest_date=2026-11-23/hour=00/b.gz", {"City": None, "Mean": 2.5, "Extra": {"a": [1]}})
    done = site.crawl()
    assert done.error is None
    assert (done.files, done.tables_created, done.tables_updated, done.partitions_created) == (2, 1, 0, 2)
    assert site.columns() == {"city": "string", "mean": "double", "extra": "struct<a:array<int>>"}
    table = site.table()
    assert [key["Name"] for key in table["PartitionKeys"]] == ["ingest_date", "hour"]
    assert table["Parameters"]["classification"] == "json"
    assert table["Parameters"]["compressionType"] == "gzip"
    location = table["StorageDescriptor"]["Location"]
    assert location == f"s3://{site.bucket}/lake/delivery/"
    assert site.partitions() == {
        ("2026-11-22", "23"): f"{location}ingest_date=2026-11-22/hour=23/",
        ("2026-11-23", "00"): f"{location}ingest_date=2026-11-23/hour=00/",
    }


def test_a_second_crawl_adds_new_partitions_and_columns_and_keeps_the_others(site: Site) -> None:
    site.put("ingest_date=2026-11-22/hour=01/a", {"old": 1, "wide": 1})
    site.crawl()
    again = site.crawl()
    assert (again.tables_created, again.tables_updated, again.partitions_created) == (0, 0, 0)
    boto3.client("s3").delete_object(Bucket=site.bucket, Key="lake/delivery/ingest_date=2026-11-22/hour=01/a")
    site.put("ingest_date=2026-11-22/hour=02/b", {"new": "x", "wide": 2**40})
    third = site.crawl()
    assert (third.tables_created, third.tables_updated, third.partitions_created) == (0, 1, 1)
    assert site.columns() == {"old": "int", "wide": "bigint", "new": "string"}
    assert sorted(site.partitions()) == [("2026-11-22", "01"), ("2026-11-22", "02")]


def test_more_partitions_than_one_call_takes(site: Site) -> None:
    for number in range(130):
        site.put(f"ingest_date=2026-01-01/hour={number:03d}/a", {"n": number})
    assert site.crawl().partitions_created == 130
    assert len(site.partitions()) == 130


def test_folders_without_names_are_partition_0_and_partition_1(site: Site) -> None:
    site.put("2026/11/a", {"n": 1})
    site.crawl()
    assert [key["Name"] for key in site.table()["PartitionKeys"]] == ["partition_0", "partition_1"]
    assert list(site.partitions()) == [("2026", "11")]


def test_escaped_partition_values_are_unescaped(site: Site) -> None:
    site.put("city=S%C3%A3o a%2Fb/a", {"n": 1})
    site.crawl()
    assert list(site.partitions()) == [("São a/b",)]


def test_hidden_and_empty_files_are_ignored(site: Site) -> None:
    site.put("ingest_date=2026-11-22/a", {"n": 1})
    site.put("_temporary/b", {"hidden": 1})
    site.put("ingest_date=2026-11-22/_SUCCESS", {"hidden": 1})
    boto3.client("s3").put_object(Bucket=site.bucket, Key="lake/delivery/ingest_date=2026-11-23/", Body=b"")
    done = site.crawl()
    assert done.files == 1
    assert site.columns() == {"n": "int"}


def test_a_crawl_of_an_empty_folder_succeeds_without_a_table(site: Site) -> None:
    done = site.crawl()
    assert (done.files, done.error, done.tables_created) == (0, None, 0)
    assert boto3.client("glue").get_tables(DatabaseName=site.database)["TableList"] == []


def test_a_crawler_is_ready_then_running_then_stopping_then_ready(site: Site) -> None:
    glue = boto3.client("glue")
    site.put("ingest_date=2026-11-22/a", {"n": 1})
    assert site.described()["State"] == "READY"
    assert "LastCrawl" not in site.described()
    assert Crawler(site.name).run_pending() is None
    glue.start_crawler(Name=site.name)
    states = []

    def look(phase: str) -> None:
        states.append((phase, site.described()["State"]))
        with pytest.raises(glue.exceptions.CrawlerRunningException):
            glue.start_crawler(Name=site.name)

    assert site.described()["State"] == "RUNNING"
    Crawler(site.name, on_phase=look).run_pending()
    assert states == [("listed", "RUNNING"), ("catalogued", "RUNNING"), ("stopping", "RUNNING")]
    assert site.described()["State"] == "READY"
    assert site.described()["LastCrawl"]["Status"] == "SUCCEEDED"


def test_a_stopping_crawler_cannot_start_and_becomes_ready_without_a_crawl(site: Site) -> None:
    glue = boto3.client("glue")
    glue.start_crawler(Name=site.name)
    glue.stop_crawler(Name=site.name)
    assert site.described()["State"] == "STOPPING"
    with pytest.raises(glue.exceptions.CrawlerRunningException):
        glue.start_crawler(Name=site.name)
    assert Crawler(site.name).run_pending() is None
    assert site.described()["State"] == "READY"
    assert site.described()["LastCrawl"]["Status"] == "CANCELLED"


def test_during_a_crawl_last_crawl_is_the_previous_one(site: Site) -> None:
    site.put("ingest_date=2026-11-22/a", {"n": 1})
    site.crawl()
    first = site.described()["LastCrawl"]["StartTime"]
    boto3.client("glue").start_crawler(Name=site.name)
    assert site.described()["LastCrawl"]["StartTime"] == first
    Crawler(site.name).run_pending()
    assert site.described()["LastCrawl"]["StartTime"] > first


def test_after_a_failed_crawl_the_crawler_is_ready_and_has_the_error(site: Site) -> None:
    site.put("ingest_date=2026-11-22/hour=01/a", {"n": 1})
    site.crawl()
    boto3.client("s3").delete_object(Bucket=site.bucket, Key="lake/delivery/ingest_date=2026-11-22/hour=01/a")
    site.put("day=2026-11-22/a", {"n": 1})
    failed = site.crawl()
    assert "other partition columns" in failed.error
    described = site.described()
    assert described["State"] == "READY"
    assert described["LastCrawl"]["Status"] == "FAILED"
    assert "other partition columns" in described["LastCrawl"]["ErrorMessage"]
    failures = [event for event in site.received() if event["detail"]["state"] == "Failed"]
    assert len(failures) == 1


def test_a_gz_file_that_is_not_gzip_does_not_stop_the_crawl(site: Site) -> None:
    boto3.client("s3").put_object(Bucket=site.bucket, Key="lake/delivery/day=1/broken.gz", Body=b"not gzip at all")
    site.put("day=2/whole.gz", {"a": 1})

    crawled = site.crawl()

    assert crawled.error is None
    assert site.columns() == {"a": "int"}
    assert sorted(site.partitions()) == [("1",), ("2",)]


def test_the_events_have_the_shape_of_awss_examples(site: Site) -> None:
    site.put("ingest_date=2026-11-22/a", {"n": 1})
    site.crawl()
    boto3.client("s3").delete_object(Bucket=site.bucket, Key="lake/delivery/ingest_date=2026-11-22/a")
    site.put("day=2026-11-22/a", {"n": 1})  # other partition columns: the crawl fails
    site.crawl()
    received = {event["detail"]["state"]: event for event in site.received()}
    for state in ("Started", "Succeeded", "Failed"):
        example = json.loads((EXAMPLES / f"crawler_{state.lower()}.json").read_text(encoding="utf-8"))
        event = received[state]
        assert event.keys() == example.keys()
        assert event["detail"].keys() == example["detail"].keys()
        assert {name: type(value) for name, value in event["detail"].items()} == {
            name: type(value) for name, value in example["detail"].items()
        }
        for name in ("version", "source", "detail-type"):
            assert event[name] == example[name]
        assert event["detail"]["message"] == example["detail"]["message"]
        assert len(event["time"]) == len(example["time"])
    assert received["Succeeded"]["detail"]["partitionsCreated"] == "1"


def test_ensure_crawler_keeps_the_crawls_unless_the_folder_changes(site: Site) -> None:
    site.put("ingest_date=2026-11-22/a", {"n": 1})
    site.crawl()
    ensure_crawler(site.name, site.database, f"s3://{site.bucket}/lake/delivery/")
    assert site.described()["LastCrawl"]["Status"] == "SUCCEEDED"
    ensure_crawler(site.name, site.database, f"s3://{site.bucket}/other/delivery/")
    assert site.described()["Targets"]["S3Targets"] == [{"Path": f"s3://{site.bucket}/other/delivery/"}]
    assert "LastCrawl" not in site.described()
