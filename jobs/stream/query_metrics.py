"""The wire between the streaming job and `jobs.metrics`: what it is told of a batch, and of the query around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from jobs.lake.ledger import LedgerEntry, shard_ages
from jobs.metrics.metrics import BatchFigures
from jobs.metrics.publisher import Observer
from jobs.metrics.query_listener import QueryListener


@contextmanager
def watched(spark: SparkSession, observer: Observer, query: str) -> Iterator[None]:
    """Within, the observer hears of the planning, the idleness and the death of the query of this name."""
    if not observer.publishes:
        yield
        return
    listener = QueryListener(observer, query)
    spark.streams.addListener(listener)
    try:
        yield
    except Exception as error:
        observer.failed(error)
        raise
    finally:
        spark.streams.removeListener(listener)


def batch_figures(entry: LedgerEntry) -> BatchFigures:
    """The figures of a batch that is final."""
    report = entry.report
    return BatchFigures(
        stream=entry.stream,
        query=entry.query,
        batch=entry.batch,
        finished_at=entry.finished_at,
        seconds=(entry.finished_at - entry.started_at).total_seconds(),
        read=report.read,
        written=report.processed,
        quarantined=report.quarantined,
        bytes_read=report.read_bytes,
        bytes_written=sum(file.bytes for file in report.files),
        files=len(report.files),
        registered=entry.registered,
        rescued=report.rescued,
        share_exceeded=bool(entry.alarms),
        retries=report.retries,
        throttles=report.throttles,
        stages=entry.seconds,
        reasons=report.reasons,
        ages=shard_ages(entry),
    )
