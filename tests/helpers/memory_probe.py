"""Writes large records in one task and prints its memory use: `memory_probe.py CASE MEGABYTES LAKE`."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator

import pyarrow as pa

from jobs.settings.sections import SinkSettings
from jobs.write.task import WriteTask
from tests.helpers.samples import TRAVEL_TIMES, arrived, good

# The maximum size of a Kinesis answer. Spark's batches are smaller (`session_conf`).
BATCH_BYTES = 10 * 1024 * 1024
# By case: bytes of a record, number of cities, share of records that are not JSON.
CASES = {
    "58 KB": (58_000, 3, 0.0),
    "10 MB": (10_000_000, 3, 0.0),
    "10 MB, all rejected": (10_000_000, 1, 1.0),
    "many partitions": (20_000, 300, 0.0),
    "400 bytes": (400, 3, 0.01),
}


def batches(size: int, cities: int, bad: float, total: int) -> Iterator[pa.RecordBatch]:
    geometry = ("[-71.0583,42.3601]," * (size // 19))[: size - 350]
    count, made = max(1, min(10_000, BATCH_BYTES // size)), 0
    while made * size < total:
        records = []
        for number in range(made, made + count):
            record = good(City=f"City {number % cities}", **{"Origin Geometry": geometry})
            records.append(record[:-1] if number % 1000 < 1000 * bad else record)
        yield arrived(records, first=made + 1)
        made += count


def peak() -> int:
    """Peak memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    case, megabytes, lake = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    task = WriteTask(lake, "q-1", TRAVEL_TIMES, SinkSettings(raw_compression_level=1))
    task.write(batches(1000, 1, 0.0, 1), "warm-up")
    before = peak()
    report = task.write(batches(*CASES[case], megabytes * 1_000_000), "q-1-00000")
    assert report.read == report.raw == report.processed + report.quarantined
    sys.stdout.write(f"{(peak() - before) // 1_000_000} {report.read_bytes // 1_000_000} {len(report.files)}")


if __name__ == "__main__":
    main()
