"""The Kinesis source against its limits: `python benchmarks/source.py [--json FILE] [--only NAME]…`

kinesalite   records/s into a Spark `noop` sink, over a bare threaded boto3 GetRecords loop on the same shards
decoding     records/s of one reader on one core, over plain boto3 → Arrow; served by `replay_server`
planning     seconds to plan a batch of 1 to 1,000 shards, with 20 ms a call, as AWS answers
memory       resident memory of a worker process while it drains 1,000,000 records

Every ratio is of two figures from the same run. Talks to 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
from botocore.config import Config

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.replay_server import ReplayServer  # noqa: E402
from spark_kinesis.boto_client import BotoStreamClient  # noqa: E402
from spark_kinesis.client import (  # noqa: E402
    Page,
    Record,
    RecordHeader,
    Shard,
    StreamSummary,
)
from spark_kinesis.offset import (  # noqa: E402
    SHARD_END,
    TRIM_HORIZON,
    Position,
    ShardRange,
)
from spark_kinesis.options import KinesisOptions  # noqa: E402
from spark_kinesis.planner import Planner  # noqa: E402
from spark_kinesis.reader import RangeReader  # noqa: E402

PAYLOAD = 400
SHARDS = 4
os.environ.setdefault("AWS_ACCESS_KEY_ID", "benchmark")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "benchmark")
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


def boto_client(endpoint: str, **config: Any) -> Any:
    return boto3.client(
        "kinesis", endpoint_url=endpoint, region_name="us-east-1", config=Config(max_pool_connections=16, **config)
    )


def timed(work: Callable[[], int]) -> float:
    """Records per second of `work`, which returns how many it read."""
    begin = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - begin)


# Kinesalite


@contextmanager
def kinesalite(log: Path = Path(os.devnull)) -> Iterator[str]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise SystemExit("the kinesalite benchmark needs Node.js and npm; choose the others with --only")
    folder = ROOT / ".emulators"
    script = folder / "node_modules" / "kinesalite" / "cli.js"
    if not script.exists():
        subprocess.run(
            [npm, "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(folder), "kinesalite@3.3.3"],
            check=True,
            capture_output=True,
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            node,
            "--max-old-space-size=6000",
            "--require",
            str(ROOT / "benchmarks" / "keep_serving.cjs"),
            str(script),
            "--port",
            str(port),
            "--createStreamMs",
            "5",
        ],
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _load(endpoint: str, shard: int, count: int) -> None:
    client = boto_client(endpoint, parameter_validation=False)
    key = str(2**128 * shard // SHARDS + 1)
    payload = os.urandom(PAYLOAD // 2).hex().encode()
    for begin in range(0, count, 500):
        records = [
            {"Data": payload, "PartitionKey": f"{begin + place}", "ExplicitHashKey": key}
            for place in range(min(500, count - begin))
        ]
        answer = client.put_records(StreamName="bench", Records=records)
        if answer["FailedRecordCount"]:
            raise RuntimeError("kinesalite refused records")


def bare_loop(endpoint: str, count: int) -> int:
    """The limit: a thread for each shard, GetRecords until all records have come, nothing done with them."""
    client = boto_client(endpoint)
    got = [0] * SHARDS

    def drain(place: int, shard_id: str) -> None:
        iterator = client.get_shard_iterator(StreamName="bench", ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")[
            "ShardIterator"
        ]
        while got[place] < count // SHARDS:
            answer = client.get_records(ShardIterator=iterator, Limit=10_000)
            got[place] += len(answer["Records"])
            iterator = answer["NextShardIterator"]

    shards = [shard["ShardId"] for shard in client.list_shards(StreamName="bench")["Shards"]]
    threads = [threading.Thread(target=drain, args=each) for each in enumerate(shards)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(got)


class NoopQuery:
    """A streaming query into Spark's `noop` sink."""

    def __init__(self, endpoint: str) -> None:
        os.environ["PYSPARK_PYTHON"] = sys.executable
        os.environ["PYTHONPATH"] = str(ROOT)
        from pyspark.sql import SparkSession

        from spark_kinesis import KinesisDataSource

        self.endpoint = endpoint
        self.spark = (
            SparkSession.builder.master("local[4]")
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.sql.session.timeZone", "UTC")
            .getOrCreate()
        )
        self.spark.sparkContext.setLogLevel("ERROR")
        self.spark.dataSource.register(KinesisDataSource)

    def read(self, count: int, checkpoint: Path, **options: str) -> int:
        rows = (
            self.spark.readStream.format("kinesis")
            .options(
                streamName="bench",
                endpointUrl=self.endpoint,
                region="us-east-1",
                startingPosition="TRIM_HORIZON",
                planningCallsPerSecond="10000",
                **options,
            )
            .load()
        )
        shutil.rmtree(checkpoint, ignore_errors=True)
        query = rows.writeStream.format("noop").option("checkpointLocation", str(checkpoint)).start()
        done = 0
        try:
            while done < count:
                time.sleep(0.05)
                if query.exception() is not None:
                    raise RuntimeError(str(query.exception()))
                done = sum(progress["numInputRows"] for progress in query.recentProgress)
        finally:
            self.last = [json.loads(progress.json) for progress in query.recentProgress]
            query.stop()
        return done


def measure_kinesalite(records: int, rounds: int, work: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    with kinesalite(work / "kinesalite.log") as endpoint:
        client = boto_client(endpoint)
        client.create_stream(StreamName="bench", ShardCount=SHARDS)
        time.sleep(0.5)
        found["kinesalite_puts_per_s"] = timed(lambda: _load_all(endpoint, records))
        query = NoopQuery(endpoint)
        query.read(records // 20, work / "warm")  # starts the Python workers
        runs: dict[str, list[float]] = {"bare_boto3": [], "source": [], "source_capped": []}
        for turn in range(rounds):
            runs["bare_boto3"].append(timed(lambda: bare_loop(endpoint, records)))
            runs["source"].append(timed(lambda: query.read(records, work / f"plain-{turn}")))  # noqa: B023
            capped = {"maxRecordsPerBatch": str(5_000 * SHARDS)}
            runs["source_capped"].append(timed(lambda: query.read(records, work / f"capped-{turn}", **capped)))  # noqa: B023
        query.spark.stop()
    found |= {f"kinesalite_{name}_records_per_s": statistics.median(values) for name, values in runs.items()}
    return found


def _load_all(endpoint: str, records: int) -> int:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_load, args=(endpoint, shard, records // SHARDS)) for shard in range(SHARDS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return records


# Decoding


def plain_boto3_to_arrow(endpoint: str) -> int:
    """What one writes without this source: GetRecords, and the answer's columns to Arrow."""
    client = boto_client(endpoint)
    iterator: str | None = client.get_shard_iterator(
        StreamName="bench", ShardId="shardId-0", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    count = 0
    while iterator:
        answer = client.get_records(ShardIterator=iterator, Limit=10_000)
        records = answer["Records"]
        batch = pa.RecordBatch.from_arrays(
            [
                pa.array([record["Data"] for record in records], pa.binary()),
                pa.array([record["SequenceNumber"] for record in records], pa.string()),
                pa.array([record["PartitionKey"] for record in records], pa.string()),
                pa.array([record["ApproximateArrivalTimestamp"] for record in records], pa.timestamp("us", "UTC")),
            ],
            names=["data", "sequence_number", "partition_key", "arrival_time"],
        )
        count += batch.num_rows
        iterator = answer.get("NextShardIterator")
    return count


def source_to_arrow(endpoint: str, *, passes: int = 1) -> int:
    options = KinesisOptions(stream="bench", region="us-east-1", endpoint_url=endpoint)
    reader = RangeReader(BotoStreamClient(options), "bench")
    part = ShardRange("shardId-0", TRIM_HORIZON, SHARD_END)
    return sum(batch.num_rows for _ in range(passes) for batch in reader.read(part))


def _on_one_core(name: str, endpoint: str, results: Any) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    work = {"plain": plain_boto3_to_arrow, "source": source_to_arrow}[name]
    work(endpoint)  # warms connections and code up
    begin, cpu = time.perf_counter(), time.process_time()
    count = work(endpoint)
    results.put((count / (time.perf_counter() - begin), count / (time.process_time() - cpu)))


def measure_decoding(rounds: int) -> dict[str, float]:
    runs: dict[str, list[float]] = {"plain": [], "source": []}
    context = multiprocessing.get_context("spawn")
    with ReplayServer(pages=20, payload_bytes=PAYLOAD) as server:
        for _ in range(rounds):
            for name in runs:
                results = context.Queue()
                process = context.Process(target=_on_one_core, args=(name, server.endpoint, results))
                process.start()
                runs[name].append(results.get()[0])
                process.join()
    return {f"decoding_{name}_records_per_s": statistics.median(values) for name, values in runs.items()}


# Planning


class SlowClient:
    """Shards with a steady trickle, each call answered after `latency` seconds."""

    def __init__(self, shards: int, latency: float) -> None:
        self._shards = shards
        self._latency = latency
        self.calls = 0
        self._now = time.time()

    def list_shards(self) -> list[Shard]:
        time.sleep(self._latency * (1 + self._shards // 1000))
        return [Shard(f"shardId-{number:012}", (), "1") for number in range(self._shards)]

    def summary(self) -> StreamSummary:
        time.sleep(self._latency)
        return StreamSummary(24)

    def iterator(self, shard_id: str, position: Position, *, inclusive: bool = False) -> str:
        time.sleep(self._latency)
        return "tip" if position.moment is not None else "new"

    def records(self, iterator: str, limit: int) -> Page[Record]:
        raise NotImplementedError("planning reads no payloads")

    def headers(self, iterator: str, limit: int) -> Page[RecordHeader]:
        time.sleep(self._latency)
        self.calls += 1
        if iterator == "new":
            return Page([RecordHeader(str(2**180), self._now - 60)], "more", 60_000, self._now, full=True)
        return Page([RecordHeader(str(2**180 + place), self._now) for place in range(1, 10)], "end", 0, self._now)


def measure_planning() -> dict[str, float]:
    found = {}
    for shards in (1, 10, 100, 1000):
        client = SlowClient(shards, 0.02)
        options = KinesisOptions(stream="bench", initial="TRIM_HORIZON")
        planner = Planner(options, client)
        begin = time.perf_counter()
        planner.latest(options.initial_offset)
        found[f"planning_{shards}_shards_s"] = time.perf_counter() - begin
        found[f"planning_{shards}_shards_calls_each"] = client.calls / shards
        planner.close()
    return found


# Memory


def _drain_and_watch(endpoint: str, records: int, results: Any) -> None:
    def resident() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    options = KinesisOptions(stream="bench", region="us-east-1", endpoint_url=endpoint)
    reader = RangeReader(BotoStreamClient(options), "bench")
    part = ShardRange("shardId-0", TRIM_HORIZON, SHARD_END)
    seen, marks, count = 0.0, [], 0
    while count < records:
        for batch in reader.read(part):
            count += batch.num_rows
            seen = max(seen, resident())
            if count >= records * (len(marks) + 1) / 10:
                marks.append(seen)
                seen = 0.0
    results.put(marks)


def measure_memory(records: int) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with ReplayServer(pages=20, payload_bytes=PAYLOAD) as server:
        process = context.Process(target=_drain_and_watch, args=(server.endpoint, records, results))
        process.start()
        marks = results.get()
        process.join()
    return {
        "memory_after_10_percent_mib": marks[0],
        "memory_peak_mib": max(marks),
        "memory_after_100_percent_mib": marks[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all figures to this file, the ratios under `ratios`")
    parser.add_argument("--only", action="append", choices=["kinesalite", "decoding", "planning", "memory"])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=ROOT / ".movement" / "bench-source")
    given = parser.parse_args()
    chosen = given.only or ["decoding", "planning", "memory", "kinesalite"]
    found: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    if "decoding" in chosen:
        found |= measure_decoding(given.rounds)
        ratios["decoding"] = found["decoding_source_records_per_s"] / found["decoding_plain_records_per_s"]
    if "planning" in chosen:
        found |= measure_planning()
    if "memory" in chosen:
        found |= measure_memory(given.records)
        ratios["memory_end_over_start"] = found["memory_after_100_percent_mib"] / found["memory_after_10_percent_mib"]
    if "kinesalite" in chosen:
        given.work.mkdir(parents=True, exist_ok=True)
        found |= measure_kinesalite(given.records, given.rounds, given.work)
        bare = found["kinesalite_bare_boto3_records_per_s"]
        ratios["source_over_bare_loop"] = found["kinesalite_source_records_per_s"] / bare
        ratios["source_capped_over_bare_loop"] = found["kinesalite_source_capped_records_per_s"] / bare
    found["ratios"] = ratios
    for name, value in {**{key: value for key, value in found.items() if key != "ratios"}, **ratios}.items():
        print(f"{name:45} {value:>12,.2f}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
