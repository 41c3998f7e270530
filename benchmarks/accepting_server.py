"""A Kinesis endpoint that accepts every record at once, so that a benchmark measures only the client.

It implements the minimum of HTTP, counts the records of a request by their keys, and answers from a cache. As a
program it prints its port.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import subprocess
import sys
from collections.abc import Iterator

import uvloop

_ANSWER_TO_ONE = {"SequenceNumber": "49" * 28, "ShardId": "shardId-000000000000"}


@functools.lru_cache(maxsize=1024)
def _answer(operation: bytes, records: int) -> bytes:
    if operation == b"PutRecord":
        content: object = _ANSWER_TO_ONE
    elif operation == b"PutRecords":
        content = {"FailedRecordCount": 0, "Records": [_ANSWER_TO_ONE] * records}
    else:
        content = {"StreamDescriptionSummary": {"StreamName": "stream"}}
    body = json.dumps(content, separators=(",", ":")).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class _Connection(asyncio.BufferedProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._buffer = bytearray(8 * 1024 * 1024)
        self._filled = 0
        self._wanted = 0
        self._head = b""

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, count: int) -> None:
        self._filled += count
        while True:
            if not self._wanted:
                end = self._buffer.find(b"\r\n\r\n", 0, self._filled)
                if end < 0:
                    return
                self._head = bytes(self._buffer[:end]).lower()
                at = self._head.index(b"content-length:") + 15
                self._wanted = end + 4 + int(self._head[at : self._head.find(b"\r", at) % (len(self._head) + 1)])
            if self._filled < self._wanted:
                return
            at = self._head.index(b"x-amz-target:")
            target = self._head[at : self._head.find(b"\r", at) % (len(self._head) + 1)]
            operation = b"PutRecords" if b".putrecords" in target else b"PutRecord" if b".putrecord" in target else b""
            records = self._buffer.count(b'"PartitionKey"', 0, self._wanted) if operation == b"PutRecords" else 1
            self._transport.write(_answer(operation, records))
            rest = self._filled - self._wanted
            self._buffer[:rest] = self._buffer[self._wanted : self._filled]
            self._filled, self._wanted = rest, 0


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def accepting_server() -> Iterator[str]:
    """The URL of this endpoint in its own process."""
    process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE)
    try:
        port = int(process.stdout.readline()) if process.stdout else 0
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve())
