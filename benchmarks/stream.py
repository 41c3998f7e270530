"""Speed, memory and latency of the streaming job:

    python benchmarks/stream.py [--json FILE] [--only NAME]… [--rows N] [--contract FILE --sample FILE]

For example --contract conf/examples/clicks.yaml --sample conf/examples/clicks/clicks.jsonl, for nested events.

drain     rows/s of the whole job on a replayed stream, divided by those of a plain Spark batch that reads the same
          JSON lines from disk and writes the same two outputs; both write to a folder, after a warm-up. With
          --contract also that of another table, whose records are the good ones of a sample again and again, and its
          MB/s divided by those of the travel times
memory    peak memory of the Python workers and the JVM for 2 × `rows`, divided by that for `rows` / 5
batch     seconds of a micro-batch of about 1,000 records on S3A against the embedded AWS, by stage
latency   seconds from an accepted put to a queryable partition at a trigger of 1 s, p50 and p99 (from the same run)

Both figures of a ratio are from the same run. Sends requests to 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.replay_stream import STREAM, ReplayStream  # noqa: E402
from jobs.common.aws import client  # noqa: E402
from jobs.settings.settings import Settings, load_settings  # noqa: E402
from local import resources, server  # noqa: E402

if TYPE_CHECKING:
    from jobs.schema.table import TableContract

NAMES = ("drain", "memory", "batch", "latency")
TRAVEL_TIMES = "travel_times.yaml"


def job_settings(lake: str, *overrides: str) -> Settings:
    database = f"database=benchmark_{os.getpid()}"  # a database belongs to one lake
    return load_settings(None, [f"lake={lake}", f"stream.name={STREAM}", database, *overrides])


def drained(spark: Any, lake: Path, contract: str) -> tuple[float, float, int]:
    """One run of the job on a new checkpoint: (seconds with start and end, seconds within batches, rows)."""
    from jobs.stream.job import run

    shutil.rmtree(lake, ignore_errors=True)
    started = time.perf_counter()
    within: list[float] = []
    result = run(
        lambda: spark,
        job_settings(str(lake), f"contract={contract}"),
        until_drained=True,
        on_batch=lambda entry: within.append((entry.finished_at - entry.started_at).total_seconds()),
    )
    return time.perf_counter() - started, sum(within), result.processed


def plain_batch(spark: Any, source: Path, out: Path, contract: str) -> float:
    """Seconds of a batch with Spark's code only: JSON to partitioned Parquet, and text to gzip."""
    from jobs.schema.table import load_contract

    table = load_contract(contract)
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    rows = travel_times(spark, source, table) if table.name == "travel_times" else rows_by_spark(spark, source, table)
    rows.write.partitionBy(*table.partition_by).option("compression", "zstd").parquet(str(out / "processed"))
    spark.read.text(str(source)).write.option("compression", "gzip").text(str(out / "raw"))
    return time.perf_counter() - started


def travel_times(spark: Any, source: Path, table: TableContract) -> Any:
    """The table's rows by Spark. All values are texts in JSON, and `start_date` is part of one."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import StringType, StructField, StructType

    schema = StructType([StructField(column.field, StringType()) for column in table.columns])
    rows = (
        spark.read.schema(schema)
        .json(str(source))
        .select(*[F.col(f"`{column.field}`").cast(column.type).alias(column.column) for column in table.columns])
    )
    return rows.withColumn("start_date", F.to_date(F.substring("date_range", 1, 10), "MM/dd/yyyy"))


def rows_by_spark(spark: Any, source: Path, table: TableContract) -> Any:
    """The table's rows by Spark, which reads the JSON with the contract's types."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import StructType

    from jobs.schema.types import data_type

    if table.derived_columns or table.metadata_columns:
        raise SystemExit(f"{table.name}: this benchmark has no derived columns and none from the metadata")
    tree: dict[str, Any] = {}
    values = []
    for column in table.record_columns:
        if column.parse or any(isinstance(part, int) for part in column.location):
            raise SystemExit(f"columns.{column.column}: Spark's JSON reader takes no text and no array apart")
        value = F.col(".".join(f"`{part}`" for part in column.location))
        kind = column.type
        if column.format is not None and column.format.startswith("epoch_"):
            kind, value = "long", getattr(F, f"timestamp_{column.format.removeprefix('epoch_')}")(value)
        elif column.format is not None:
            kind, value = "string", F.to_timestamp(value, column.format)
        elif column.type == "binary":
            kind, value = "string", F.unbase64(value)
        place = tree
        for part in column.location[:-1]:
            place = place.setdefault(str(part), {})
        place[str(column.location[-1])] = data_type(kind)
        if column.type == "date" and column.timezone is not None:
            value = F.from_utc_timestamp(value, column.timezone)
        values.append((value.cast("date") if column.type == "date" else value).alias(column.column))
    return spark.read.schema(StructType.fromJson(struct(tree))).json(str(source)).select(*values)


def struct(tree: dict[str, Any]) -> dict[str, Any]:
    """A Spark struct as JSON. `tree` has a DataType or, for a struct within, a tree for each field."""
    fields = [
        {
            "name": name,
            "type": struct(kind) if isinstance(kind, dict) else kind.spark_json(),
            "nullable": True,
            "metadata": {},
        }
        for name, kind in tree.items()
    ]
    return {"type": "struct", "fields": fields}


def good_lines(contract: str, sample: str) -> list[bytes]:
    """The sample's records that become rows: with the others, the two outputs would not have the same rows."""
    from jobs.schema.record_parser import RecordParser
    from jobs.schema.table import load_contract

    parser = RecordParser(load_contract(contract))
    return [line for line in Path(sample).read_bytes().splitlines() if parser.reject(line) is None]


def process_tree() -> dict[int, dict[str, str]]:
    """This process and its descendants, by process id, with the fields of `/proc/<pid>/status`."""
    status: dict[int, dict[str, str]] = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = path.read_text().splitlines()
        except OSError:  # the process has ended
            continue
        status[int(path.parent.name)] = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    found = {os.getpid()}
    while more := {pid for pid, fields in status.items() if int(fields["PPid"]) in found} - found:
        found |= more
    return {pid: status[pid] for pid in found}


def peaks(without: int) -> dict[str, int]:
    """Peak resident MB of this process (the driver's Python), its JVM and its largest Python worker.

    without   a process to ignore
    """
    found = {"driver": 0, "jvm": 0, "worker": 0}
    for pid, fields in process_tree().items():
        if "VmHWM" in fields and pid != without:
            kind = "driver" if pid == os.getpid() else "jvm" if fields["Name"].startswith("java") else "worker"
            found[kind] = max(found[kind], int(fields["VmHWM"].split()[0]) // 1024)
    return found


def cpu_seconds(without: int) -> float:
    """Processor time of this process and its descendants so far, except the process `without`."""
    ticks = 0
    for pid in process_tree():
        if pid != without:
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def replayed(rows: int, lines: list[bytes] | None = None) -> Iterator[tuple[Any, Path, int]]:
    """Serves a stream of `rows`; yields (Spark session, a new folder, the server's process id).

    The stream's records as JSON lines are in `stream/json` in the folder.
    """
    from jobs.common.spark_session import spark_session

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stream = ReplayStream(folder / "stream", rows, lines)
        with stream as endpoint:
            os.environ["AWS_ENDPOINT_URL_KINESIS"] = endpoint
            own = job_settings(str(folder / "lake")).spark
            spark = spark_session("benchmark", own.master, own.conf, str(folder / "spark.log"))
            yield spark, folder, stream.pid
            spark.stop()


def child(rows: int, repeats: int, compare: bool, contract: str, sample: str | None) -> dict[str, Any]:
    """Drains `rows` once to warm up and then `repeats` times, alternating with the plain batch. In a child process."""
    with replayed(rows, good_lines(contract, sample) if sample else None) as (spark, base, server_pid):
        job, batch, plain, job_cpu, plain_cpu = [], [], [], [], []
        for number in range(repeats + 1):
            if number == 1:  # the first run started workers and compiled code
                job, batch, plain, job_cpu, plain_cpu = [], [], [], [], []
            cpu = cpu_seconds(server_pid)
            seconds, within, count = drained(spark, base / "lake", contract)
            if count != rows:
                raise RuntimeError(f"{count} rows of {rows} were written")
            job.append(seconds)
            batch.append(within)
            job_cpu.append(cpu_seconds(server_pid) - cpu)
            if compare:
                cpu = cpu_seconds(server_pid)
                plain.append(plain_batch(spark, base / "stream/json", base / "plain", contract))
                plain_cpu.append(cpu_seconds(server_pid) - cpu)
        size = sum(path.stat().st_size for path in (base / "stream/json").iterdir())
        found: dict[str, Any] = {
            "job_rows_per_second": round(rows / statistics.median(job)),
            "job_mb_per_second": round(size / 1e6 / statistics.median(job), 2),
            "job_batches_rows_per_second": round(rows / statistics.median(batch)),
            "job_cpu_seconds": round(statistics.median(job_cpu), 2),
        }
        if compare:
            found["plain_rows_per_second"] = round(rows / statistics.median(plain))
            found["plain_cpu_seconds"] = round(statistics.median(plain_cpu), 2)
            # Ratios of neighbours, so that a slow period of the machine affects both figures.
            found["ratios"] = [round(theirs / ours, 2) for theirs, ours in zip(plain, job, strict=True)]
            found["batches_ratios"] = [round(theirs / ours, 2) for theirs, ours in zip(plain, batch, strict=True)]
        found["peak_mb"] = peaks(server_pid)
    return found


def in_child(script: str, arguments: list[Any]) -> dict[str, Any]:
    """Runs `script --child ARGUMENTS`; returns the JSON of its last line. A child has its own peak memory."""
    command = [sys.executable, script, "--child", json.dumps(arguments)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=1800)
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def small_batches(seconds: int, rate: int) -> dict[str, Any]:
    """Sends `rate` records/s for `seconds` through the job with a trigger of 1 s, on S3A."""
    from benchmarks.replay_stream import payloads
    from jobs.common.spark_session import spark_session
    from jobs.lake.ledger import LedgerEntry
    from jobs.stream.job import run

    settings = job_settings("s3://benchmark/lake", "stream_job.trigger_seconds=1", "stream.name=small-batches")
    resources.ensure(settings)
    entries: list[tuple[LedgerEntry, float]] = []
    puts: dict[tuple[str, int], float] = {}
    stop = threading.Event()

    def produce() -> None:
        kinesis, records = client("kinesis"), list(payloads(rate, 7))
        for _ in range(seconds):
            started = time.monotonic()
            for start in range(0, rate, 250):
                batch = [
                    {"Data": data, "PartitionKey": str(number)} for number, data in enumerate(records[start:][:250])
                ]
                answer = kinesis.put_records(StreamName=settings.stream.name, Records=batch)
                accepted = time.time()
                puts.update({(one["ShardId"], int(one["SequenceNumber"])): accepted for one in answer["Records"]})
            time.sleep(max(0.0, 1 - (time.monotonic() - started)))
        time.sleep(10)
        stop.set()

    with tempfile.TemporaryDirectory() as folder:
        spark = spark_session("benchmark", settings.spark.master, settings.spark.conf, str(Path(folder) / "spark.log"))
        threading.Thread(target=produce, daemon=True).start()
        run(lambda: spark, settings, stop=stop, on_batch=lambda entry: entries.append((entry, time.time())))
        spark.stop()
    entries = entries[1:]  # the first batch starts workers
    if not entries:
        raise RuntimeError(f"only one batch in {seconds} s: this machine is too busy for a measurement")
    # On a busy machine batches grow; only those of about `rate` records are measured.
    usual = [entry for entry, _ in entries if entry.report.read <= 4 * rate] or [entry for entry, _ in entries]
    stages = {
        stage: round(statistics.median(entry.seconds.get(stage, 0.0) for entry in usual), 3)
        for stage in usual[0].seconds
    }
    whole = [(entry.finished_at - entry.started_at).total_seconds() for entry in usual]
    waits = [
        committed - puts[shard, number]
        for entry, committed in entries
        for shard, found in entry.report.shards.items()
        for number in range(int(found.first), int(found.last) + 1)
        if (shard, number) in puts
    ]
    return {
        "batch": {
            "records": statistics.median(entry.report.read for entry in usual),
            "batches": len(usual),
            "seconds": round(statistics.median(whole), 3),
            "stages": stages,
        },
        "latency": {
            "records": len(waits),
            "p50": round(statistics.median(waits), 2),
            "p99": round(statistics.quantiles(waits, n=100)[98], 2),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--only", action="append", choices=NAMES, default=[])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--contract", metavar="FILE", default=TRAVEL_TIMES, help="default: %(default)s")
    parser.add_argument("--sample", metavar="FILE", help="JSON lines, needed for another contract")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(*json.loads(options.child))))
        return
    if (options.contract != TRAVEL_TIMES) != (options.sample is not None):
        parser.error("--contract and --sample belong together")
    wanted = options.only or list(NAMES)
    result: dict[str, Any] = {"rows": options.rows, "ratios": {}}
    with embedded_aws():
        measure(wanted, options.rows, result)
        if options.sample:
            measure_contract(options.rows, options.contract, options.sample, result)
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


def measure(wanted: list[str], rows: int, result: dict[str, Any]) -> None:
    if "drain" in wanted:
        found = result["drain"] = in_child(__file__, [rows, 5, True, TRAVEL_TIMES, None])
        result["ratios"]["job_over_plain_batch"] = statistics.median(found["ratios"])
        # Without the query's start, the search for the stream's tip, and the stop.
        result["ratios"]["job_batches_over_plain_batch"] = statistics.median(found["batches_ratios"])
        # Rows per processor second: independent of other processes on the machine.
        result["ratios"]["job_over_plain_batch_cpu"] = round(found["plain_cpu_seconds"] / found["job_cpu_seconds"], 2)
    if "memory" in wanted:
        few, many = (
            in_child(__file__, [count, 0, False, TRAVEL_TIMES, None])["peak_mb"] for count in (rows // 5, rows * 2)
        )
        result["memory"] = {"few": few, "many": many}
        for kind in few:
            result["ratios"][f"{kind}_memory_of_ten_times_the_rows"] = round(many[kind] / few[kind], 2)
    if {"batch", "latency"} & set(wanted):
        result |= small_batches(30, 1000)


def measure_contract(rows: int, contract: str, sample: str, result: dict[str, Any]) -> None:
    found = result["drain_of_contract"] = in_child(__file__, [rows, 5, True, contract, str(Path(sample).resolve())])
    result["ratios"]["contract_over_plain_batch"] = statistics.median(found["ratios"])
    if "drain" in result:
        flat = result["drain"]["job_mb_per_second"]
        result["ratios"]["contract_over_travel_times_mb"] = round(found["job_mb_per_second"] / flat, 2)


@contextmanager
def embedded_aws() -> Iterator[None]:
    """Starts an embedded AWS on a free port; within the `with` block, clients use it."""
    with tempfile.TemporaryDirectory() as state:
        own = load_settings(None, [f"local.state_dir={state}/aws", f"local.port={_free_port()}"])
        with server.aimed_at(server.up(own)):
            try:
                yield
            finally:
                server.down(own)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
