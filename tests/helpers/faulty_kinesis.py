"""A Kinesis endpoint that fails on request and keeps the records that it accepted."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RANGE = 2**128
THROTTLED = "ProvisionedThroughputExceededException"


class Reset:
    """Reset the connection, before or `after` accepting the records."""

    def __init__(self, after: bool) -> None:
        self.after = after


class Hang:
    """Accept the records and do not answer for 3 s."""


class Status:
    """Answer the whole request with this status and code, before or `after` accepting the records."""

    def __init__(self, status: int, code: str, after: bool = False) -> None:
        self.status, self.code, self.after = status, code, after


class Fail:
    """Fail the records whose index in the request matches with this code; accept the others."""

    def __init__(self, matches: Callable[[int], bool], code: str = THROTTLED) -> None:
        self.matches, self.code = matches, code


class FaultyKinesis:
    """Serves PutRecords, DescribeStreamSummary and ListShards on 127.0.0.1 for one stream named `stream`.

    `faults(n)` is the fault of PutRecords request n, counted from 0 (None: no fault). `records_per_second` throttles
    each shard. `accepted` has (partition key, data) of every accepted record, in order; `requests` the partition keys
    of every request; `refused` the number of failed records; `overlaps` the number of requests with a key that was in
    another open request.
    """

    def __init__(
        self,
        faults: Callable[[int], Any] = lambda _number: None,
        *,
        shards: int = 2,
        records_per_second: float | None = None,
        delay: float = 0.0,
        port: int = 0,
    ) -> None:
        self.faults = faults
        self.shards = shards
        self.records_per_second = records_per_second
        self.delay = delay
        self.accepted: list[tuple[str, bytes]] = []
        self.requests: list[list[str]] = []
        self.headers: list[dict[str, str]] = []
        self.refused = 0
        self.overlaps = 0
        self._busy_keys: set[str] = set()
        self._tokens = [[records_per_second or 0.0, time.monotonic()] for _ in range(shards)]
        self._lock = threading.Lock()
        self._port = port
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> FaultyKinesis:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self) -> None:
        kinesis = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                kinesis._serve(self)

            def log_message(self, *_arguments: object) -> None:
                """Logs nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        operation = handler.headers["X-Amz-Target"].rpartition(".")[2]
        if self._server is None:
            self._reset(handler)
            return
        self.headers.append(dict(handler.headers.items()))
        if operation == "PutRecords":
            self._put_records(handler, body["Records"])
        elif operation == "DescribeStreamSummary":
            self.answer(handler, 200, {"StreamDescriptionSummary": {"StreamName": "stream"}})
        else:
            step = RANGE // self.shards
            shards = [
                {
                    "ShardId": f"shardId-{n:012d}",
                    "HashKeyRange": {"StartingHashKey": str(n * step), "EndingHashKey": str((n + 1) * step - 1)},
                    "SequenceNumberRange": {"StartingSequenceNumber": "1"},
                }
                for n in range(self.shards)
            ]
            self.answer(handler, 200, {"Shards": shards})

    def _put_records(self, handler: BaseHTTPRequestHandler, records: list[dict[str, str]]) -> None:
        keys = [record["PartitionKey"] for record in records]
        with self._lock:
            fault = self.faults(len(self.requests))
            self.requests.append(keys)
            self.overlaps += not self._busy_keys.isdisjoint(keys)
            self._busy_keys.update(keys)
        time.sleep(self.delay)
        if (isinstance(fault, Reset) and not fault.after) or (isinstance(fault, Status) and not fault.after):
            results: list[dict[str, str]] = []
        else:
            results = self.accept(records, fault)
        with self._lock:
            self._busy_keys.difference_update(keys)
        if isinstance(fault, Reset):
            self._reset(handler)
        elif isinstance(fault, Hang):
            time.sleep(3)
            self._reset(handler)
        elif isinstance(fault, Status):
            self.answer(handler, fault.status, {"__type": fault.code, "message": "injected"})
        else:
            failed = sum("ErrorCode" in result for result in results)
            self.answer(handler, 200, {"FailedRecordCount": failed, "Records": results})

    def accept(self, records: list[dict[str, str]], fault: Any) -> list[dict[str, str]]:
        """Accepts the records that the fault and the rate limit allow. Returns the results of all records."""
        results = []
        with self._lock:
            for index, record in enumerate(records):
                digest = hashlib.md5(record["PartitionKey"].encode(), usedforsecurity=False).digest()
                shard = int.from_bytes(digest, "big") // (RANGE // self.shards)
                if (isinstance(fault, Fail) and fault.matches(index)) or not self._has_token(shard):
                    self.refused += 1
                    code = fault.code if isinstance(fault, Fail) else THROTTLED
                    results.append({"ErrorCode": code, "ErrorMessage": "Rate exceeded for shard"})
                    continue
                self.accepted.append((record["PartitionKey"], base64.b64decode(record["Data"])))
                results.append({"SequenceNumber": str(len(self.accepted)), "ShardId": f"shardId-{shard:012d}"})
        return results

    def _has_token(self, shard: int) -> bool:
        if self.records_per_second is None:
            return True
        bucket, now = self._tokens[shard], time.monotonic()
        bucket[0] = min(self.records_per_second, bucket[0] + (now - bucket[1]) * self.records_per_second)
        bucket[1] = now
        if bucket[0] < 1:
            return False
        bucket[0] -= 1
        return True

    def answer(self, handler: BaseHTTPRequestHandler, status: int, content: dict[str, Any]) -> None:
        """Writes the HTTP response."""
        body = json.dumps(content).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/x-amz-json-1.1")
        handler.send_header("Content-Length", str(len(body)))
        # After a timeout the client has closed the connection.
        with contextlib.suppress(ConnectionError):
            handler.end_headers()
            handler.wfile.write(body)

    def _reset(self, handler: BaseHTTPRequestHandler) -> None:
        # With a linger time of 0 the client sees a reset, not a normal end.
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        handler.close_connection = True
        handler.connection.close()
