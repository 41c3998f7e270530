"""Many clients, one request at a time in moto: nothing is lost and nobody waits for an idle connection."""

from __future__ import annotations

import http.client
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest

from local import server

pytestmark = pytest.mark.aws


def everything_in(kinesis: Any, stream: str) -> list[bytes]:
    found: list[bytes] = []
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while True:
            answer = kinesis.get_records(ShardIterator=iterator, Limit=10_000)
            found += [record["Data"] for record in answer["Records"]]
            iterator = answer["NextShardIterator"]
            if answer["MillisBehindLatest"] == 0 and not answer["Records"]:
                break
    return found


def test_puts_from_four_threads_lose_and_duplicate_nothing(aws_here: server.RunningServer) -> None:
    boto3.client("kinesis").create_stream(StreamName="storm", ShardCount=4)

    def put(thread: int) -> int:
        kinesis = boto3.session.Session().client("kinesis")
        failed = 0
        for start in range(0, 5_000, 500):
            records = [
                {"Data": b"%d-%d" % (thread, number), "PartitionKey": f"{thread}{number}"}
                for number in range(start, start + 500)
            ]
            failed += kinesis.put_records(StreamName="storm", Records=records)["FailedRecordCount"]
        return failed

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(put, range(4))) == 0
    expected = {b"%d-%d" % (thread, number) for thread in range(4) for number in range(5_000)}
    found = everything_in(boto3.client("kinesis"), "storm")
    assert len(found) == 20_000
    assert set(found) == expected


def test_idle_and_half_sent_connections_do_not_block_others(aws_here: server.RunningServer) -> None:
    idle = [socket.create_connection(("127.0.0.1", aws_here.port)) for _ in range(20)]
    half = socket.create_connection(("127.0.0.1", aws_here.port))
    half.sendall(b"PUT /bucket/key HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nonly this")
    started = time.monotonic()
    boto3.client("kinesis").list_streams()
    assert time.monotonic() - started < 9  # it would be 10, or for ever
    for connection in [*idle, half]:
        connection.close()


def test_a_request_whose_client_disconnects_changes_nothing(aws_here: server.RunningServer) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="left-early")
    with socket.create_connection(("127.0.0.1", aws_here.port)) as leaving:
        leaving.sendall(b"PUT /left-early/key HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nonly this")
    time.sleep(0.2)
    assert s3.list_objects_v2(Bucket="left-early")["KeyCount"] == 0


def test_clients_that_keep_their_connections_take_turns(aws_here: server.RunningServer) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="turns")

    def write_and_read(client: int) -> bool:
        own = boto3.session.Session().client("s3")
        for number in range(20):
            own.put_object(Bucket="turns", Key=f"{client}/{number}", Body=b"%d" % number)
        return all(
            own.get_object(Bucket="turns", Key=f"{client}/{number}")["Body"].read() == b"%d" % number
            for number in range(20)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write_and_read, range(8)))
    assert s3.list_objects_v2(Bucket="turns")["KeyCount"] == 160


def test_of_many_conditional_puts_of_one_key_one_wins(aws_here: server.RunningServer) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="ledger")

    def put(client: int) -> str:
        try:
            s3.put_object(Bucket="ledger", Key="entry", Body=b"%d" % client, IfNoneMatch="*")
        except s3.exceptions.ClientError as error:
            return str(error.response["Error"]["Code"])
        return "written"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(put, range(8))) == ["PreconditionFailed"] * 7 + ["written"]


def test_a_big_object_sent_after_100_continue_arrives_whole(aws_here: server.RunningServer) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="big")
    body = os.urandom(40_000_000)
    s3.put_object(Bucket="big", Key="object", Body=body)  # boto3 sends Expect: 100-continue
    assert s3.get_object(Bucket="big", Key="object")["Body"].read() == body


@pytest.mark.parametrize("transfer", ["content-length", "chunked"])
def test_the_java_sdks_aws_chunked_body_is_unwrapped(aws_here: server.RunningServer, transfer: str) -> None:
    s3 = boto3.client("s3")
    bucket = f"java-{transfer}"
    s3.create_bucket(Bucket=bucket)
    content = os.urandom(200_000)
    pieces = [content[start : start + 65_536] for start in range(0, len(content), 65_536)]
    # https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
    wrapped = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    wrapped += b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    headers = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=x/20261123/us-east-1/s3/aws4_request, SignedHeaders=host, "
        "Signature=00",
        "Content-Encoding": "aws-chunked",
        "Expect": "100-continue",
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": str(len(content)),
        "x-amz-trailer": "x-amz-checksum-crc32",
    }
    connection = http.client.HTTPConnection("127.0.0.1", aws_here.port, timeout=20)
    if transfer == "chunked":
        halves = iter([wrapped[:70_000], wrapped[70_000:]])
        connection.request("PUT", f"/{bucket}/key", body=halves, headers=headers, encode_chunked=True)
    else:
        connection.request("PUT", f"/{bucket}/key", body=wrapped, headers=headers)
    assert connection.getresponse().status == 200
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == content


def test_a_split_leaves_the_parents_records_and_puts_into_the_children(running: server.RunningServer) -> None:
    with server.aimed_at(running):
        kinesis = boto3.client("kinesis")
        kinesis.create_stream(StreamName="resharded", ShardCount=1)
        kinesis.put_record(StreamName="resharded", Data=b"before", PartitionKey="k")
        (parent,) = kinesis.list_shards(StreamName="resharded")["Shards"]
        middle = str(2**127)
        kinesis.split_shard(StreamName="resharded", ShardToSplit=parent["ShardId"], NewStartingHashKey=middle)
        kinesis.put_record(StreamName="resharded", Data=b"after", PartitionKey="k")

        def records(shard: str) -> list[bytes]:
            iterator = kinesis.get_shard_iterator(
                StreamName="resharded", ShardId=shard, ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            return [record["Data"] for record in kinesis.get_records(ShardIterator=iterator)["Records"]]

        children = [shard["ShardId"] for shard in kinesis.list_shards(StreamName="resharded")["Shards"][1:]]
        assert records(parent["ShardId"]) == [b"before"]
        assert sorted(records(children[0]) + records(children[1])) == [b"after"]


def test_a_table_is_updated_in_its_latest_version_alone(aws_here: server.RunningServer) -> None:
    glue = boto3.client("glue")
    glue.create_database(DatabaseInput={"Name": "versions"})
    glue.create_table(DatabaseName="versions", TableInput={"Name": "t"})
    seen = glue.get_table(DatabaseName="versions", Name="t")["Table"]["VersionId"]
    glue.update_table(DatabaseName="versions", TableInput={"Name": "t", "Description": "first"}, VersionId=seen)
    with pytest.raises(glue.exceptions.ConcurrentModificationException):
        glue.update_table(DatabaseName="versions", TableInput={"Name": "t", "Description": "late"}, VersionId=seen)
    assert glue.get_table(DatabaseName="versions", Name="t")["Table"]["Description"] == "first"
    glue.update_table(DatabaseName="versions", TableInput={"Name": "t", "Description": "unconditional"})
