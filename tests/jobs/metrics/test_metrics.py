"""A ledger entry becomes metrics, EMF lines and calls to CloudWatch; CloudWatch's failures do not affect the job."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from jobs.common.aws import client
from jobs.common.errors import ConfigurationError
from jobs.common.logging import JsonLines
from jobs.lake.ledger import LedgerEntry
from jobs.lake.task_report import SequenceRange, TaskReport, WrittenFile
from jobs.metrics.cloudwatch import CALL_METRICS, CALL_VALUES, METRIC_VALUES, CloudWatchPublisher, requests
from jobs.metrics.emf import EmfPublisher, emf_lines
from jobs.metrics.metrics import (
    Metric,
    batch_metrics,
    failure_metrics,
    idle_metrics,
    log_fields,
    plan_metrics,
    shard_metrics,
)
from jobs.metrics.publisher import JobMetrics
from jobs.settings.sections import ObserveSettings
from jobs.settings.settings import load_settings
from local import server
from tests.helpers.paths import ROOT

MOMENT = datetime(2026, 11, 24, 1, 2, 3, 456000, tzinfo=UTC)
BATCH = LedgerEntry(
    query="abc", batch=7, stream="trips", started_at=MOMENT - timedelta(seconds=4.25), finished_at=MOMENT,
    report=TaskReport(
        read=1000, raw=1000, processed=970, quarantined=30, read_bytes=415_000, rescued=40, retries=2, throttles=1,
        reasons={"not_json": 10, "missing_field": 20},
        shards={
            "shardId-0": SequenceRange("1", "500", 500, MOMENT - timedelta(milliseconds=5200)),
            "shardId-1": SequenceRange("1", "500", 500, MOMENT - timedelta(milliseconds=7100)),
        },
        files=[WrittenFile("raw", f"raw/x/{number}.json.gz", "x", 1, 7500) for number in range(12)],
    ),
    partitions={}, seconds={"clear": 0.01, "write": 4.0, "register": 0.2}, registered=3,
)  # fmt: skip


class RecordingPublisher:
    """A publisher that keeps the metrics in a list."""

    def __init__(self) -> None:
        self.metrics: list[Metric] = []

    def publish(self, metrics: Any, at: datetime, properties: Any) -> None:
        self.metrics += metrics

    def close(self) -> None: ...

    def values(self, name: str) -> list[tuple[dict[str, str], float]]:
        return [(dict(metric.dimensions), metric.value) for metric in self.metrics if metric.name == name]


def test_the_lines_of_a_batch_equal_the_golden_file() -> None:
    found = list(
        emf_lines("MovementLake", "trips", batch_metrics(BATCH) + shard_metrics(BATCH, 2), MOMENT, {"batch": 7})
    )
    golden = Path(__file__).with_name("golden-batch.emf").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in found] == [json.loads(line) for line in golden]


def test_every_line_follows_the_format() -> None:
    for line in emf_lines(
        "MovementLake", "trips", batch_metrics(BATCH) + shard_metrics(BATCH, 2), MOMENT, {"batch": 7}
    ):
        found = json.loads(line)
        assert found["_aws"]["Timestamp"] == 1795482123456
        (directive,) = found["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "MovementLake"
        assert len(directive["Metrics"]) <= 100
        for name in (*directive["Dimensions"][0], *(metric["Name"] for metric in directive["Metrics"])):
            assert name in found, "every metric and dimension of the directive is at the root"


def test_the_documented_metrics_are_the_published_ones() -> None:
    failed = replace(BATCH, report=TaskReport(nulled={"speed.wrong_type": 2}, warned={"plate.too_long": 3}))
    groups = [
        batch_metrics(BATCH),
        batch_metrics(failed),
        shard_metrics(BATCH, 2),
        plan_metrics(1.0),
        idle_metrics(),
        failure_metrics(),
    ]
    published = {metric.name for group in groups for metric in group}
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.partition("## Alarms")[0].splitlines() if line.startswith("| `")]
    assert published == {name for row in rows for name in row.replace("`", "").split()}


def test_values_that_failed_a_check_are_counted_by_check() -> None:
    failed = replace(BATCH, report=TaskReport(nulled={"speed.wrong_type": 2}, warned={"plate.too_long": 3}))
    found = {(each.name, each.dimensions.get("Check")): each.value for each in batch_metrics(failed)}
    assert found["ValuesNulled", "speed.wrong_type"] == 2
    assert found["ValuesWarned", "plate.too_long"] == 3
    assert not any(each.name.startswith("Values") for each in batch_metrics(BATCH))


def test_a_batch_without_records_has_no_share_and_no_age() -> None:
    empty = replace(BATCH, report=TaskReport())
    names = {metric.name for metric in batch_metrics(empty)}
    assert names & {"QuarantinedShare", "IteratorAgeMilliseconds"} == set()
    assert "Progress" in names


def test_ages_by_shard_are_published_once_an_interval_and_only_for_few_shards() -> None:
    now, recorded = [100.0], RecordingPublisher()
    settings = ObserveSettings(max_shard_metrics=2)
    job_metrics = JobMetrics(settings, "trips", publisher=recorded, clock=lambda: now[0])
    for _ in range(5):
        job_metrics.batch_committed(BATCH)
        now[0] += 20
    by_shard = [dimensions for dimensions, _ in recorded.values("IteratorAgeMilliseconds") if dimensions]
    assert by_shard == [{"Shard": "shardId-0"}, {"Shard": "shardId-1"}] * 2
    assert recorded.values("IteratorAgeMilliseconds").count(({}, 7100)) == 5, "the greatest age of each batch"
    assert shard_metrics(BATCH, 1) == []


def test_an_idle_stream_counts_as_progress_and_a_failed_query_as_a_failed_batch() -> None:
    recorded = RecordingPublisher()
    job_metrics = JobMetrics(ObserveSettings(), "trips", publisher=recorded)
    job_metrics.idle()
    job_metrics.failed(ValueError("secret payload"))
    assert recorded.values("Progress") == [({}, 1)]
    assert recorded.values("BatchesFailed") == [({}, 1)]


def test_a_closed_standard_output_loses_only_the_metrics(caplog: pytest.LogCaptureFixture) -> None:
    out = io.StringIO()
    out.close()
    publisher = EmfPublisher("MovementLake", "trips", out)
    publisher.publish(idle_metrics(), MOMENT, {})
    publisher.publish(idle_metrics(), MOMENT, {})
    assert publisher.dropped == 4
    assert len(caplog.records) == 1, "logged once"


def test_a_log_line_is_one_object_with_the_batchs_figures_and_no_record() -> None:
    record = logging.LogRecord("jobs", logging.INFO, "f", 1, "batch %s", ("abc-7",), None)
    record.fields = log_fields(BATCH)
    text = JsonLines().format(record)
    assert "\n" not in text
    found = json.loads(text)
    assert (found["message"], found["event"], found["read"], found["age_ms"]) == ("batch abc-7", "batch", 1000, 7100)
    assert found["reasons"] == {"not_json": 10, "missing_field": 20}


def test_every_log_line_is_json_if_the_settings_say_so() -> None:
    program = (
        "import logging; from jobs.common.logging import log_to_stderr;"
        "log_to_stderr(); logging.info('before'); log_to_stderr('json'); logging.info('é\\nafter')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    text, line = done.stderr.splitlines()
    assert text.endswith("INFO root: before")
    assert json.loads(line)["message"] == "é\nafter"


def test_values_of_one_minute_are_merged_into_one_datum() -> None:
    minute = MOMENT.replace(second=0, microsecond=0)
    taken = [(Metric("RecordsRead", "Count", value), minute) for value in (5, 5, 7)]
    ((number, (datum,)),) = requests("trips", taken)
    assert number == 3
    assert dict(zip(datum["Values"], datum["Counts"], strict=True)) == {5.0: 2.0, 7.0: 1.0}
    assert datum["Dimensions"] == [{"Name": "Stream", "Value": "trips"}]


def test_no_call_exceeds_cloudwatchs_limits() -> None:
    minute = MOMENT.replace(second=0, microsecond=0)
    taken = [
        (Metric("Age", "Milliseconds", value, {"Shard": str(shard)}), minute)
        for shard in range(700)
        for value in range(160 if shard < 100 else 1)
    ]
    calls = list(requests("trips", taken))
    assert sum(number for number, _ in calls) == len(taken)
    for _, data in calls:
        assert len(data) <= CALL_METRICS
        assert sum(len(datum["Values"]) for datum in data) <= CALL_VALUES
        assert max(len(datum["Values"]) for datum in data) <= METRIC_VALUES
        assert len(json.dumps(data, default=str)) < 1_000_000


class Failing:
    """A CloudWatch that refuses, or hangs until `free` is set."""

    def __init__(self, free: threading.Event | None = None) -> None:
        self.calls = 0
        self._free = free

    def put_metric_data(self, **_: Any) -> None:
        self.calls += 1
        if self._free is not None:
            self._free.wait(30)
        raise RuntimeError("Rate exceeded")


def test_a_failing_cloudwatch_is_logged_once_and_the_loss_counted(caplog: pytest.LogCaptureFixture) -> None:
    failing = Failing()
    publisher = CloudWatchPublisher("MovementLake", "trips", 0.01, make_client=lambda: failing)
    while failing.calls < 3:
        publisher.publish(idle_metrics(), MOMENT, {})
        time.sleep(0.005)
    publisher.close()
    assert publisher.sent == 0
    assert publisher.dropped >= 6
    assert sum("do not reach CloudWatch" in record.message for record in caplog.records) == 1


def test_a_hanging_cloudwatch_delays_nothing_and_memory_stays_bounded() -> None:
    free = threading.Event()
    hanging = Failing(free)
    publisher = CloudWatchPublisher(
        "MovementLake", "trips", 0.001, make_client=lambda: hanging, max_queued=100, close_seconds=0.05
    )
    publisher.publish(idle_metrics(), MOMENT, {})
    while not hanging.calls:
        time.sleep(0.001)
    for _ in range(500):
        publisher.publish(idle_metrics(), MOMENT, {})
    assert publisher.queued == 100
    assert publisher.dropped == 900
    publisher.close()  # returns although the call hangs
    free.set()


def test_a_client_that_cannot_be_created_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Any:
        raise ConfigurationError("no AWS region")

    publisher = CloudWatchPublisher("MovementLake", "trips", 60, make_client=make)
    publisher.publish(idle_metrics(), MOMENT, {})
    publisher.close()
    assert publisher.dropped == 2
    assert "no AWS region" in caplog.text


@pytest.mark.aws
def test_metrics_arrive_in_cloudwatch(embedded_aws: server.RunningServer) -> None:
    now = datetime.now(UTC)
    settings = load_settings(None, ["observe.metrics=cloudwatch", "observe.namespace=Test/Metrics"]).observe
    with JobMetrics(settings, "trips") as job_metrics:
        job_metrics.batch_committed(replace(BATCH, finished_at=now))
        job_metrics.batch_committed(replace(BATCH, finished_at=now, report=replace(BATCH.report, read=500)))
    found = client("cloudwatch").get_metric_statistics(
        Namespace="Test/Metrics",
        MetricName="RecordsRead",
        Dimensions=[{"Name": "Stream", "Value": "trips"}],
        StartTime=now - timedelta(minutes=5),
        EndTime=now + timedelta(minutes=5),
        Period=60,
        Statistics=["Sum", "Maximum"],
    )["Datapoints"]
    assert [(point["Sum"], point["Maximum"]) for point in found] == [(1500.0, 1000.0)]


@pytest.fixture(autouse=True)
def _no_thread_remains() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while any(thread.name == "cloudwatch" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "a publisher's thread is still running"
        time.sleep(0.01)


@pytest.mark.parametrize("namespace", ["AWS/Mine", "", "a b"])
def test_an_invalid_namespace_is_refused_before_the_job_starts(namespace: str) -> None:
    with pytest.raises(ConfigurationError, match=r"observe\.namespace"):
        load_settings(None, [f"observe.namespace='{namespace}'"])
