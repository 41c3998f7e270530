"""Serves ready-made GetRecords answers faster than any client reads them, so that decoding is what is measured.

An iterator is the number of the page it reads; after the last page the iterator is null, as at a closed shard's
end. The connection is kept; nothing is computed while a benchmark runs.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
from datetime import UTC, datetime

RECORDS_PER_PAGE = 10_000
FIRST = 49680503127535665729593405367196750428598015925342437378
ARRIVAL = 1_764_000_000.0


def page(number: int, pages: int, payload_bytes: int) -> bytes:
    """One whole HTTP answer."""
    payload = os.urandom(payload_bytes * 3 // 4)
    text = base64.b64encode(base64.b64encode(payload)[:payload_bytes]).decode()
    records = [
        {
            "SequenceNumber": str(FIRST + number * RECORDS_PER_PAGE + place),
            "ApproximateArrivalTimestamp": ARRIVAL + number + place / RECORDS_PER_PAGE,
            "Data": text,
            "PartitionKey": f"{place % 997}-{place % 1009}",
        }
        for place in range(RECORDS_PER_PAGE)
    ]
    last = number == pages - 1
    body = json.dumps(
        {
            "Records": records,
            "MillisBehindLatest": 0 if last else 60_000,
            "NextShardIterator": None if last else str(number + 1),
        },
        separators=(",", ":"),
    ).encode()
    return answer(body)


def answer(body: bytes) -> bytes:
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nDate: {date}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class ReplayServer:
    """On a free port of 127.0.0.1, a thread for each connection. `with ReplayServer(pages=10) as server:`"""

    def __init__(self, pages: int, payload_bytes: int = 400) -> None:
        self.records = pages * RECORDS_PER_PAGE
        self._pages = [page(number, pages, payload_bytes) for number in range(pages)]
        self._first = answer(b'{"ShardIterator":"0"}')
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> ReplayServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed: the benchmark is over
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                received = connection.recv(65536)
                if not received:
                    return
                buffer += received
            head, _, rest = buffer.partition(b"\r\n\r\n")
            headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
            length = int(headers.get(b"content-length", b"0"))
            if headers.get(b"expect", b"") == b"100-continue":
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            while len(rest) < length:
                rest += connection.recv(65536)
            body, buffer = rest[:length], rest[length:]
            if headers[b"x-amz-target"].endswith(b"getrecords"):
                connection.sendall(self._pages[int(json.loads(body)["ShardIterator"])])
            else:
                connection.sendall(self._first)
