"""uvicorn's HTTP/1.1 protocol with what it lacks on a network: deadlines, and a limit of the headers.

`movement serve` names `protocol` to uvicorn. A client that sends slowly or never ends, or does not read its answer,
loses its connection. uvicorn itself limits only the number of connections and the idle time between two requests.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from producer.api import settings_from_environment

# An answer that the client has not read by then is dropped. The largest blob of the page takes 6 MB.
ANSWER_SECONDS = 60.0
# uvicorn queues requests that arrive before the previous one is answered, each with an object for its answer.
MAX_PIPELINED = 16

_SENTENCES = {
    400: "Invalid HTTP request received.",
    408: "The request did not arrive in time.",
    431: "The request's headers are too large.",
}


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `receive_seconds` is for a whole request, from its first byte to the last of its body."""

    def __init__(self, *arguments: Any, receive_seconds: float, max_header_bytes: int, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._receive_seconds = receive_seconds
        self._max_header_bytes = max_header_bytes
        # Bytes since the start of the request, or since a piece of its body: headers, chunk sizes, trailers.
        self._header_bytes = 0
        self._receiving = False
        self._in_body = False
        self._refusal = 400
        self._deadline: asyncio.TimerHandle | None = None
        self._answer_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._answer_deadline):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._header_bytes += len(data)
        super().data_received(data)
        if self._header_bytes > self._max_header_bytes and not self.transport.is_closing():
            self._refuse(431)
        self._watch()

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ConnectionAbortedError("too many requests before the first answer")
        self._receiving = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._header_bytes = 0
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self._max_header_bytes:
            self._refusal = 431
            raise ConnectionAbortedError("the headers are too large")
        super().on_headers_complete()
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        self._header_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._header_bytes = 0
        self._receiving = self._in_body = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._answer_deadline = self.loop.call_later(ANSWER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._answer_deadline is not None:
            self._answer_deadline.cancel()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for a request that cannot be parsed, and after an exception of a method above."""
        self._refuse(self._refusal)

    def _watch(self) -> None:
        """Runs the deadline while the client has to send something: most requests arrive at once and start none."""
        answered = self.cycle is None or self.cycle.response_complete
        if not (self._receiving or answered) or self.transport.is_closing():
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._receive_seconds, self._refuse, 408)

    def _refuse(self, status: int) -> None:
        """Closes the connection, after an answer if the request has none yet."""
        cycle = self.cycle
        answerable = not cycle.response_started if self._in_body else cycle is None or cycle.response_complete
        if not answerable or self.pipeline:
            self.transport.abort()
            return
        if self._in_body:
            cycle.disconnected = True
        text = _SENTENCES[status].encode()
        self.transport.write(
            STATUS_LINE[status]
            + b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
            + b"content-length: %d\r\n\r\n%b" % (len(text), text)
        )
        self.transport.close()


@functools.cache
def _limits() -> dict[str, Any]:
    settings = settings_from_environment().api
    return {"receive_seconds": settings.receive_seconds, "max_header_bytes": settings.max_header_bytes}


def protocol(*arguments: Any, **named: Any) -> LimitedProtocol:
    """A LimitedProtocol with the limits of the settings that `movement serve` passed to this process."""
    return LimitedProtocol(*arguments, **_limits(), **named)
