"""Records a second from a CSV file to acknowledged, against a server that accepts at once, and what it is compared to.

    python benchmarks/producer.py [--rows 300000] [--json out.json] [--kinesalite BIN]

Compared in one run, on one process: (a) the original way, one `put_record` a row; (b) a signed urllib3 + orjson
loop over batches that are ready made. Then 1, 2 and 4 processes; CPU seconds by stage; and, where kinesalite is
there, against what that emulator accepts at all.
"""

from __future__ import annotations

import argparse
import base64
import cProfile
import csv
import io
import json
import os
import pstats
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Run as a program, this file would stand for the package of the same name.
sys.path[0] = str(Path(__file__).parents[1])

import boto3  # noqa: E402
import orjson  # noqa: E402
import urllib3  # noqa: E402
from botocore.auth import SigV4Auth  # noqa: E402
from botocore.awsrequest import AWSRequest  # noqa: E402
from botocore.credentials import Credentials  # noqa: E402

from benchmarks.accepting_server import accepting_server  # noqa: E402
from jobs.schema.table import load_contract  # noqa: E402
from jobs.settings.settings import Settings, load_settings  # noqa: E402
from producer.csv_reader import ExportReader, find_exports  # noqa: E402
from producer.parallel import send_in_processes  # noqa: E402
from producer.produce import plan, produce, send  # noqa: E402
from producer.put_records import PutRecordsClient  # noqa: E402
from producer.record_encoder import Record, RowEncoder  # noqa: E402
from producer.sample import write_sample  # noqa: E402

AWS = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}
BATCH = 500


def settings(stream: str, state: Path, *more: str) -> Settings:
    return load_settings(None, [f"stream.name={stream}", f"local.state_dir={state}", *more])


def encoded(folder: Path, rows: int) -> list[list[Record]]:
    """The folder's first rows as batches of records."""
    contract = load_contract("travel_times.yaml")
    batches: list[list[Record]] = []
    for export in find_exports([folder]):
        with ExportReader(export) as reader:
            encoder = RowEncoder(contract, reader.header, export.city, 1024 * 1024)
            for chunk in reader.chunks():
                encoded = encoder.encode(chunk)
                for start in range(0, chunk.taken, BATCH):
                    batches.append(encoded.part(start, start + BATCH)[0])
                    if sum(map(len, batches)) >= rows:
                        return batches
    return batches


def one_a_row(folder: Path, rows: int) -> float:
    """(a): DictReader, json.dumps and one put_record a row, as the original producer did."""
    client = boto3.client("kinesis")
    started, sent = time.perf_counter(), 0
    for export in find_exports([folder]):
        with open(export.path, encoding="utf-8", newline="") as source:
            for row in csv.DictReader(source):
                client.put_record(StreamName="stream", Data=json.dumps(row).encode(), PartitionKey="key")
                sent += 1
                if sent == rows:
                    return rows / (time.perf_counter() - started)
    return sent / (time.perf_counter() - started)


def signed_loop(endpoint: str, batches: list[list[Record]]) -> float:
    """(b): base64, orjson, SigV4 and urllib3 over ready-made batches; no files, no checks, no retries."""
    pool = urllib3.connection_from_url(endpoint)
    signer = SigV4Auth(Credentials("bench", "bench"), "kinesis", "us-east-1")
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Kinesis_20131202.PutRecords"}
    started = time.perf_counter()
    for batch in batches:
        records = [{"Data": base64.b64encode(one.Data).decode(), "PartitionKey": one.PartitionKey} for one in batch]
        request = AWSRequest(
            "POST", endpoint + "/", headers=headers, data=orjson.dumps({"StreamName": "stream", "Records": records})
        )
        signer.add_auth(request)
        answer = pool.urlopen("POST", "/", body=request.data, headers=dict(request.headers))
        if orjson.loads(answer.data)["FailedRecordCount"]:
            raise RuntimeError("the server refused records")
    return sum(map(len, batches)) / (time.perf_counter() - started)


def ours(folder: Path, state: Path) -> float:
    """`movement produce` without its screen: files, checks, journal, order, retries."""
    result = produce([folder], settings("stream", state), keep_checkpoint=True, on_progress=lambda _progress: None)
    return result.produced / result.seconds


def in_processes(folder: Path, state: Path, processes: int) -> float:
    prepared = plan([folder], settings("stream", state))
    result = send_in_processes(prepared, processes) if processes > 1 else send(prepared)
    # Each process's own clock, so that the interpreter's start is not taken for work.
    return result.produced / result.seconds


def best_of(runs: int, *contenders: Callable[[], float]) -> list[list[float]]:
    """Runs the contenders in turns, so that a busy machine is as unfair to each."""
    found: list[list[float]] = [[] for _ in contenders]
    for _ in range(runs):
        for results, contender in zip(found, contenders, strict=True):
            results.append(contender())
    return found


def cpu_seconds(contender: Callable[[], float], arguments: argparse.Namespace) -> float:
    """This process's CPU seconds for a million records; the least of the runs."""
    found = []
    for _ in range(arguments.runs):
        started = time.process_time()
        contender()
        found.append((time.process_time() - started) / arguments.rows * 1e6)
    return min(found)


def stages(folder: Path, rows: int) -> dict[str, float]:
    """CPU seconds for a million records: reading CSV; checks, JSON and keys; the request (body, signature, HTTP)."""
    contract = load_contract("travel_times.yaml")
    taken = {"csv": 0.0, "check_and_json": 0.0, "request": 0.0}
    puts = PutRecordsClient("stream")
    done = 0
    for export in find_exports([folder]):
        with ExportReader(export) as reader:
            encoder = RowEncoder(contract, reader.header, export.city, 1024 * 1024)
            chunks = reader.chunks()
            while done < rows:
                before = time.process_time()
                chunk = next(chunks, None)
                read = time.process_time()
                if chunk is None:
                    break
                records, _ = encoder.encode(chunk).part(0, chunk.taken)
                made = time.process_time()
                for start in range(0, len(records), BATCH):
                    puts.put(records[start : start + BATCH])
                taken["csv"] += read - before
                taken["check_and_json"] += made - read
                taken["request"] += time.process_time() - made
                done += len(records)
    return {name: seconds / done * 1e6 for name, seconds in taken.items()}


def profile(folder: Path, state: Path) -> list[str]:
    """The functions where most of the time is spent, as `cProfile` sees it."""
    profiler = cProfile.Profile()
    profiler.enable()
    produce([folder], settings("stream", state, "producer.max_in_flight=1"))
    profiler.disable()
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).sort_stats("tottime").print_stats(12)
    return [line for line in text.getvalue().splitlines() if line.strip()][4:]


@contextmanager
def kinesalite(program: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [program, "--port", str(port), "--createStreamMs", "10", "--shardLimit", "100"], stdout=subprocess.DEVNULL
    )
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def on_kinesalite(program: str, folder: Path, state: Path, rows: int) -> dict[str, float]:
    """Ours against what the emulator takes at all: ready-made batches, in as many requests at once."""
    batches = encoded(folder, rows)
    total = sum(map(len, batches))
    few = state / "few"
    write_sample(total, few, cities=1)

    def all_it_takes(stream: str) -> float:
        puts = PutRecordsClient(stream, timeout_seconds=60)
        with ThreadPoolExecutor(4) as pool:
            started = time.perf_counter()
            for answer in pool.map(puts.put, batches):
                if answer is not None:
                    raise RuntimeError("kinesalite refused records")
            return total / (time.perf_counter() - started)

    def movement(stream: str) -> float:
        result = produce([few], settings(stream, state))
        return result.produced / result.seconds

    found: dict[str, list[float]] = {"at_all": [], "movement": []}
    with kinesalite(program) as endpoint:
        os.environ["AWS_ENDPOINT_URL_KINESIS"] = endpoint
        client = boto3.client("kinesis")
        for turn in range(3):
            for name, contender in (("at_all", all_it_takes), ("movement", movement)):
                stream = f"{name}-{turn}"
                client.create_stream(StreamName=stream, ShardCount=4)
                client.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1})
                found[name].append(contender(stream))
                client.delete_stream(StreamName=stream)
    return {name: statistics.median(results) for name, results in found.items()}


def _kinesalite() -> str | None:
    """kinesalite's program: from PATH, or where the tests install it."""
    installed = Path(__file__).parents[1] / ".emulators" / "node_modules" / ".bin" / "kinesalite"
    return shutil.which("kinesalite") or (str(installed) if installed.exists() else None)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=300_000)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--json", type=Path)
    options.add_argument("--kinesalite", default=_kinesalite(), help="its program")
    arguments = options.parse_args()
    os.environ.update(AWS)
    result: dict[str, Any] = {"rows": arguments.rows, "cpus": os.cpu_count(), "load": os.getloadavg()}

    with tempfile.TemporaryDirectory() as folder_name:
        folder, state = Path(folder_name) / "one", Path(folder_name) / "state"
        write_sample(arguments.rows, folder, cities=1)
        many = Path(folder_name) / "many"
        write_sample(arguments.rows, many, cities=1)
        for number in range(2, 9):
            shutil.copy(many / "Travel_Times - Paris.csv", many / f"Travel_Times - Paris {number}.csv")
        batches = encoded(folder, arguments.rows)
        records = [record for batch in batches for record in batch]
        result["record_bytes"] = round(sum(len(record.Data) for record in records) / len(records), 1)

        with accepting_server() as endpoint:
            os.environ["AWS_ENDPOINT_URL_KINESIS"] = endpoint
            single, loop, movement = best_of(
                arguments.runs,
                lambda: one_a_row(folder, 2000),
                lambda: signed_loop(endpoint, batches),
                lambda: ours(folder, state),
            )
            result["records_per_second"] = {
                "one_a_row": statistics.median(single),
                "signed_loop": statistics.median(loop),
                "movement": statistics.median(movement),
            }
            # Each turn's own ratio: on a machine that others use too, a turn's contenders met the same load.
            result["ratios"] = {
                "to_one_a_row": statistics.median(m / s for m, s in zip(movement, single, strict=True)),
                "to_signed_loop": statistics.median(m / s for m, s in zip(movement, loop, strict=True)),
            }
            # Steadier than a clock on the wall where others use the machine too.
            result["cpu_seconds_per_million"] = {
                "signed_loop": cpu_seconds(lambda: signed_loop(endpoint, batches), arguments),
                "movement": cpu_seconds(lambda: ours(folder, state), arguments),
                **stages(folder, arguments.rows),
            }
            result["processes"] = {str(n): in_processes(many, state, n) for n in (1, 2, 4)}
            result["ratios"]["4_processes_to_1"] = result["processes"]["4"] / result["processes"]["1"]
            result["profile"] = profile(folder, state)
        if arguments.kinesalite:
            result["kinesalite"] = on_kinesalite(arguments.kinesalite, folder, state, 40_000)
            result["ratios"]["to_kinesalite_at_all"] = result["kinesalite"]["movement"] / result["kinesalite"]["at_all"]
        else:
            print("kinesalite is not in PATH (npm install kinesalite): left out", file=sys.stderr)

    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
