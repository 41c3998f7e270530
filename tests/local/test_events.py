"""S3 and EventBridge events reach the handlers as on AWS; returned messages are received again, then given up."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from jobs.settings.settings import Settings
from local import resources, server
from local.events import (
    Invocation,
    Queue,
    QueueTrigger,
    complete_s3_event,
    ensure_queue,
    notify_of_objects,
    put_glue_event,
    route_crawler_events,
)
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.aws
EXAMPLES = ROOT / "tests" / "lambdas" / "events"


def example(name: str) -> Any:
    return json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))


def shape(value: Any) -> Any:
    """Names and types, without the values."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value).__name__


class Recorder:
    """A handler that records its events and returns the given answer."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.events: list[Any] = []

    def __call__(self, event: dict[str, Any], _context: object) -> Any:
        self.events.append(event)
        return self.answer(event) if callable(self.answer) else self.answer

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(record["body"]) for event in self.events for record in event["Records"]]


def all_back(event: dict[str, Any]) -> Any:
    return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in event["Records"]]}


@pytest.fixture
def queue(aws_here: server.RunningServer, named: Callable[..., Settings]) -> Queue:
    return ensure_queue(named().stream.name, visibility_seconds=1, max_receives=3)


@pytest.fixture
def bucket(aws_here: server.RunningServer, named: Callable[..., Settings]) -> str:
    found = resources.ensure(named()).bucket
    assert found is not None
    return found


def send(queue: Queue, *bodies: str) -> None:
    for body in bodies:
        boto3.client("sqs").send_message(QueueUrl=queue.url, MessageBody=body)


def test_the_handler_receives_an_object_event_as_aws_sends_it(queue: Queue, bucket: str) -> None:
    notify_of_objects(bucket, "lake/delivery/", queue)
    key = "lake/delivery/city=São Paulo/a+b.gz"
    s3 = boto3.client("s3")
    s3.put_object(Bucket=bucket, Key=key, Body=b"12345")
    s3.put_object(Bucket=bucket, Key="lake/elsewhere/file", Body=b"")
    handler = Recorder()
    trigger = QueueTrigger(queue, handler, {})
    while trigger.poll():
        pass
    test_message, created = handler.bodies
    assert test_message["Event"] == example("s3_test_event")["Event"]
    (record,) = created["Records"]
    wanted = example("s3_object_created")["Records"][0]
    del wanted["s3"]["object"]["versionId"]  # only where the bucket is versioned
    assert shape(record) == shape(wanted)
    assert record["eventName"] == "ObjectCreated:Put"
    assert record["s3"]["object"]["key"] == "lake/delivery/city%3DS%C3%A3o+Paulo/a%2Bb.gz"
    assert record["s3"]["object"]["size"] == 5
    assert len(record["eventTime"]) == len(wanted["eventTime"])
    (message, *_) = handler.events[0]["Records"]
    assert message.keys() == example("sqs_message").keys()
    assert message["attributes"].keys() >= example("sqs_message")["attributes"].keys()
    assert message["eventSource"] == "aws:sqs"


def test_a_completed_multipart_upload_is_an_event_too(queue: Queue, bucket: str) -> None:
    notify_of_objects(bucket, "lake/", queue)
    s3 = boto3.client("s3")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="lake/big")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="lake/big", UploadId=upload, PartNumber=1, Body=b"x")
    s3.complete_multipart_upload(
        Bucket=bucket,
        Key="lake/big",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    handler = Recorder()
    trigger = QueueTrigger(queue, handler, {})
    while trigger.poll():
        pass
    # moto also sends a Put event, which is only a duplicate.
    names = {body["Records"][0]["eventName"] for body in handler.bodies[1:]}
    assert "ObjectCreated:CompleteMultipartUpload" in names


def test_the_sequencer_grows_with_time(queue: Queue, bucket: str) -> None:
    def sequencer(moment: str) -> int:
        body = example("s3_object_created")
        body["Records"][0]["eventTime"] = moment
        del body["Records"][0]["s3"]["object"]["sequencer"]
        return int(json.loads(complete_s3_event(json.dumps(body)))["Records"][0]["s3"]["object"]["sequencer"], 16)

    assert sequencer("2026-11-23T22:00:00.001Z") < sequencer("2026-11-23T22:00:00.002Z")


@pytest.mark.parametrize("body", ["", "text", "[1]", '{"Records": 1}', '{"Records": [{"eventSource": "other"}]}'])
def test_other_messages_are_delivered_as_they_are(body: str) -> None:
    assert complete_s3_event(body) == body


def test_other_notifications_of_the_bucket_stay(queue: Queue, bucket: str) -> None:
    other = ensure_queue(f"{bucket}-other")
    notify_of_objects(bucket, "lake/other/", other)
    for _ in range(2):
        notify_of_objects(bucket, "lake/delivery/", queue)
    found = boto3.client("s3").get_bucket_notification_configuration(Bucket=bucket)["QueueConfigurations"]
    assert sorted(known["QueueArn"] for known in found) == sorted([queue.arn, other.arn])


def test_the_rule_forwards_only_the_crawlers_success(queue: Queue) -> None:
    route_crawler_events("only-success", "our-crawler", queue)
    events = boto3.client("events")
    for crawler, state in (("our-crawler", "Started"), ("other", "Succeeded"), ("our-crawler", "Succeeded")):
        put_glue_event(events, "Glue Crawler State Change", {"crawlerName": crawler, "state": state})
    put_glue_event(events, "Glue Job State Change", {"crawlerName": "our-crawler", "state": "Succeeded"})
    handler = Recorder()
    QueueTrigger(queue, handler, {}).poll()
    assert [body["detail"] for body in handler.bodies] == [
        {"accountId": "123456789012", "crawlerName": "our-crawler", "state": "Succeeded"}
    ]


def test_messages_are_deleted_except_those_that_the_handler_returns(queue: Queue) -> None:
    send(queue, "good", "bad", "good")

    def bad_back(event: dict[str, Any]) -> Any:
        bad = [record for record in event["Records"] if record["body"] == "bad"]
        return all_back({"Records": bad})

    invocation = QueueTrigger(queue, Recorder(bad_back), {}).poll()
    assert invocation == Invocation(messages=3, returned=1)
    trigger = QueueTrigger(queue, Recorder(), {})
    assert trigger.waiting() == 1
    assert trigger.poll() is None  # not before the visibility timeout is over
    time.sleep(1.1)
    assert trigger.poll() == Invocation(messages=1, returned=0)
    assert trigger.waiting() == 0


def test_all_messages_return_if_the_handler_raises(queue: Queue) -> None:
    send(queue, "one", "two")

    def broken(_event: dict[str, Any], _context: object) -> Any:
        raise RuntimeError("broken today")

    assert QueueTrigger(queue, broken, {}).poll() == Invocation(2, 2, error="RuntimeError('broken today')")
    time.sleep(1.1)
    assert QueueTrigger(queue, Recorder(), {}).poll() == Invocation(2, 0)


def test_messages_that_keep_failing_go_to_the_dead_letter_queue_and_can_be_redriven(queue: Queue) -> None:
    queue = ensure_queue(queue.url.rsplit("/", 1)[-1], visibility_seconds=0, max_receives=3)
    send(queue, "poison")
    trigger = QueueTrigger(queue, Recorder(all_back), {})
    polls = 0
    while trigger.waiting():
        polls += trigger.poll() is not None
    assert polls == 3
    assert trigger.dead_letters() == 1
    assert trigger.redrive() == 1
    assert trigger.dead_letters() == 0
    assert QueueTrigger(queue, Recorder(), {}).poll() == Invocation(1, 0)


def test_a_handler_is_told_how_often_a_message_was_received(queue: Queue) -> None:
    send(queue, "again")
    handler = Recorder(all_back)
    trigger = QueueTrigger(queue, handler, {})
    trigger.poll()
    time.sleep(1.1)
    trigger.poll()
    counts = [event["Records"][0]["attributes"]["ApproximateReceiveCount"] for event in handler.events]
    assert counts == ["1", "2"]


def test_the_handlers_environment_is_its_own(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWLER_NAME", "the user's")
    send(queue, "x")
    seen = []
    handler = Recorder(lambda _event: seen.append((os.environ["CRAWLER_NAME"], os.environ["JOB_NAME"])))
    QueueTrigger(queue, handler, {"CRAWLER_NAME": "ours", "JOB_NAME": "job"}).poll()
    assert seen == [("ours", "job")]
    assert os.environ["CRAWLER_NAME"] == "the user's"
    assert "JOB_NAME" not in os.environ


def test_the_handlers_output_is_its_log(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    send(queue, "x")
    handler = Recorder(lambda _event: print('{"decision": "started"}'))  # noqa: T201
    assert QueueTrigger(queue, handler, {}).poll() == Invocation(1, 0, log=('{"decision": "started"}',))
    assert capsys.readouterr().out == ""


def test_an_ensured_queue_is_kept_with_its_messages(queue: Queue, named: Callable[..., Settings]) -> None:
    send(queue, "kept")
    again = ensure_queue(named().stream.name, visibility_seconds=1, max_receives=3)
    assert again == queue
    assert QueueTrigger(again, Recorder(), {}).poll() == Invocation(1, 0)


def test_long_polling_does_not_block_other_clients(queue: Queue) -> None:
    started = time.monotonic()
    boto3.client("sqs").receive_message(QueueUrl=queue.url, WaitTimeSeconds=10)
    assert time.monotonic() - started < 9  # it would be 10, or for ever
