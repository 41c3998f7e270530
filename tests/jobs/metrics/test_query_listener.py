"""The metrics of a streaming run: batches, planning, idle periods, failure."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobs.common.errors import MovementError
from jobs.lake.ledger import LedgerEntry
from jobs.stream.job import run
from tests.helpers.lakes import make_lake, put, record

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.aws]
_IDLE = "spark.sql.streaming.noDataProgressEventInterval"


@pytest.fixture
def often_idle(spark: SparkSession) -> Iterator[None]:
    """Spark reports an idle query after 0.2 seconds instead of 10."""
    spark.conf.set(_IDLE, "200ms")
    yield
    spark.conf.unset(_IDLE)


def metrics(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"_aws"')]


@pytest.mark.usefixtures("often_idle")
def test_batches_planning_and_idle_periods_are_published(
    spark: SparkSession, embedded_aws: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_lake(tmp_path, "observe.metrics=emf", "stream_job.trigger_seconds=0")
    put(settings, [*(record(n=number) for number in range(20)), b"not json"])
    stop, lines = threading.Event(), list[dict[str, Any]]()

    def until_published() -> None:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            lines.extend(metrics(capsys.readouterr().out))
            if any("PlanSeconds" in line for line in lines) and any(_is_idle(line) for line in lines):
                break
            time.sleep(0.1)
        stop.set()

    watcher = threading.Thread(target=until_published)
    watcher.start()
    run(lambda: spark, settings, stop=stop)
    watcher.join()

    assert all(line["Stream"] == settings.stream.name for line in lines)
    batches = [line for line in lines if "RecordsRead" in line]
    assert sum(line["RecordsRead"] for line in batches) == 21
    assert sum(line["RecordsWritten"] for line in batches) == 20
    assert sum(line["RecordsRescued"] for line in batches) == 20, "each has the unknown field `n`"
    assert [line["RecordsQuarantined"] for line in lines if line.get("Reason") == "not_json"] == [1]
    assert all(line["IteratorAgeMilliseconds"] >= 0 for line in batches)
    assert any(str(line.get("Shard", "")).startswith("shardId-") for line in lines)
    assert any("PlanSeconds" in line for line in lines)
    assert any(_is_idle(line) for line in lines)
    assert "not json" not in json.dumps(lines), "no payload"


def _is_idle(line: dict[str, Any]) -> bool:
    return "Progress" in line and "RecordsRead" not in line and line["IteratorAgeMilliseconds"] == 0


def test_too_many_rejected_records_are_in_ledger_and_metrics_and_the_job_continues(
    spark: SparkSession, embedded_aws: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_lake(tmp_path, "observe.metrics=emf", "stream_job.trigger_seconds=0")
    put(settings, [b"bad"] * 100)
    stop, final = threading.Event(), list[LedgerEntry]()

    def on_batch(entry: LedgerEntry) -> None:
        final.append(entry)
        if len(final) == 1:
            put(settings, [record()])
        else:
            stop.set()

    run(lambda: spark, settings, stop=stop, on_batch=on_batch)

    (alarm,) = final[0].alarms
    assert alarm.startswith(f"batch {final[0].query}-0: 100 of 100 records rejected (100.0%)")
    assert final[1].alarms == []
    assert [entry.report.processed for entry in final] == [0, 1]
    lines = [line for line in metrics(capsys.readouterr().out) if "RejectedShareExceeded" in line]
    assert [line["RejectedShareExceeded"] for line in lines] == [1, 0]


def test_a_failed_query_is_a_failed_batch(
    spark: SparkSession, embedded_aws: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_lake(tmp_path, "observe.metrics=emf", "sink.fail_on_max_rejected_share=true")
    put(settings, [b"bad"] * 100)
    with pytest.raises(MovementError, match="rejected"):
        run(lambda: spark, settings, until_drained=True)
    assert [line["BatchesFailed"] for line in metrics(capsys.readouterr().out) if "BatchesFailed" in line] == [1]
