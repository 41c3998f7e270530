"""A proxy in front of the embedded AWS that makes a share of the requests fail."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler

from tests.helpers.proxy import Proxy

KINDS = ("throttle", "error 500", "slow", "reset before", "reset after", "reset within")
_S3_ERROR = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>as told</Message></Error>"
_JSON_THROTTLES = {"Kinesis": "ProvisionedThroughputExceededException", "AWSGlue": "ThrottlingException"}


class BadNetwork(Proxy):
    """Forwards requests to `upstream`. A share of them is throttled, fails, is slow or loses its connection.

    `reset after`: the request is executed and its answer is lost. `reset within`: the connection breaks after half of
    the answer. `done` counts the requests by service and kind of fault.
    """

    def __init__(self, upstream: str, share: float, seed: int = 1) -> None:
        super().__init__(upstream)
        self.done: Counter[tuple[str, str]] = Counter()
        # One request of each block fails, at a random position. The kinds take turns.
        self._block = round(1 / share)
        self._passed = 0
        self._place = 0
        self._chance = random.Random(seed)
        self._lock = threading.Lock()

    def handle(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        """Forwards a request, or makes it fail."""
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
        answer, content = self.forward(request, body)
        if fault == "reset after":
            return self._reset(request)
        if fault == "reset within":
            self.answer(request, answer, content, sent=len(content) // 2)
            return self._reset(request)
        return self.answer(request, answer, content)

    def _fault(self) -> str:
        block, place = divmod(self._passed, self._block)
        self._passed += 1
        if place == 0:
            self._place = self._chance.randrange(self._block)
        return KINDS[block % len(KINDS)] if place == self._place else ""

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
        """Closes the connection with a RST, as a failing load balancer does."""
        request.close_connection = True
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.connection.close()
