"""Records/s from a file to acknowledged, against a server that accepts at once.

    python -m benchmarks.producer [--rows 300000] [--json out.json] [--kinesalite BIN]

Compares in one run and one process: `movement produce`; (a) the original producer, one `put_record` a row; (b) a loop
that signs and sends encoded records with urllib3 and orjson; (c) `movement produce` of the same rows as JSON lines
and as Parquet. Then measures 1, 2 and 4 processes, the CPU seconds of each stage, and, if kinesalite is installed, the
share of the emulator's own limit.
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

# As a script, this folder comes first in sys.path, and this file would hide the package `producer`.
sys.path[0] = str(Path(__file__).parents[1])

import boto3  # noqa: E402
import orjson  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import urllib3  # noqa: E402
from botocore.auth import SigV4Auth  # noqa: E402
from botocore.awsrequest import AWSRequest  # noqa: E402
from botocore.credentials import Credentials  # noqa: E402

from benchmarks.accepting_server import accepting_server  # noqa: E402
from jobs.schema.table import load_contract  # noqa: E402
from jobs.settings.settings import Settings, load_settings  # noqa: E402
from producer.input_files import find_input_files  # noqa: E402
from producer.parallel import send_in_processes  # noqa: E402
from producer.produce import plan, produce, send  # noqa: E402
from producer.put_records import PutRecordsClient  # noqa: E402
from producer.readers import encoder_for, open_reader  # noqa: E402
from producer.record_encoder import PutRecordsEntry  # noqa: E402
from producer.sample import write_sample  # noqa: E402

AWS = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}
REQUEST_RECORDS = 500


def settings(stream: str, state: Path, *more: str) -> Settings:
    return load_settings(None, [f"stream.name={stream}", f"local.state_dir={state}", *more])


def encoded(folder: Path, rows: int) -> list[list[PutRecordsEntry]]:
    """The first `rows` rows of the folder as the records of each request."""
    contract = load_contract("travel_times.yaml")
    requests: list[list[PutRecordsEntry]] = []
    for export in find_input_files([folder], load_contract("travel_times.yaml").file_name):
        with open_reader(export) as reader:
            encode = encoder_for(reader, export, contract, 1024 * 1024, True)
            for chunk in reader.chunks():
                encoded = encode(chunk)
                for start in range(0, chunk.file_rows, REQUEST_RECORDS):
                    requests.append(encoded.part(start, start + REQUEST_RECORDS)[0])
                    if sum(map(len, requests)) >= rows:
                        return requests
    return requests


def one_a_row(folder: Path, rows: int) -> float:
    """(a): DictReader, json.dumps and one put_record a row, like the original producer."""
    client = boto3.client("kinesis")
    started, sent = time.perf_counter(), 0
    for export in find_input_files([folder], load_contract("travel_times.yaml").file_name):
        with open(export.path, encoding="utf-8", newline="") as source:
            for row in csv.DictReader(source):
                client.put_record(StreamName="stream", Data=json.dumps(row).encode(), PartitionKey="key")
                sent += 1
                if sent == rows:
                    return rows / (time.perf_counter() - started)
    return sent / (time.perf_counter() - started)


def signed_loop(endpoint: str, requests: list[list[PutRecordsEntry]]) -> float:
    """(b): base64, orjson, SigV4 and urllib3 for encoded records; no files, no checks, no retries."""
    pool = urllib3.connection_from_url(endpoint)
    signer = SigV4Auth(Credentials("bench", "bench"), "kinesis", "us-east-1")
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Kinesis_20131202.PutRecords"}
    started = time.perf_counter()
    for entries in requests:
        records = [{"Data": base64.b64encode(one.Data).decode(), "PartitionKey": one.PartitionKey} for one in entries]
        request = AWSRequest(
            "POST", endpoint + "/", headers=headers, data=orjson.dumps({"StreamName": "stream", "Records": records})
        )
        signer.add_auth(request)
        answer = pool.urlopen("POST", "/", body=request.data, headers=dict(request.headers))
        if orjson.loads(answer.data)["FailedRecordCount"]:
            raise RuntimeError("the server rejected records")
    return sum(map(len, requests)) / (time.perf_counter() - started)


def movement_produce(folder: Path, state: Path) -> float:
    """`movement produce` without its screen: files, checks, checkpoint, order, retries."""
    result = produce([folder], settings("stream", state), keep_checkpoint=True, on_progress=lambda _progress: None)
    return result.produced / result.seconds


def in_processes(folder: Path, state: Path, processes: int) -> float:
    prepared = plan([folder], settings("stream", state))
    result = send_in_processes(prepared, processes) if processes > 1 else send(prepared)
    # The processes' own clocks leave the start of the interpreter out.
    return result.produced / result.seconds


def write_other_formats(source: Path, json_lines: Path, parquet: Path) -> None:
    """Writes the rows of a folder's CSV files as JSON lines and as Parquet, every value as text."""
    json_lines.mkdir()
    parquet.mkdir()
    for file in source.glob("*.csv"):
        with file.open(encoding="utf-8", newline="") as source_rows:
            rows = list(csv.DictReader(source_rows))
        with (json_lines / f"{file.stem}.jsonl").open("wb") as lines:
            lines.writelines(orjson.dumps(row) + b"\n" for row in rows)
        pq.write_table(pa.Table.from_pylist(rows), parquet / f"{file.stem}.parquet")


def best_of(runs: int, *contenders: Callable[[], float]) -> list[list[float]]:
    """Runs the contenders in turns, so that other load of the machine affects them equally."""
    found: list[list[float]] = [[] for _ in contenders]
    for _ in range(runs):
        for results, contender in zip(found, contenders, strict=True):
            results.append(contender())
    return found


def cpu_seconds(contender: Callable[[], float], arguments: argparse.Namespace) -> float:
    """CPU seconds of this process for a million records, the minimum of the runs."""
    found = []
    for _ in range(arguments.runs):
        started = time.process_time()
        contender()
        found.append((time.process_time() - started) / arguments.rows * 1e6)
    return min(found)


def stages(folder: Path, rows: int) -> dict[str, float]:
    """CPU seconds for a million records: CSV; checks, JSON and keys; the request (body, signature, HTTP)."""
    contract = load_contract("travel_times.yaml")
    seconds = {"csv": 0.0, "check_and_json": 0.0, "request": 0.0}
    client = PutRecordsClient("stream")
    done = 0
    for export in find_input_files([folder], load_contract("travel_times.yaml").file_name):
        with open_reader(export) as reader:
            encode = encoder_for(reader, export, contract, 1024 * 1024, True)
            chunks = reader.chunks()
            while done < rows:
                before = time.process_time()
                chunk = next(chunks, None)
                read = time.process_time()
                if chunk is None:
                    break
                records, _ = encode(chunk).part(0, chunk.file_rows)
                made = time.process_time()
                for start in range(0, len(records), REQUEST_RECORDS):
                    client.put(records[start : start + REQUEST_RECORDS])
                seconds["csv"] += read - before
                seconds["check_and_json"] += made - read
                seconds["request"] += time.process_time() - made
                done += len(records)
    return {name: spent / done * 1e6 for name, spent in seconds.items()}


def profile(folder: Path, state: Path) -> list[str]:
    """The 12 functions with the most time of their own, by `cProfile`."""
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
    """Records/s on kinesalite: of encoded records (the emulator's own limit), and of `movement produce`."""
    requests = encoded(folder, rows)
    total = sum(map(len, requests))
    few = state / "few"
    write_sample(total, few, cities=1)

    def own_limit(stream: str) -> float:
        put_client = PutRecordsClient(stream, timeout_seconds=60)
        with ThreadPoolExecutor(4) as pool:
            started = time.perf_counter()
            for answer in pool.map(put_client.put, requests):
                if answer is not None:
                    raise RuntimeError("kinesalite rejected records")
            return total / (time.perf_counter() - started)

    def movement(stream: str) -> float:
        result = produce([few], settings(stream, state))
        return result.produced / result.seconds

    found: dict[str, list[float]] = {"at_all": [], "movement": []}
    with kinesalite(program) as endpoint:
        os.environ["AWS_ENDPOINT_URL_KINESIS"] = endpoint
        client = boto3.client("kinesis")
        for turn in range(3):
            for name, contender in (("at_all", own_limit), ("movement", movement)):
                stream = f"{name}-{turn}"
                client.create_stream(StreamName=stream, ShardCount=4)
                client.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1})
                found[name].append(contender(stream))
                client.delete_stream(StreamName=stream)
    return {name: statistics.median(results) for name, results in found.items()}


def _kinesalite() -> str | None:
    """The path of kinesalite: from PATH, or from the folder of the tests."""
    installed = Path(__file__).parents[1] / ".emulators" / "node_modules" / ".bin" / "kinesalite"
    return shutil.which("kinesalite") or (str(installed) if installed.exists() else None)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=300_000)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--json", type=Path)
    options.add_argument("--kinesalite", default=_kinesalite(), help="path of kinesalite")
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
        json_lines, parquet = Path(folder_name) / "json_lines", Path(folder_name) / "parquet"
        write_other_formats(folder, json_lines, parquet)
        requests = encoded(folder, arguments.rows)
        records = [record for request in requests for record in request]
        result["record_bytes"] = round(sum(len(record.Data) for record in records) / len(records), 1)

        with accepting_server() as endpoint:
            os.environ["AWS_ENDPOINT_URL_KINESIS"] = endpoint
            single, loop, movement, of_lines, of_parquet = best_of(
                arguments.runs,
                lambda: one_a_row(folder, 2000),
                lambda: signed_loop(endpoint, requests),
                lambda: movement_produce(folder, state),
                lambda: movement_produce(json_lines, state),
                lambda: movement_produce(parquet, state),
            )
            result["records_per_second"] = {
                "one_a_row": statistics.median(single),
                "signed_loop": statistics.median(loop),
                "movement": statistics.median(movement),
                "json_lines": statistics.median(of_lines),
                "parquet": statistics.median(of_parquet),
            }
            # The median of each turn's ratio, because the contenders of one turn see the same load.
            result["ratios"] = {
                "to_one_a_row": statistics.median(m / s for m, s in zip(movement, single, strict=True)),
                "json_lines_to_csv": statistics.median(j / m for j, m in zip(of_lines, movement, strict=True)),
                "parquet_to_csv": statistics.median(p / m for p, m in zip(of_parquet, movement, strict=True)),
                "to_signed_loop": statistics.median(m / s for m, s in zip(movement, loop, strict=True)),
            }
            # Steadier than elapsed time on a shared machine.
            result["cpu_seconds_per_million"] = {
                "signed_loop": cpu_seconds(lambda: signed_loop(endpoint, requests), arguments),
                "movement": cpu_seconds(lambda: movement_produce(folder, state), arguments),
                **stages(folder, arguments.rows),
                "json_lines": stages(json_lines, arguments.rows),
                "parquet": stages(parquet, arguments.rows),
            }
            result["processes"] = {str(n): in_processes(many, state, n) for n in (1, 2, 4)}
            result["ratios"]["4_processes_to_1"] = result["processes"]["4"] / result["processes"]["1"]
            result["profile"] = profile(folder, state)
        if arguments.kinesalite:
            result["kinesalite"] = on_kinesalite(arguments.kinesalite, folder, state, 40_000)
            result["ratios"]["to_kinesalite_at_all"] = result["kinesalite"]["movement"] / result["kinesalite"]["at_all"]
        else:
            print("kinesalite is not installed (npm install kinesalite): not measured", file=sys.stderr)

    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
