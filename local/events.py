"""Local events: S3 and EventBridge events go to SQS queues, and the queues' messages to the Lambda handlers.

moto does the first part: bucket notifications and EventBridge rules reach SQS, with visibility timeout and dead-letter
queue. It cannot run a function without Docker, so `QueueTrigger` does the second part: Lambda's event source mapping
for SQS. Fields that moto omits from an S3 event are added.
Sources: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html,
https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote_plus, unquote_plus

from jobs.common import aws

if TYPE_CHECKING:
    from types_boto3_events import EventBridgeClient
    from types_boto3_events.type_defs import PutEventsRequestEntryTypeDef
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.literals import QueueAttributeNameType

logger = logging.getLogger(__name__)

ACCOUNT = "123456789012"

Handler = Callable[[dict[str, Any], object], Any]


@dataclass(frozen=True)
class Queue:
    """An SQS queue and its dead-letter queue. `visibility_seconds`: how long a returned message stays invisible."""

    url: str
    arn: str
    dead_letter_url: str
    visibility_seconds: int


def ensure_queue(name: str, visibility_seconds: int = 2, max_receives: int = 10) -> Queue:
    """Creates or updates the queue `name` and its dead-letter queue `<name>-dead-letters`.

    A message that was received `max_receives` times without being deleted goes to the dead-letter queue.
    """
    sqs = aws.client("sqs")
    with aws.translate_aws_errors(f"create the queue {name}"):
        dead_letters = sqs.create_queue(QueueName=f"{name}-dead-letters")["QueueUrl"]
        url = sqs.create_queue(QueueName=name)["QueueUrl"]
        redrive = {"deadLetterTargetArn": _queue_arn(sqs, dead_letters), "maxReceiveCount": str(max_receives)}
        sqs.set_queue_attributes(
            QueueUrl=url,
            Attributes={"VisibilityTimeout": str(visibility_seconds), "RedrivePolicy": json.dumps(redrive)},
        )
        return Queue(url, _queue_arn(sqs, url), dead_letters, visibility_seconds)


def notify_of_objects(bucket: str, prefix: str, queue: Queue) -> None:
    """Makes S3 send an event to the queue for every object created under the prefix; other notifications stay.

    S3 also sends the queue one `s3:TestEvent`.
    """
    s3 = aws.client("s3")
    with aws.translate_aws_errors(f"set the notification of the bucket {bucket}"):
        existing: dict[str, Any] = {**s3.get_bucket_notification_configuration(Bucket=bucket)}
        existing.pop("ResponseMetadata", None)
        others = [known for known in existing.get("QueueConfigurations", []) if known["QueueArn"] != queue.arn]
        ours = {
            "Id": f"{prefix.strip('/').replace('/', '-')}-created",
            "QueueArn": queue.arn,
            "Events": ["s3:ObjectCreated:*"],
            "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}},
        }
        s3.put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration=cast(Any, {**existing, "QueueConfigurations": [*others, ours]})
        )


def route_crawler_events(rule: str, crawler: str, queue: Queue) -> None:
    """Creates an EventBridge rule that sends the crawler's `Succeeded` events to the queue."""
    events = aws.client("events")
    pattern = {
        "source": ["aws.glue"],
        "detail-type": ["Glue Crawler State Change"],
        "detail": {"crawlerName": [crawler], "state": ["Succeeded"]},
    }
    with aws.translate_aws_errors(f"create the event rule {rule}"):
        events.put_rule(Name=rule, EventPattern=json.dumps(pattern), State="ENABLED")
        events.put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": queue.arn}])


def put_glue_event(events: EventBridgeClient, detail_type: str, detail: Mapping[str, str]) -> None:
    """Sends an event as Glue does. Only the embedded AWS accepts it: AWS rejects a source that begins with `aws.`."""
    entry: PutEventsRequestEntryTypeDef = {
        "Source": "aws.glue",
        "DetailType": detail_type,
        "Detail": json.dumps({"accountId": ACCOUNT, **detail}),
    }
    answer = events.put_events(Entries=[entry])
    if answer["FailedEntryCount"]:
        raise ValueError(f"EventBridge refused {detail_type}: {answer['Entries'][0]}")


@dataclass(frozen=True)
class Invocation:
    """One call of a handler.

    messages  how many messages it received
    returned  how many of them return to the queue
    log       its lines on standard output, which go to CloudWatch Logs on AWS
    error     the exception that it raised, else None
    """

    messages: int
    returned: int
    log: tuple[str, ...] = ()
    error: str | None = None


class QueueTrigger:
    """Lambda's event source mapping: receives from `queue`, calls `handler`, deletes the messages that succeeded.

    `environment` is set during each call. Messages that the handler names in `batchItemFailures`, or all of them if it
    raised, become visible again after the visibility timeout.
    """

    def __init__(self, queue: Queue, handler: Handler, environment: Mapping[str, str], batch_size: int = 10):
        self.queue = queue
        self._handler = handler
        self._environment = environment
        self._batch_size = batch_size
        self._sqs = aws.client("sqs")

    def poll(self) -> Invocation | None:
        """Receives messages and calls the handler with them; None if no message is visible."""
        received = self._sqs.receive_message(
            QueueUrl=self.queue.url,
            MaxNumberOfMessages=self._batch_size,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        ).get("Messages", [])
        if not received:
            return None
        event = {"Records": [self._lambda_record(message) for message in received]}
        output = io.StringIO()
        try:
            with _set_in_environment(self._environment), redirect_stdout(output):
                answer = self._handler(event, None)
        except Exception as error:  # noqa: BLE001 (as Lambda: any exception returns all messages)
            logger.warning("the handler of %s raised %r", self.queue.url, error)
            return Invocation(len(received), len(received), tuple(output.getvalue().splitlines()), repr(error))
        returned = {failure["itemIdentifier"] for failure in (answer or {}).get("batchItemFailures", [])}
        done = [message for message in received if message["MessageId"] not in returned]
        if done:
            self._sqs.delete_message_batch(
                QueueUrl=self.queue.url,
                Entries=[{"Id": str(at), "ReceiptHandle": found["ReceiptHandle"]} for at, found in enumerate(done)],
            )
        return Invocation(len(received), len(received) - len(done), tuple(output.getvalue().splitlines()))

    def waiting(self) -> int:
        """Messages in the queue, including those that are invisible."""
        return self._messages_in(self.queue.url)

    def dead_letters(self) -> int:
        """Messages in the dead-letter queue."""
        return self._messages_in(self.queue.dead_letter_url)

    def redrive(self) -> int:
        """Moves the dead letters back into the queue; returns how many."""
        moved = 0
        while messages := self._sqs.receive_message(QueueUrl=self.queue.dead_letter_url, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in messages:
                self._sqs.send_message(QueueUrl=self.queue.url, MessageBody=message["Body"])
                self._sqs.delete_message(QueueUrl=self.queue.dead_letter_url, ReceiptHandle=message["ReceiptHandle"])
                moved += 1
        return moved

    def _messages_in(self, url: str) -> int:
        names: list[QueueAttributeNameType] = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def _lambda_record(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": complete_s3_event(message["Body"]),
            "attributes": message.get("Attributes", {}),
            "messageAttributes": message.get("MessageAttributes", {}),
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self.queue.arn,
            "awsRegion": self.queue.arn.split(":")[3],
        }


def complete_s3_event(body: str) -> str:
    """The body, with the fields that moto omits from an S3 notification. Other bodies stay as they are."""
    try:
        content = json.loads(body)
    except ValueError:
        return body
    if not isinstance(content, dict) or not isinstance(content.get("Records"), list):
        return body
    for record in content["Records"]:
        if record.get("eventSource") != "aws:s3":
            continue
        identity = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest().upper()
        record.setdefault("userIdentity", {"principalId": "AWS:EMBEDDED"})
        record.setdefault("requestParameters", {"sourceIPAddress": "127.0.0.1"})
        record.setdefault("responseElements", {"x-amz-request-id": identity[:16], "x-amz-id-2": identity})
        record["s3"]["bucket"].setdefault("ownerIdentity", {"principalId": "EMBEDDED"})
        # moto encodes a key's slashes as %2F; S3 does not.
        record["s3"]["object"]["key"] = quote_plus(unquote_plus(record["s3"]["object"]["key"]), safe="/")
        # A hexadecimal number that increases with each event of a key: here the time.
        sequencer = "".join(char for char in record["eventTime"] if char.isdigit())
        record["s3"]["object"].setdefault("sequencer", f"{int(sequencer):018X}")
    return json.dumps(content)


@contextmanager
def _set_in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _queue_arn(sqs: SQSClient, url: str) -> str:
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    return str(attributes["QueueArn"])
