"""Simulates days with late, duplicated and unordered events, and with crawls and job runs that fail.

Only the handlers are real; the clock is simulated. In the end each object must be older than the start of a successful
crawl, and each such crawl must have ended before the start of a successful job run.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from lambdas import crawler_trigger, gluejob_trigger

Build = Callable[..., Any]
VISIBILITY = 5.0


@dataclass
class SimulatedQueue:
    """An at-least-once queue without order: some deleted messages are delivered again."""

    random: random.Random
    sqs_event: Build
    waiting: list[tuple[float, str]] = field(default_factory=list)

    def send(self, now: float, body: Any) -> None:
        for _ in range(1 + (self.random.random() < 0.2)):
            self.waiting.append((now + self.random.expovariate(1 / 3), json.dumps(body)))

    def deliver(self, now: float, handler: Callable[[dict[str, Any]], Any]) -> None:
        visible = [message for message in self.waiting if message[0] <= now]
        self.random.shuffle(visible)
        batch = visible[:10]
        if not batch:
            return
        answer = handler(self.sqs_event(*(body for _, body in batch)))
        returned = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        for number, message in enumerate(batch):
            self.waiting.remove(message)
            if f"m{number}" in returned or self.random.random() < 0.05:
                self.waiting.append((now + VISIBILITY, message[1]))


@pytest.mark.parametrize("seed", range(60))
def test_every_object_is_crawled_and_every_crawl_is_read(
    seed: int, glue: Any, sqs_event: Build, object_created: Build, crawl_succeeded: Build
) -> None:
    chance = random.Random(seed)
    noon: datetime = glue.now
    objects, crawls = SimulatedQueue(chance, sqs_event), SimulatedQueue(chance, sqs_event)
    created = sorted(chance.uniform(0, 200) for _ in range(chance.choice([1, 5, 60])))
    to_come = list(created)
    good_crawls: list[tuple[datetime, datetime]] = []
    crawl_until = run_until = None
    now = 0.0
    while to_come or objects.waiting or crawls.waiting or crawl_until or run_until:
        now += chance.uniform(0.01, 1.0)
        assert now < 5_000, "the path never comes to rest"
        glue.now = noon + timedelta(seconds=now)
        while to_come and to_come[0] <= now:
            objects.send(now, object_created(to_come.pop(0)))
        if crawl_until and now >= crawl_until:
            crawl_until = None
            succeeded = chance.random() < 0.7
            glue.crawl_ends("SUCCEEDED" if succeeded else "FAILED")
            if succeeded:
                good_crawls.append((glue.crawls_started[-1], glue.now))
                crawls.send(now, crawl_succeeded(now, f"event-{len(good_crawls)}"))
        if run_until and now >= run_until:
            run_until = None
            glue.runs[-1]["JobRunState"] = "SUCCEEDED" if chance.random() < 0.8 else "FAILED"
        objects.deliver(now, crawler_trigger.handler)
        crawls.deliver(now, gluejob_trigger.handler)
        if glue.state == "RUNNING" and crawl_until is None:
            crawl_until = now + chance.uniform(0.5, 40)
        if glue.runs and glue.runs[-1]["JobRunState"] == "STARTING" and run_until is None:
            glue.runs[-1]["JobRunState"] = "RUNNING"
            run_until = now + chance.uniform(0.5, 60)

    for moment in created:
        assert any(started > noon + timedelta(seconds=moment) for started, _ in good_crawls)
    for _, ended in good_crawls:
        assert any(run["StartedOn"] >= ended and run["JobRunState"] == "SUCCEEDED" for run in glue.runs)
