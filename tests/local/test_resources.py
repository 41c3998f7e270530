"""The settings' resources are created once, stay as they are, and are deleted without their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from jobs.common.errors import TerminalError
from jobs.settings.settings import Settings
from local import resources, server

pytestmark = pytest.mark.aws
Named = Callable[..., Settings]


def test_ensure_creates_stream_bucket_and_database(aws_here: server.RunningServer, named: Named) -> None:
    settings = named("stream.shards=3")
    found = resources.ensure(settings)
    assert found.created == ("stream", "bucket", "database")
    summary = boto3.client("kinesis").describe_stream_summary(StreamName=settings.stream.name)
    assert summary["StreamDescriptionSummary"]["OpenShardCount"] == 3
    assert summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"
    boto3.client("s3").head_bucket(Bucket=found.bucket)
    assert boto3.client("glue").get_database(Name=settings.database)["Database"]["Name"] == settings.database


def test_ensure_again_changes_nothing(aws_here: server.RunningServer, named: Named) -> None:
    settings = named("stream.shards=2")
    resources.ensure(settings)
    kinesis, s3 = boto3.client("kinesis"), boto3.client("s3")
    kinesis.put_record(StreamName=settings.stream.name, Data=b"kept", PartitionKey="k")
    bucket, prefix = resources.lake_location(settings.lake)
    s3.put_object(Bucket=bucket, Key=f"{prefix}kept", Body=b"kept")
    again = resources.ensure(named("stream.shards=5"))
    assert again.created == ()
    assert again.shards == 2
    assert s3.get_object(Bucket=bucket, Key=f"{prefix}kept")["Body"].read() == b"kept"


def test_a_lake_that_is_a_folder_needs_no_bucket(aws_here: server.RunningServer, named: Named, tmp_path: Path) -> None:
    settings = named(f"lake={tmp_path / 'lake'}")
    before = boto3.client("s3").list_buckets()["Buckets"]
    assert resources.ensure(settings).bucket is None
    assert boto3.client("s3").list_buckets()["Buckets"] == before
    (tmp_path / "lake").mkdir()
    resources.remove(settings)
    assert (tmp_path / "lake").exists()


def test_remove_deletes_what_ensure_made_and_its_content(aws_here: server.RunningServer, named: Named) -> None:
    settings = named()
    resources.ensure(settings)
    s3, glue = boto3.client("s3"), boto3.client("glue")
    bucket, prefix = resources.lake_location(settings.lake)
    for number in range(50):
        s3.put_object(Bucket=bucket, Key=f"{prefix}raw/{number}", Body=b"")
    glue.create_table(DatabaseName=settings.database, TableInput={"Name": "processed"})
    resources.remove(settings)
    assert settings.stream.name not in boto3.client("kinesis").list_streams()["StreamNames"]
    assert bucket not in [found["Name"] for found in s3.list_buckets()["Buckets"]]
    assert settings.database not in [found["Name"] for found in glue.get_databases()["DatabaseList"]]
    resources.remove(settings)
    assert resources.ensure(settings).created == ("stream", "bucket", "database")
    assert glue.get_tables(DatabaseName=settings.database)["TableList"] == []


def test_remove_leaves_the_lakes_neighbours(aws_here: server.RunningServer, named: Named) -> None:
    settings = named()
    resources.ensure(settings)
    s3 = boto3.client("s3")
    bucket, _ = resources.lake_location(settings.lake)
    for key in ("lake/raw/1", "lake2/raw/1", "lake.txt"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    resources.remove(settings)
    assert [found["Key"] for found in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["lake.txt", "lake2/raw/1"]


@pytest.mark.parametrize(
    "variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_KINESIS", "AWS_ENDPOINT_URL_GLUE"]
)
def test_remove_refuses_where_one_service_is_elsewhere(
    aws_here: server.RunningServer, named: Named, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    settings = named()
    resources.ensure(settings)
    with monkeypatch.context() as patch:
        patch.setenv(variable, "https://kinesis.us-east-1.amazonaws.com")
        with pytest.raises(TerminalError, match="refused to delete anything"):
            resources.remove(settings)
    assert resources.ensure(settings).created == ()


def test_remove_refuses_where_no_endpoint_is_set(
    aws_here: server.RunningServer, named: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    with pytest.raises(TerminalError, match=r"amazonaws\.com"):
        resources.remove(named())


@pytest.mark.parametrize(
    ("lake", "expected"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/a", ("bucket", "a/")),
        ("s3://bucket/a/b/", ("bucket", "a/b/")),
        ("/tmp/lake", (None, "/tmp/lake")),  # noqa: S108
    ],
)
def test_a_lake_is_a_bucket_and_a_prefix_or_a_folder(lake: str, expected: tuple[str | None, str]) -> None:
    assert resources.lake_location(lake) == expected
