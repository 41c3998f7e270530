"""Requests a second and p99 of `movement serve`, by wrk on 127.0.0.1, against a Kinesis that accepts at once.

    python benchmarks/api.py [--seconds 5] [--connections 32] [--workers 1] [--no-attacks] [--json out.json]

Needs wrk (`apt-get install wrk`). For single records and for lists of 100; every answer is checked by its status.
Then `api_attacks`: memory and /healthz while large lists and slow bodies arrive. Exit code 1 if a limit is exceeded.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Run as a program, this folder's producer.py would hide the package of the same name.
sys.path[0] = str(Path(__file__).parents[1])

import urllib3  # noqa: E402

from benchmarks.accepting_server import accepting_server  # noqa: E402
from benchmarks.api_attacks import attacks, passed  # noqa: E402
from producer.sample import write_sample  # noqa: E402

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
# Each connection posts the bodies in turn, so that partition keys differ as in reality.
_SCRIPT = """
local bodies = {}
for line in io.lines("%s") do bodies[#bodies + 1] = line end
local at = 0
request = function()
  at = at %% #bodies + 1
  return wrk.format("POST", "/uber_movement", {["Content-Type"] = "application/json"}, bodies[at])
end
done = function(summary, latency)
  io.write(string.format("status errors: %%d\\n", summary.errors.status))
end
"""


def cpu_seconds(pid: int) -> float:
    """The processor time of a process so far. Unlike requests/s it hardly depends on what else the machine does."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(url: str, bodies: list[str], pid: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Parses wrk's requests/s, latencies in milliseconds, and the number of failed requests.

    `cpu_ms` is the server's processor time for a request, if it is one process.
    """
    with tempfile.TemporaryDirectory() as folder:
        lines, script = Path(folder) / "bodies", Path(folder) / "post.lua"
        lines.write_text("\n".join(bodies) + "\n", encoding="utf-8")
        script.write_text(_SCRIPT % lines, encoding="utf-8")
        cpu = cpu_seconds(pid)
        done = subprocess.run(
            f"wrk -t 1 -c {arguments.connections} -d {arguments.seconds}s --latency -s {script} {url}".split(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        cpu = cpu_seconds(pid) - cpu
    found = {
        f"p{share}_ms": float(value) * _UNITS[unit]
        for share, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)", done)
    }
    found["requests_per_second"] = float(re.search(r"Requests/sec:\s+([\d.]+)", done)[1])  # type: ignore[index]
    found["cpu_ms"] = 1000 * cpu / int(re.search(r"(\d+) requests in", done)[1])  # type: ignore[index]
    found["errors"] = float(re.search(r"status errors: (\d+)", done)[1])  # type: ignore[index]
    return found


def loads(url: str, single: list[str], lists: list[str], pid: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The load of single records and of lists, and how they compare."""
    result: dict[str, Any] = {
        "single": load(url, single, pid, arguments),
        "lists_of_100": load(url, lists, pid, arguments),
    }
    result["lists_of_100"]["records_per_second"] = 100 * result["lists_of_100"]["requests_per_second"]
    result["ratios"] = {
        "records_of_lists_to_single": result["lists_of_100"]["records_per_second"]
        / result["single"]["requests_per_second"]
    }
    return result


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    http = urllib3.PoolManager(retries=False, timeout=1)
    while server.poll() is None:
        try:
            http.request("GET", url + "/healthz")
        except urllib3.exceptions.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("the API did not start")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=int, default=5)
    options.add_argument("--connections", type=int, default=32)
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--no-attacks", action="store_true", help="only the load")
    options.add_argument("--only-attacks", action="store_true", help="no load, and no wrk")
    options.add_argument("--json", type=Path)
    arguments = options.parse_args()
    if not arguments.only_attacks and shutil.which("wrk") is None:
        print("wrk is not in PATH: apt-get install wrk", file=sys.stderr)
        return 2
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        write_sample(2000, Path(folder), cities=1)
        with (Path(folder) / "Travel_Times - Paris.csv").open(encoding="utf-8", newline="") as rows:
            records = [row | {"City": "Paris"} for row in csv.DictReader(rows)]
    single = [json.dumps(record) for record in records]
    lists = [json.dumps(records[start : start + 100]) for start in range(0, len(records), 100)]
    result: dict[str, Any] = {
        "connections": arguments.connections,
        "workers": arguments.workers,
        "load": os.getloadavg(),
    }
    with accepting_server() as endpoint:
        environment = os.environ | {
            "AWS_ENDPOINT_URL_KINESIS": endpoint,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_REGION": "us-east-1",
            "PYTHONPATH": sys.path[0],
        }
        program = "import typer\nfrom movement.cli.serve import serve\ntyper.run(serve)"
        server = subprocess.Popen(
            [sys.executable, "-c", program, "--port", str(port), "--workers", str(arguments.workers)], env=environment
        )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(url, server)
            if not arguments.only_attacks:
                result |= loads(url, single, lists, server.pid, arguments)
            if not arguments.no_attacks:
                result["attacks"] = attacks(port, server.pid, single[0])
        finally:
            server.terminate()
            server.wait(20)
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    errors = any(result[name]["errors"] for name in ("single", "lists_of_100") if name in result)
    return 1 if errors or ("attacks" in result and not passed(result["attacks"])) else 0


if __name__ == "__main__":
    sys.exit(main())
