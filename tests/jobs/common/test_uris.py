"""All spellings of one folder compare equal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.common.aws import client
from jobs.common.errors import ConfigurationError
from jobs.common.uris import checked_folder, normalize_uri
from jobs.lake.store import lake_at
from jobs.settings.settings import Settings, load_settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_an_s3_folder_has_one_spelling_and_a_normalized_one_is_unchanged() -> None:
    plain = "s3://bucket/lake/_checkpoints/stream"
    ways = [
        plain,
        plain + "/",
        plain + "//",
        "s3a" + plain[2:],
        "s3n" + plain[2:] + "/",
        "s3://bucket/lake//_checkpoints/stream",
    ]
    assert {normalize_uri(each) for each in ways} == {plain}
    assert normalize_uri("hdfs://host:8020/a/b/") == "hdfs://host:8020/a/b"


def test_a_local_folder_has_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").symlink_to(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    folder = f"{tmp_path}/here/ck"
    ways = [folder, folder + "/", "here/ck", "./here//ck", "other/ck", f"file:{folder}", f"file://{folder}/"]
    assert {normalize_uri(each) for each in ways} == {str((tmp_path / "here/ck").resolve())}


def test_jobs_compare_normalized_checkpoints_and_spark_gets_the_setting_itself() -> None:
    settings = load_settings(None, ["stream_job.checkpoint=s3a://bucket//ck/"])
    assert settings.checkpoint == "s3a://bucket/ck"
    assert settings.checkpoint_name == "s3://bucket/ck"


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("s3://bucket//a/b", "s3://bucket/a/b"),
        ("s3a://bucket/a/b//", "s3a://bucket/a/b"),
        ("s3://bucket//", "s3://bucket"),
        ("s3://bucket/...", "s3://bucket/..."),
        ("//data//lake/./x/", "/data/lake/x"),
        ("/data/x/../lake", "/data/lake"),
        ("hdfs:///a/b", "hdfs:///a/b"),
    ],
)
def test_slashes_at_the_ends_name_no_folder(given: str, folder: str) -> None:
    assert checked_folder(given) == folder
    assert checked_folder(folder) == folder


@pytest.mark.parametrize(
    ("given", "plain"),
    [("a//b", "a/b"), ("a/./b", "a/b"), ("a/../b", "b"), ("../b", "b"), ("..", ""), ("a/b/.", "a/b")],
)
@pytest.mark.parametrize("setting", ["lake", "stream_job.checkpoint", "deploy.artifacts"])
def test_a_key_that_s3_and_spark_read_differently_is_refused(setting: str, given: str, plain: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        load_settings(None, [f"{setting}=s3://bucket/{given}"])
    assert setting in str(error.value)
    assert f"Allowed: {f's3://bucket/{plain}'.rstrip('/')}" in str(error.value)


def test_a_local_lake_has_the_path_that_spark_makes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("lake/", "./x/../lake", f"/{tmp_path}//lake"):
        assert load_settings(None, [f"lake={given}"]).lake == f"{tmp_path}/lake"


@pytest.mark.spark
@pytest.mark.aws
def test_boto3_and_s3a_write_to_the_same_folder(spark: SparkSession, lake_settings: Settings) -> None:
    bucket = lake_settings.lake.split("/")[2]
    settings = load_settings(None, [f"lake=s3://{bucket}//some/lake/", f"stream_job.checkpoint=s3a://{bucket}//ck//"])
    lake_at(settings.lake).put("by-boto3/x", io.BytesIO(b"x"))
    for folder in (f"{settings.lake}/by-s3a", settings.checkpoint):
        spark.range(1, numPartitions=1).write.parquet(folder)

    keys = [item["Key"] for item in client("s3").list_objects_v2(Bucket=bucket)["Contents"]]
    folders = {key.rpartition("/")[0] for key in keys if not key.endswith("/")}
    assert folders == {"some/lake/by-boto3", "some/lake/by-s3a", "ck"}
    assert spark.read.text(f"{settings.lake}/by-boto3").collect()[0].value == "x"
