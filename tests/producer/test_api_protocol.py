"""What a connection may do to the server: each connection that is slow, too large or silent is closed in time."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from producer import api_protocol
from producer.api_protocol import LimitedProtocol
from tests.helpers.ports import free_port

RECEIVE_SECONDS = 0.3
POST = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers /early before the body, /large with 20 MB, and others after the body; nothing if the client has left."""
    if scope["type"] != "http":
        return
    while scope["path"] != "/early":
        message = await receive()
        if message["type"] == "http.disconnect":
            scope["state"]["gone"].append(scope["path"])
            return
        if not message["more_body"]:
            break
    body = b"x" * (20_000_000 if scope["path"] == "/large" else 2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


GONE: list[str] = []


async def with_state(scope: dict[str, Any], receive: Any, send: Any) -> None:
    scope["state"] = {"gone": GONE}
    await application(scope, receive, send)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    number = free_port()
    limited: Any = functools.partial(LimitedProtocol, receive_seconds=RECEIVE_SECONDS, max_header_bytes=4096)
    config = uvicorn.Config(
        with_state, port=number, http=limited, ws="none", lifespan="off", log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield number
    server.should_exit = True
    thread.join(10)


@contextlib.contextmanager
def connection(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as found:
        yield found


def everything(found: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := found.recv(65536):
            parts.append(part)
    return b"".join(parts)


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(
    "sent", [b"", b"POST / HT", b"POST / HTTP/1.1\r\nHost: a\r\nX-A: b", POST % b"/" + b"123", b"\r\n"]
)
def test_a_request_that_does_not_arrive_in_time_is_408(port: int, sent: bytes) -> None:
    with connection(port) as client:
        client.sendall(sent)
        started = time.monotonic()
        assert statuses(everything(client)) == [408]
        assert 0.5 * RECEIVE_SECONDS < time.monotonic() - started < 3


def test_the_application_learns_of_a_body_that_does_not_arrive(port: int) -> None:
    with connection(port) as client:
        client.sendall(POST % b"/slow" + b"1")
        everything(client)
    deadline = time.monotonic() + 3
    while "/slow" not in GONE and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "/slow" in GONE


@pytest.mark.parametrize("path", [b"/", b"/early"])
def test_a_byte_now_and_then_does_not_extend_the_time(port: int, path: bytes) -> None:
    with connection(port) as client:
        client.sendall(b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" % path)
        ended = time.monotonic() + 3
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < ended:
                client.sendall(b"1")
                time.sleep(0.02)
    assert time.monotonic() < ended, "the connection is still open"


def test_requests_that_arrive_in_time_keep_their_connection(port: int) -> None:
    with connection(port) as client:
        for _ in range(4):
            client.sendall(POST % b"/" + b"12345")
            time.sleep(0.4 * RECEIVE_SECONDS)
            client.sendall(b"67890")
            assert statuses(client.recv(1000)) == [200]
            time.sleep(0.4 * RECEIVE_SECONDS)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 5000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 5000,
        b"GET /" + b"a" * 5000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 1000,
        CHUNKED + b"1\r\n1\r\n0\r\n",
    ],
    ids=["header", "endless header", "endless address", "many headers", "endless trailer"],
)
def test_headers_that_are_too_large_are_431(port: int, sent: bytes) -> None:
    with connection(port) as client:
        client.sendall(sent)
        if sent.startswith(CHUNKED):
            time.sleep(0.05)
            client.sendall(b"X-A: " + b"a" * 5000)
        assert statuses(everything(client)) == [431]


def test_a_chunked_body_may_be_larger_than_the_headers(port: int) -> None:
    with connection(port) as client:
        client.sendall(CHUNKED + b"3e8\r\n" + b"a" * 1000 + b"\r\n")
        for _ in range(20):
            client.sendall(b"3e8\r\n" + b"a" * 1000 + b"\r\n")
        client.sendall(b"0\r\n\r\n")
        assert statuses(client.recv(1000)) == [200]


def test_a_few_requests_may_be_sent_ahead_and_thousands_may_not(port: int) -> None:
    with connection(port) as client:
        client.sendall(GET * 2 + GET[:-2] + b"Connection: close\r\n\r\n")
        assert statuses(everything(client)) == [200, 200, 200]
    with connection(port) as client:
        client.sendall(GET * 5000)
        assert len(statuses(everything(client))) < 100


def test_an_answer_that_nobody_reads_is_dropped(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_protocol, "ANSWER_SECONDS", 0.2)
    with connection(port) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.8)
        assert len(everything(client)) < 20_000_000
