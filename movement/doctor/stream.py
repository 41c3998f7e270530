"""The Kinesis stream: state, retention, key, one read, and who else reads it.

All consumers without enhanced fan-out share 2 MB/s and 5 GetRecords calls/s of each shard:
https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.common.findings import Answer, failed, passed, unknown
from movement.doctor.buckets import describe_key
from movement.doctor.checks import Account

DELIVERY_STREAMS_AT_ONCE = 50
# A single throttled read is sent again and costs nothing; a job that catches up has some.
MOST_THROTTLED = 0.01


def check_stream(account: Account) -> Answer:
    """Whether the stream exists and can be read."""
    found = account.stream
    text = f"{found['StreamARN']} is {found['StreamStatus']}, {found['OpenShardCount']} open shards"
    if found["StreamStatus"] not in ("ACTIVE", "UPDATING"):
        return failed(text, "wait until the stream is ACTIVE; if it is being deleted, stream.name names another one")
    return passed(text)


def check_retention(account: Account) -> Answer:
    """How long the job may be down without a loss."""
    hours = account.stream["RetentionPeriodHours"]
    return passed(f"{hours} h: a job that is down for longer loses records")


def check_stream_key(account: Account) -> Answer:
    """The stream's encryption."""
    found = account.stream
    if found.get("EncryptionType") != "KMS":
        return passed("not encrypted by KMS: no permission for a key is needed")
    return describe_key(account, str(found["KeyId"]))


def check_read(account: Account) -> Answer:
    """One GetRecords of one record, by the caller. It takes one of the shard's five calls in that second."""
    kinesis, arn = account.client("kinesis"), account.stream["StreamARN"]
    shards = kinesis.list_shards(StreamARN=arn, MaxResults=1)["Shards"]
    if not shards:
        return unknown("the stream has no shard")
    shard = shards[0]["ShardId"]
    iterator = kinesis.get_shard_iterator(StreamARN=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    answer = kinesis.get_records(StreamARN=arn, ShardIterator=iterator["ShardIterator"], Limit=1)
    if not answer["Records"]:
        return passed(f"{shard} answers the caller; this call brought no record")
    arrived = answer["Records"][0]["ApproximateArrivalTimestamp"].astimezone(UTC)
    return passed(f"{shard} answers the caller; its oldest record arrived {arrived:%Y-%m-%d %H:%M} UTC")


def check_consumers(account: Account) -> Answer:
    """Who else reads the stream, and whether reads were throttled in the last day.

    AWS lists Firehose, Lambda and fan-out. Other readers, such as a KCL application, show in the throttled reads only.
    """
    arn = account.stream["StreamARN"]
    fan_out = [
        each["ConsumerName"] for each in account.client("kinesis").list_stream_consumers(StreamARN=arn)["Consumers"]
    ]
    shared = [f"Firehose {name}" for name in _delivery_streams(account, arn)]
    mappings = account.client("lambda").list_event_source_mappings(EventSourceArn=arn)["EventSourceMappings"]
    shared += [f"Lambda {each['FunctionArn'].rpartition(':')[2]}" for each in mappings]
    text = f"sharing the shards' 2 MB/s: {', '.join(shared) or 'no Firehose, no Lambda'}"
    if fan_out:
        text += f"; with fan-out of their own: {', '.join(fan_out)}"
    share = _throttled_share(account)
    if share is None and shared:
        return unknown(f"{text}; CloudWatch has no metric of throttled reads yet")
    if share is None:
        return passed(text)
    text += f"; {share:.2%} of the reads were throttled in the last day"
    if share > MOST_THROTTLED:
        return failed(text, "give a consumer enhanced fan-out, add shards, or turn the batch path off (BatchPath=no)")
    return passed(text)


def _delivery_streams(account: Account, arn: str) -> list[str]:
    """The delivery streams of Firehose that read the stream."""
    firehose = account.client("firehose")
    names, more, after = list[str](), True, dict[str, Any]()
    while more:
        answer = firehose.list_delivery_streams(
            DeliveryStreamType="KinesisStreamAsSource", Limit=DELIVERY_STREAMS_AT_ONCE, **after
        )
        names += answer["DeliveryStreamNames"]
        more, after = answer["HasMoreDeliveryStreams"], {"ExclusiveStartDeliveryStreamName": "".join(names[-1:])}
    found = []
    for name in names:
        described = firehose.describe_delivery_stream(DeliveryStreamName=name)["DeliveryStreamDescription"]
        source = described.get("Source", {}).get("KinesisStreamSourceDescription", {})
        if source.get("KinesisStreamARN") == arn:
            found.append(name)
    return found


def _throttled_share(account: Account) -> float | None:
    """The share of GetRecords calls of the last day that was throttled; None without a data point.

    Each call is a sample of the metric, 1 if it was throttled:
    https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html
    """
    now = datetime.now(UTC)
    points = account.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/Kinesis",
        MetricName="ReadProvisionedThroughputExceeded",
        Dimensions=[{"Name": "StreamName", "Value": account.settings.stream.name}],
        StartTime=now - timedelta(days=1),
        EndTime=now,
        Period=3600,
        Statistics=["Sum", "SampleCount"],
    )["Datapoints"]
    calls = sum(point["SampleCount"] for point in points)
    return sum(point["Sum"] for point in points) / calls if calls else None
