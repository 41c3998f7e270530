"""What one client can do to `movement serve`: memory and /healthz while large lists and slow bodies arrive.

`benchmarks.api` runs it. Each attack runs in a process of its own; this one measures. A record that is posted meanwhile
must be accepted.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import urllib3

MAX_MEMORY_MB = 300
MAX_HEALTH_SECONDS = 0.5
BODY_BYTES = 5 * 1024 * 1024
SLOW_BODIES = 300
# Longer than the default of api.receive_seconds.
SLOW_SECONDS = 40.0


def list_of(element: str) -> bytes:
    """A JSON list of 5 MB."""
    count = (BODY_BYTES - 1) // (len(element) + 1)
    return b"[" + b",".join([element.encode()] * count) + b"]"


async def _post(port: int, sent: bytes, announced: int, hold_seconds: float) -> bytes:
    """Sends the start of a body and returns the answer's first line; b"" if there is none."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /uber_movement HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % announced
        )
        writer.write(sent)
        line = await asyncio.wait_for(reader.readline(), hold_seconds)
        writer.close()
    except (OSError, TimeoutError):
        return b""
    return line


def _attack(port: int, sent: bytes, connections: int, announced: int, hold_seconds: float, results: Any) -> None:
    async def everything() -> list[bytes]:
        return await asyncio.gather(*(_post(port, sent, announced, hold_seconds) for _ in range(connections)))

    lines = asyncio.run(everything())
    statuses = [line.split()[1].decode() if line else "none" for line in lines]
    results.put({status: statuses.count(status) for status in sorted(set(statuses))})


def _memory_mb(pid: int) -> float:
    """The peak of the process's memory since its start."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _measure(port: int, pid: int, record: str, *attack: Any) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    attacker = context.Process(target=_attack, args=(port, *attack, results))
    http = urllib3.PoolManager(retries=False, timeout=60, maxsize=1)
    health, posts = [], []

    def timed(request: Callable[[], Any]) -> float:
        started = time.perf_counter()
        status = request().status
        if status != 200:
            raise RuntimeError(f"answered with {status} during the attack")
        return time.perf_counter() - started

    attacker.start()
    while attacker.is_alive():
        health.append(timed(lambda: http.request("GET", f"http://127.0.0.1:{port}/healthz")))
        posts.append(
            timed(
                lambda: http.request(
                    "POST",
                    f"http://127.0.0.1:{port}/uber_movement",
                    body=record,
                    headers={"Content-Type": "application/json"},
                )
            )
        )
        time.sleep(0.02)
    answers = results.get(timeout=10)
    attacker.join()
    return {
        "answers": answers,
        "peak_memory_mb": round(_memory_mb(pid), 1),
        "max_health_seconds": round(max(health), 3),
        "max_post_seconds": round(max(posts), 3),
    }


def attacks(port: int, pid: int, record: str) -> dict[str, Any]:
    """Runs the attacks one after the other: answers by status, peak memory so far, slowest answers meanwhile."""
    found: dict[str, Any] = {"memory_before_mb": round(_memory_mb(pid), 1)}
    for name, body in (("zeros", list_of("0")), ("empty_objects", list_of("{}"))):
        for connections in (1, 16):
            found[f"{name}_{connections}"] = _measure(port, pid, record, body, connections, len(body), 120.0)
    # Within the limit of elements: each of them is checked and rejected.
    small = json.dumps([{}] * 20_000).encode()
    found["rejected_20000_16"] = _measure(port, pid, record, small, 16, len(small), 120.0)
    almost = b" " * (BODY_BYTES - 100)
    found["slow_bodies"] = _measure(port, pid, record, almost, SLOW_BODIES, BODY_BYTES, SLOW_SECONDS)
    return found


def passed(found: dict[str, Any]) -> bool:
    """Whether memory and /healthz stayed within their limits, and no slow body is still open."""
    measured = [one for one in found.values() if isinstance(one, dict)]
    return (
        max(one["peak_memory_mb"] for one in measured) < MAX_MEMORY_MB
        and max(one["max_health_seconds"] for one in measured) < MAX_HEALTH_SECONDS
        and "none" not in found["slow_bodies"]["answers"]
    )
