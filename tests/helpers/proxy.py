"""A proxy in front of the embedded AWS, for tests that inspect requests or make them fail."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """Forwards every request to `upstream`, at `endpoint`. Subclasses override `handle`."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:  # the client has closed the connection
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Logs nothing."""

            def do_GET(self) -> None:
                proxy.handle(self, proxy._body(self))

            do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handle(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        """Forwards a request and answers it."""
        self.answer(request, *self.forward(request, body))

    def forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        """Sends a request to the upstream; returns its answer and body."""
        connection = http.client.HTTPConnection(self._upstream.hostname or "", self._upstream.port, timeout=120)
        try:
            headers = {
                name: value
                for name, value in request.headers.items()
                if name.lower() not in ("connection", "transfer-encoding", "content-length", "expect")
            }
            connection.request(request.command, request.path, body, headers | {"Content-Length": str(len(body))})
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    @staticmethod
    def answer(
        request: BaseHTTPRequestHandler, answer: http.client.HTTPResponse, content: bytes, sent: int | None = None
    ) -> None:
        """Answers with the upstream's answer. `sent`: send only this many bytes of the body."""
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                request.send_header(name, value)
        length = answer.getheader("Content-Length") if request.command == "HEAD" else str(len(content))
        if length is not None and answer.status not in (204, 304):
            request.send_header("Content-Length", length)
        request.end_headers()
        request.wfile.write(content[:sent])

    @staticmethod
    def _body(request: BaseHTTPRequestHandler) -> bytes:
        if "chunked" not in request.headers.get("Transfer-Encoding", ""):
            return request.rfile.read(int(request.headers.get("Content-Length", "0")))
        found = b""
        while size := int(request.rfile.readline().partition(b";")[0], 16):
            found += request.rfile.read(size)
            request.rfile.readline()
        while request.rfile.readline().strip():  # trailers
            continue
        return found
