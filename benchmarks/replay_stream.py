"""Serves a prefilled Kinesis stream from files, faster than any client reads.

It answers all calls that the source makes to plan and read batches (shards, iterators of every type, single records),
so a whole streaming job can drain it; `replay_server` only serves one reader's pages. The records are travel times of
about 400 bytes, or given lines again and again. It runs in a separate process:
`with ReplayStream(folder, records=…) as endpoint:`.
"""

from __future__ import annotations

import base64
import json
import multiprocessing
import random
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path

SHARDS = 4
PAGE = 10_000
RATE = 1000.0  # records/s at which a shard's records arrived
FIRST = 49680503127535665729593405367196750428598015925342437378
STREAM = "uber-movement-stream"
_START = b',{"SequenceNumber":'  # starts every record in a page; no payload contains it, because payloads are base64
_CITIES = ("Paris", "Boston", "São Paulo")
_PERIODS = ("09/03/2016 - 10/01/2016", "07/31/2016 - 08/28/2016")


def payloads(records: int, seed: int) -> Iterator[bytes]:
    """Travel times in the producer's format."""
    chance = random.Random(seed)
    for number in range(records):
        mean = chance.randint(60, 6000)
        record = {
            "City": _CITIES[number % 3],
            "Origin Movement ID": str(chance.randint(1, 900)),
            "Origin Display Name": f"{number % 999} Rue de l'Église, Centre, Paris",
            "Destination Movement ID": str(chance.randint(1, 900)),
            "Destination Display Name": f"{number % 777} Harbour Road, Old Town, Paris",
            "Date Range": f"{_PERIODS[number % 2]}, Every day, Daily Average",
            "Mean Travel Time (Seconds)": str(mean),
            "Range - Lower Bound Travel Time (Seconds)": str(mean // 2),
            "Range - Upper Bound Travel Time (Seconds)": str(mean * 2),
        }
        yield json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


class ReplayStream:
    """`records` records on SHARDS shards. `folder/json/` has the same records as JSON lines, for reading from disk."""

    def __init__(self, folder: Path, records: int, lines: list[bytes] | None = None) -> None:
        """`lines`: JSON texts, which are the records in turn; None: travel times."""
        self.folder = folder
        self.records = records
        self._lines = lines

    def __enter__(self) -> str:
        self._started_at = time.time() - self.records / SHARDS / RATE - 30
        _write(self.folder, self.records // SHARDS, self._started_at, self._lines)
        listener = socket.create_server(("127.0.0.1", 0))
        self._process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(listener, self.folder, self.records // SHARDS, self._started_at), daemon=True
        )
        self._process.start()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.close()
        return endpoint

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid or 0

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()


def _sequence(shard: int, number: int) -> str:
    return str(FIRST + shard * 10**12 + number)


def _record(shard: int, number: int, payload: bytes, started_at: float) -> str:
    data = base64.b64encode(payload).decode()
    arrival = round(started_at + number / RATE, 3)
    return (
        f'{{"SequenceNumber":"{_sequence(shard, number)}","ApproximateArrivalTimestamp":{arrival},'
        f'"Data":"{data}","PartitionKey":"{number % 997}"}}'
    )


def _write(folder: Path, each: int, started_at: float, lines: list[bytes] | None) -> None:
    """Writes each shard's records as pages of encoded JSON with an index, and as JSON lines."""
    (folder / "json").mkdir(parents=True, exist_ok=True)
    for shard in range(SHARDS):
        index = []
        with (folder / f"{shard}.pages").open("wb") as pages, (folder / f"json/{shard}.json").open("wb") as texts:
            page: list[str] = []
            records = payloads(each, shard) if lines is None else islice(cycle(lines), each)
            for number, payload in enumerate(records):
                texts.write(payload + b"\n")
                page.append(_record(shard, number, payload, started_at))
                if len(page) == PAGE or number == each - 1:
                    body = ",".join(page).encode()
                    index.append((pages.tell(), len(body)))
                    pages.write(body)
                    page = []
        (folder / f"{shard}.index").write_text(json.dumps(index))


def _serve(listener: socket.socket, folder: Path, each: int, started_at: float) -> None:
    stream = _Stream(folder, each, started_at)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_converse, args=(connection, stream), daemon=True).start()


def _converse(connection: socket.socket, stream: _Stream) -> None:
    file = connection.makefile("rb")
    while True:
        request = file.readline()
        if not request:
            return
        headers: dict[bytes, bytes] = {}
        while (line := file.readline().strip()) != b"":
            name, _, value = line.partition(b": ")
            headers[name.lower()] = value
        body = file.read(int(headers.get(b"content-length", b"0")))
        stream.answer(connection, headers[b"x-amz-target"].rpartition(b".")[2].decode(), json.loads(body))


class _Stream:
    def __init__(self, folder: Path, each: int, started_at: float) -> None:
        self._each = each
        self._started_at = started_at
        self._files = [(folder / f"{shard}.pages").open("rb") for shard in range(SHARDS)]
        self._index = [json.loads((folder / f"{shard}.index").read_text()) for shard in range(SHARDS)]
        self._names = [f"shardId-{shard:012d}" for shard in range(SHARDS)]
        self._lock = threading.Lock()

    def answer(self, connection: socket.socket, operation: str, request: dict[str, object]) -> None:
        if operation == "GetRecords":
            shard, _, number = str(request["ShardIterator"]).partition(":")
            limit = int(str(request.get("Limit", PAGE)))
            _send(connection, self._records(int(shard), int(number), limit))
        elif operation == "GetShardIterator":
            shard = self._names.index(str(request["ShardId"]))
            content = {"ShardIterator": f"{shard}:{self._position(shard, request)}"}
            _send(connection, [json.dumps(content).encode()])
        elif operation == "ListShards":
            _send(connection, [json.dumps({"Shards": [self._shard(shard) for shard in range(SHARDS)]}).encode()])
        else:
            summary = {"RetentionPeriodHours": 24, "StreamStatus": "ACTIVE", "StreamName": STREAM}
            summary |= {"StreamCreationTimestamp": self._started_at, "OpenShardCount": SHARDS}
            _send(connection, [json.dumps({"StreamDescriptionSummary": summary}).encode()])

    def _shard(self, shard: int) -> dict[str, object]:
        width = 2**128 // SHARDS
        keys = {"StartingHashKey": str(shard * width), "EndingHashKey": str((shard + 1) * width - 1)}
        numbers = {"StartingSequenceNumber": _sequence(shard, 0)}
        return {"ShardId": self._names[shard], "HashKeyRange": keys, "SequenceNumberRange": numbers}

    def _position(self, shard: int, request: dict[str, object]) -> int:
        kind = request["ShardIteratorType"]
        if kind == "AT_TIMESTAMP":
            moment = request["Timestamp"]
            seconds = moment if isinstance(moment, int | float) else datetime.fromisoformat(str(moment)).timestamp()
            return min(self._each, max(0, int((seconds - self._started_at) * RATE)))
        if "SEQUENCE" in str(kind):
            at = int(str(request["StartingSequenceNumber"])) - int(_sequence(shard, 0))
            return max(0, at + (kind == "AFTER_SEQUENCE_NUMBER"))
        return self._each if kind == "LATEST" else 0

    def _records(self, shard: int, number: int, limit: int) -> list[bytes]:
        """The parts of an answer's body. If it starts at the start of a page, it is sent as it is in the file."""
        if number >= self._each:
            body, end = b"", number
        else:
            offset, size = self._index[shard][number // PAGE]
            with self._lock:
                self._files[shard].seek(offset)
                body = self._files[shard].read(size)
            end = min(self._each, number // PAGE * PAGE + PAGE)
            if number % PAGE or limit < end - number:
                found = (b"," + body).split(_START)[1:][number % PAGE :][:limit]
                body, end = b"".join(_START + record for record in found)[1:], number + len(found)
        behind = int((self._each - end) / RATE * 1000)
        tail = f'],"MillisBehindLatest":{behind},"NextShardIterator":"{shard}:{end}"}}'.encode()
        return [b'{"Records":[', body, tail]


def _send(connection: socket.socket, parts: list[bytes]) -> None:
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nDate: {date}\r\n"
        f"Content-Length: {sum(map(len, parts))}\r\n\r\n"
    )
    connection.sendall(head.encode())
    for part in parts:
        connection.sendall(part)
