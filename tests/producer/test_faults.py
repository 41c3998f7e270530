"""Throttles, partial failures, resets, an endpoint that dies: what was reported as accepted is on the stream."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest

from jobs.common.errors import AwsAccessError, TransientError
from jobs.settings.settings import load_settings
from producer.produce import produce
from producer.sample import write_sample
from tests.helpers.faulty_kinesis import Fail, FaultyKinesis, Hang, Reset, Status

pytestmark = pytest.mark.aws

ROWS = 4000


def run(kinesis: FaultyKinesis, folder, environment, *overrides: str, rows: int = ROWS, cities: int = 1):
    environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
    write_sample(rows, folder, cities=cities)
    settings = load_settings(None, ["stream.name=stream", "producer.request_timeout_seconds=0.5", *overrides])
    return produce([folder], settings)


def times_there(kinesis: FaultyKinesis) -> Counter[bytes]:
    return Counter(data for _, data in kinesis.accepted)


def assert_order_of_each_key(kinesis: FaultyKinesis, clean: FaultyKinesis) -> None:
    def by_key(source: FaultyKinesis) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for key, data in source.accepted:
            lane = found.setdefault(key, [])
            if data not in lane:
                lane.append(data)
        return found

    assert by_key(kinesis) == by_key(clean)


@pytest.fixture
def clean(tmp_path, aws_environment):
    """What the stream holds when nothing goes wrong."""
    with FaultyKinesis() as kinesis:
        run(kinesis, tmp_path, aws_environment, "producer.max_in_flight=1")
        assert len(times_there(kinesis)) == ROWS
        return kinesis


def test_records_of_a_quiet_pipe_are_tried_again_though_nothing_more_comes(tmp_path, aws_environment, monkeypatch):
    write_sample(1200, tmp_path, cities=1)
    content = next(tmp_path.glob("*.csv")).read_bytes()
    # A key that comes twice has to wait for itself.
    content += content.splitlines(keepends=True)[1]
    reading, writing = os.pipe()
    with (
        FaultyKinesis(lambda n: Fail(lambda place: place < 5) if n < 3 else None) as kinesis,
        open(reading, "rb") as pipe,
    ):
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=pipe))
        writer = threading.Thread(target=os.write, args=(writing, content))
        writer.start()
        started = time.monotonic()
        # The pipe stays open: only the stop ends the run.
        enough = lambda: len(kinesis.accepted) == 1201 or time.monotonic() > started + 20  # noqa: E731
        result = produce(["-"], load_settings(None, ["stream.name=stream"]), city="Paris", stop=enough)
        writer.join()
        os.close(writing)
    assert (result.produced, result.stopped) == (1201, True)
    assert result.counts.retried >= 5


FAULTS = {
    "throttled-as-a-whole": lambda n: Status(400, "ProvisionedThroughputExceededException") if n in (1, 2, 6) else None,
    "refused-record-by-record": lambda n: Fail(lambda place: place % 7 == n % 7) if n in (1, 3, 4, 7) else None,
    "internal-failures-of-records": lambda n: Fail(lambda place: place % 2 == 0, "InternalFailure") if n < 9 else None,
    "a-throttle-of-everything": lambda n: Fail(lambda _place: True) if n in (2, 5) else None,
    "busy": lambda n: Status(503, "ServiceUnavailable") if n % 3 == 1 else None,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("max_in_flight", [1, 4])
def test_refused_records_are_sent_until_accepted_once_each_and_in_order(
    fault, max_in_flight, tmp_path, aws_environment, clean
):
    with FaultyKinesis(fault, delay=0.02) as kinesis:
        result = run(kinesis, tmp_path, aws_environment, f"producer.max_in_flight={max_in_flight}")
    assert times_there(kinesis) == times_there(clean)
    assert result.produced == ROWS
    assert result.counts.retried > 0
    assert kinesis.overlaps == 0, "a key was in two requests at once"
    assert_order_of_each_key(kinesis, clean)


UNKNOWN = {
    "reset-after-it-was-taken": lambda n: Reset(after=True) if n % 4 == 1 else None,
    "reset-before-it-was-taken": lambda n: Reset(after=False) if n % 4 == 1 else None,
    "no-answer-in-time": lambda n: Hang() if n == 2 else None,
    "an-error-after-it-was-taken": lambda n: Status(500, "InternalFailure", after=True) if n % 4 == 1 else None,
}


@pytest.mark.parametrize("fault", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_an_unknown_outcome_loses_nothing_and_its_duplicates_are_counted(fault, tmp_path, aws_environment, clean):
    with FaultyKinesis(fault) as kinesis:
        result = run(kinesis, tmp_path, aws_environment)
        there = times_there(kinesis)
    assert set(there) == set(times_there(clean))
    doubled = sum(there.values()) - len(there)
    assert doubled <= result.counts.possible_duplicates
    assert result.counts.possible_duplicates > 0
    assert result.produced == ROWS
    assert_order_of_each_key(kinesis, clean)


def test_everything_at_once_in_any_order_loses_nothing(tmp_path, aws_environment, clean):
    chance = random.Random(7)
    kinds = [
        lambda: Status(400, "ProvisionedThroughputExceededException"),
        lambda: Fail(lambda place: place % 3 == 0),
        lambda: Reset(after=True),
        lambda: Reset(after=False),
        lambda: Status(500, "InternalFailure"),
    ]
    faults = [chance.choice(kinds)() for _ in range(20)]
    with FaultyKinesis(lambda n: faults[n] if n < 20 else None, delay=0.01) as kinesis:
        result = run(kinesis, tmp_path, aws_environment)
        there = times_there(kinesis)
    assert set(there) == set(times_there(clean))
    assert sum(there.values()) - len(there) <= result.counts.possible_duplicates
    assert_order_of_each_key(kinesis, clean)


def test_an_endpoint_that_is_gone_for_five_seconds_costs_nothing_but_time(tmp_path, aws_environment):
    kinesis = FaultyKinesis(delay=0.05)
    kinesis.start()

    def die_for_a_while() -> None:
        while len(kinesis.requests) < 4:
            time.sleep(0.01)
        kinesis.stop()
        time.sleep(5)
        kinesis.start()

    outage = threading.Thread(target=die_for_a_while)
    outage.start()
    try:
        result = run(kinesis, tmp_path, aws_environment)
    finally:
        outage.join()
        kinesis.stop()
    there = times_there(kinesis)
    assert len(there) == result.produced == ROWS
    assert sum(there.values()) - ROWS <= result.counts.possible_duplicates
    assert result.seconds >= 5


def test_a_shard_at_its_limit_slows_the_sender_down_instead_of_being_hammered(tmp_path, aws_environment):
    with FaultyKinesis(shards=2, records_per_second=400) as kinesis:
        result = run(kinesis, tmp_path, aws_environment, rows=3000)
    # 2 shards × 400/s, with a second's worth of burst each: 2.75 s at best.
    assert result.produced == 3000
    assert result.seconds < 60  # it is not slowed down for ever
    assert kinesis.refused == result.counts.throttled < 1500


def test_a_run_in_which_nothing_is_accepted_gives_up_and_says_why(tmp_path, aws_environment):
    always = FaultyKinesis(lambda _n: Status(400, "ProvisionedThroughputExceededException"))
    message = r"nothing was accepted for 1 s.*ProvisionedThroughput"
    with always as kinesis, pytest.raises(TransientError, match=message):
        run(kinesis, tmp_path, aws_environment, "producer.delivery_timeout_seconds=1")


def test_an_endpoint_that_was_never_there_gives_up_too(tmp_path, aws_environment):
    kinesis = FaultyKinesis()
    kinesis.start()
    kinesis.stop()
    with pytest.raises(TransientError, match="describe stream 'stream'"):
        run(kinesis, tmp_path, aws_environment, "producer.delivery_timeout_seconds=1")


@pytest.mark.parametrize("code", ["AccessDeniedException", "ValidationException"])
def test_a_refusal_that_will_not_go_away_ends_the_run_at_once(code, tmp_path, aws_environment):
    with FaultyKinesis(lambda _n: Status(400, code)) as kinesis:
        with pytest.raises(AwsAccessError, match=code):
            run(kinesis, tmp_path, aws_environment)
        assert len(kinesis.requests) <= 5


def test_an_answer_that_is_not_kinesis_is_no_acceptance(tmp_path, aws_environment):
    class Garbled(FaultyKinesis):
        def _answer(self, handler, status, content):
            if "Records" in content and len(self.requests) < 4:
                content = {"FailedRecordCount": 0, "Records": content["Records"][:1]}
            super()._answer(handler, status, content)

    with Garbled() as kinesis:
        result = run(kinesis, tmp_path, aws_environment)
    assert max(times_there(kinesis).values()) > 1
    assert len(times_there(kinesis)) == result.produced == ROWS
