"""A proxy in front of the embedded AWS that answers a share of the requests as AWS does on a bad day."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

KINDS = ("throttle", "error 500", "slow", "reset before", "reset after")
_S3_ERROR = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>as told</Message></Error>"
_JSON_THROTTLES = {"Kinesis": "ProvisionedThroughputExceededException", "AWSGlue": "ThrottlingException"}


class BadNetwork:
    """Forwards to `upstream`; of the requests `share` are throttled, fail, are slow or lose their connection.

    `reset after` is the worst of them: the request is carried out and its answer is lost. `done` counts what was
    done, by service and kind.
    """

    def __init__(self, upstream: str, share: float, seed: int = 1) -> None:
        self.done: Counter[tuple[str, str]] = Counter()
        self._upstream = urlsplit(upstream)
        # One request of each block goes wrong, at a place that chance decides, the kinds taking turns.
        self._block = round(1 / share)
        self._passed = 0
        self._place = 0
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        network = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:  # the client has given up
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Says nothing."""

            def do_GET(self) -> None:
                network._handle(self)

            do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> BadNetwork:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        body = self._body(request)
        service = request.headers.get("X-Amz-Target", "S3").partition("_")[0].partition(".")[0]
        with self._lock:
            fault = self._fault()
            self.done[service, fault] += 1
        if fault == "reset before":
            return self._reset(request)
        if fault in ("throttle", "error 500"):
            return self._refuse(request, service, fault)
        if fault == "slow":
            time.sleep(1.5)
        answer, content = self._forward(request, body)
        if fault == "reset after":
            return self._reset(request)
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                request.send_header(name, value)
        length = answer.getheader("Content-Length") if request.command == "HEAD" else str(len(content))
        if length is not None and answer.status not in (204, 304):
            request.send_header("Content-Length", length)
        request.end_headers()
        request.wfile.write(content)
        return None

    def _fault(self) -> str:
        block, place = divmod(self._passed, self._block)
        self._passed += 1
        if place == 0:
            self._place = self._chance.randrange(self._block)
        return KINDS[block % len(KINDS)] if place == self._place else ""

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

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
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
    def _refuse(request: BaseHTTPRequestHandler, service: str, fault: str) -> None:
        throttled = fault == "throttle"
        if service == "S3":
            status = 503 if throttled else 500
            content = _S3_ERROR.format(code="SlowDown" if throttled else "InternalError")
        else:
            status = 400 if throttled else 500
            code = _JSON_THROTTLES.get(service, "ThrottlingException") if throttled else "InternalFailure"
            content = f'{{"__type": "{code}", "message": "as told"}}'
        request.send_response(status)
        request.send_header("Content-Type", "application/xml" if service == "S3" else "application/x-amz-json-1.1")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content.encode())

    @staticmethod
    def _reset(request: BaseHTTPRequestHandler) -> None:
        """Closes the connection with a RST, as a dying load balancer does."""
        request.close_connection = True
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.connection.close()
