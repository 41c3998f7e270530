"""The session on platforms with Spark settings and jars of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from jobs.common import spark_session as session
from jobs.settings.settings import load_settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark
SHUFFLE = "spark.sql.shuffle.partitions"
ZONE = "spark.sql.session.timeZone"
SETTINGS = load_settings(None, [f"spark.conf.{SHUFFLE}=77"])


@pytest.fixture
def restored(spark: SparkSession) -> Iterator[SparkSession]:
    before = {key: spark.conf.get(key) for key in (SHUFFLE, ZONE)}
    yield spark
    for key, value in before.items():
        spark.conf.set(key, value)


def test_spark_submits_settings_win_except_the_time_zone(
    restored: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "submitted_keys", lambda: {SHUFFLE, ZONE})
    restored.conf.set(SHUFFLE, "3")
    restored.conf.set(ZONE, "Asia/Tokyo")

    session.spark_session("tests", SETTINGS.spark.master, SETTINGS.spark.conf)

    assert (restored.conf.get(SHUFFLE), restored.conf.get(ZONE)) == ("3", "UTC")


def test_without_spark_submit_our_settings_apply(restored: SparkSession) -> None:
    session.spark_session("tests", SETTINGS.spark.master, SETTINGS.spark.conf)

    assert restored.conf.get(SHUFFLE) == "77"


def test_executors_get_the_drivers_endpoints_and_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", "https://kinesis.example")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-for-a-configuration")

    conf = session.session_conf()

    assert conf["spark.executorEnv.AWS_REGION"] == "eu-west-1"
    assert conf["spark.executorEnv.AWS_ENDPOINT_URL_KINESIS"] == "https://kinesis.example"
    assert "not-for-a-configuration" not in conf.values()


def test_after_make_setup_sparks_workers_import_the_installed_pyspark(spark: SparkSession) -> None:
    def where(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import sys

        found = sorted({str(sys.modules[name].__file__) for name in ("pyspark", "py4j")})
        yield from (pa.record_batch({"path": found}) for _ in batches)

    paths = [row.path for row in spark.range(1, numPartitions=1).mapInArrow(where, "path string").collect()]
    assert len(paths) == 2
    assert not [path for path in paths if ".zip" in path]
