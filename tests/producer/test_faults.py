"""Throttles, partial failures, resets and outages: every record reported as accepted is on the stream."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.common.errors import AwsAccessError, TransientError
from jobs.settings.settings import load_settings
from producer.produce import ProduceResult, produce
from producer.sample import write_sample
from tests.helpers.faulty_kinesis import Fail, FaultyKinesis, Hang, Reset, Status

pytestmark = pytest.mark.aws

ROWS = 4000


def run(
    kinesis: FaultyKinesis, folder: Path, environment: pytest.MonkeyPatch, *overrides: str, rows: int = ROWS
) -> ProduceResult:
    environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
    write_sample(rows, folder, cities=1)
    settings = load_settings(None, ["stream.name=stream", "producer.request_timeout_seconds=0.5", *overrides])
    return produce([folder], settings)


def occurrences(kinesis: FaultyKinesis) -> Counter[bytes]:
    return Counter(data for _, data in kinesis.accepted)


def assert_order_of_keys(kinesis: FaultyKinesis, clean: FaultyKinesis) -> None:
    def by_key(source: FaultyKinesis) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for key, data in source.accepted:
            of_key = found.setdefault(key, [])
            if data not in of_key:
                of_key.append(data)
        return found

    assert by_key(kinesis) == by_key(clean)


@pytest.fixture
def clean(tmp_path: Path, aws_environment: pytest.MonkeyPatch) -> FaultyKinesis:
    """The stream after a run without faults."""
    with FaultyKinesis() as kinesis:
        run(kinesis, tmp_path, aws_environment, "producer.max_in_flight=1")
        assert len(occurrences(kinesis)) == ROWS
        return kinesis


def test_failed_records_are_retried_while_the_pipe_is_silent(
    tmp_path: Path, aws_environment: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sample(1200, tmp_path, cities=1)
    content = next(tmp_path.glob("*.csv")).read_bytes()
    # The second record of a key waits for the first.
    content += content.splitlines(keepends=True)[1]
    reading, writing = os.pipe()
    with (
        FaultyKinesis(lambda n: Fail(lambda index: index < 5) if n < 3 else None) as kinesis,
        open(reading, "rb") as pipe,
    ):
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=pipe))
        writer = threading.Thread(target=os.write, args=(writing, content))
        writer.start()
        started = time.monotonic()
        # The pipe stays open, so only `stop` ends the run.
        enough = lambda: len(kinesis.accepted) == 1201 or time.monotonic() > started + 20  # noqa: E731
        result = produce(["-"], load_settings(None, ["stream.name=stream"]), fields={"City": "Paris"}, stop=enough)
        writer.join()
        os.close(writing)
    assert (result.produced, result.stopped) == (1201, True)
    assert result.counts.retried >= 5


Faults = Callable[[int], Any]

FAULTS: dict[str, Faults] = {
    "throttled-requests": lambda n: Status(400, "ProvisionedThroughputExceededException") if n in (1, 2, 6) else None,
    "throttled-records": lambda n: Fail(lambda index: index % 7 == n % 7) if n in (1, 3, 4, 7) else None,
    "internal-failures-of-records": lambda n: Fail(lambda index: index % 2 == 0, "InternalFailure") if n < 9 else None,
    "all-records-throttled": lambda n: Fail(lambda _index: True) if n in (2, 5) else None,
    "service-unavailable": lambda n: Status(503, "ServiceUnavailable") if n % 3 == 1 else None,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("max_in_flight", [1, 4])
def test_failed_records_are_accepted_once_each_and_in_order(
    fault: Faults, max_in_flight: int, tmp_path: Path, aws_environment: pytest.MonkeyPatch, clean: FaultyKinesis
) -> None:
    with FaultyKinesis(fault, delay=0.02) as kinesis:
        result = run(kinesis, tmp_path, aws_environment, f"producer.max_in_flight={max_in_flight}")
    assert occurrences(kinesis) == occurrences(clean)
    assert result.produced == ROWS
    assert result.counts.retried > 0
    assert kinesis.overlaps == 0, "a key was in two open requests"
    assert_order_of_keys(kinesis, clean)


UNKNOWN: dict[str, Faults] = {
    "reset-after-accepting": lambda n: Reset(after=True) if n % 4 == 1 else None,
    "reset-before-accepting": lambda n: Reset(after=False) if n % 4 == 1 else None,
    "no-answer": lambda n: Hang() if n == 2 else None,
    "error-after-accepting": lambda n: Status(500, "InternalFailure", after=True) if n % 4 == 1 else None,
}


@pytest.mark.parametrize("fault", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_an_unknown_outcome_loses_nothing_and_counts_possible_duplicates(
    fault: Faults, tmp_path: Path, aws_environment: pytest.MonkeyPatch, clean: FaultyKinesis
) -> None:
    with FaultyKinesis(fault) as kinesis:
        result = run(kinesis, tmp_path, aws_environment)
        on_stream = occurrences(kinesis)
    assert set(on_stream) == set(occurrences(clean))
    duplicates = sum(on_stream.values()) - len(on_stream)
    assert duplicates <= result.counts.possible_duplicates
    assert result.counts.possible_duplicates > 0
    assert result.produced == ROWS
    assert_order_of_keys(kinesis, clean)


def test_all_faults_in_random_order_lose_nothing(
    tmp_path: Path, aws_environment: pytest.MonkeyPatch, clean: FaultyKinesis
) -> None:
    chance = random.Random(7)
    kinds: list[Callable[[], Any]] = [
        lambda: Status(400, "ProvisionedThroughputExceededException"),
        lambda: Fail(lambda index: index % 3 == 0),
        lambda: Reset(after=True),
        lambda: Reset(after=False),
        lambda: Status(500, "InternalFailure"),
    ]
    faults = [chance.choice(kinds)() for _ in range(20)]
    with FaultyKinesis(lambda n: faults[n] if n < 20 else None, delay=0.01) as kinesis:
        result = run(kinesis, tmp_path, aws_environment)
        on_stream = occurrences(kinesis)
    assert set(on_stream) == set(occurrences(clean))
    assert sum(on_stream.values()) - len(on_stream) <= result.counts.possible_duplicates
    assert_order_of_keys(kinesis, clean)


def test_an_outage_of_five_seconds_loses_nothing(tmp_path: Path, aws_environment: pytest.MonkeyPatch) -> None:
    kinesis = FaultyKinesis(delay=0.05)
    kinesis.start()

    def stop_for_five_seconds() -> None:
        while len(kinesis.requests) < 4:
            time.sleep(0.01)
        kinesis.stop()
        time.sleep(5)
        kinesis.start()

    outage = threading.Thread(target=stop_for_five_seconds)
    outage.start()
    try:
        result = run(kinesis, tmp_path, aws_environment)
    finally:
        outage.join()
        kinesis.stop()
    on_stream = occurrences(kinesis)
    assert len(on_stream) == result.produced == ROWS
    assert sum(on_stream.values()) - ROWS <= result.counts.possible_duplicates
    assert result.seconds >= 5


def test_a_throttling_shard_slows_the_sender_down(tmp_path: Path, aws_environment: pytest.MonkeyPatch) -> None:
    with FaultyKinesis(shards=2, records_per_second=400) as kinesis:
        result = run(kinesis, tmp_path, aws_environment, rows=3000)
    # 2 shards × 400/s, with a burst of one second each: at least 2.75 s.
    assert result.produced == 3000
    assert result.seconds < 60  # the rate recovers
    assert kinesis.refused == result.counts.throttled < 1500


def test_a_run_without_success_times_out_with_the_last_error(
    tmp_path: Path, aws_environment: pytest.MonkeyPatch
) -> None:
    always = FaultyKinesis(lambda _n: Status(400, "ProvisionedThroughputExceededException"))
    message = r"nothing was accepted for 1 s.*ProvisionedThroughput"
    with always as kinesis, pytest.raises(TransientError, match=message):
        run(kinesis, tmp_path, aws_environment, "producer.delivery_timeout_seconds=1")


def test_a_run_without_an_endpoint_fails_at_its_start(tmp_path: Path, aws_environment: pytest.MonkeyPatch) -> None:
    kinesis = FaultyKinesis()
    kinesis.start()
    kinesis.stop()
    with pytest.raises(TransientError, match="describe stream 'stream'"):
        run(kinesis, tmp_path, aws_environment, "producer.delivery_timeout_seconds=1")


@pytest.mark.parametrize("code", ["AccessDeniedException", "ValidationException"])
def test_an_error_that_a_retry_cannot_change_ends_the_run_at_once(
    code: str, tmp_path: Path, aws_environment: pytest.MonkeyPatch
) -> None:
    with FaultyKinesis(lambda _n: Status(400, code)) as kinesis:
        with pytest.raises(AwsAccessError, match=code):
            run(kinesis, tmp_path, aws_environment)
        assert len(kinesis.requests) <= 5


def test_records_without_a_result_count_as_unknown(tmp_path: Path, aws_environment: pytest.MonkeyPatch) -> None:
    class Garbled(FaultyKinesis):
        def answer(self, handler: BaseHTTPRequestHandler, status: int, content: dict[str, Any]) -> None:
            if "Records" in content and len(self.requests) < 4:
                content = {"FailedRecordCount": 0, "Records": content["Records"][:1]}
            super().answer(handler, status, content)

    with Garbled() as kinesis:
        result = run(kinesis, tmp_path, aws_environment)
    assert max(occurrences(kinesis).values()) > 1
    assert len(occurrences(kinesis)) == result.produced == ROWS
