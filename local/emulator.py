"""The process of `movement local up`: moto over HTTP, one request at a time.

`local.server` starts it with a listening socket and the process file's lock, both inherited; SIGTERM ends it. boto3,
S3A and the AWS CLI send requests, moto answers them, and all state is in memory.

moto's backends are not thread-safe (of 20,000 records put by four threads, 19,953 were readable), so a lock serializes
its requests. Each connection has its own thread, which reads the whole body before it takes the lock. So an idle or
slow connection does not block others, as it would on a server with a single thread.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from threading import Lock
from typing import Any
from xml.sax.saxutils import escape

from flask import request
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from local import moto_emr, moto_glue_sqs, moto_kinesis

# No bucket's name begins with an underscore, so no S3 request has this path.
HEALTH_PATH = "/_movement/health"

# Where the crawler and the job runner set states (glue_states).
REPORT_PATHS = (moto_glue_sqs.CRAWL_PATH, moto_glue_sqs.JOB_RUN_PATH)

# moto's own control, such as /moto-api/reset, deletes everything. No page that the user has open may do that.
CONTROL_PATHS = ("/moto-api", *REPORT_PATHS)

# The maximum size of the log and its predecessor together.
LOG_BYTES = 10_000_000

# A connection is closed after this long without traffic.
IDLE_SECONDS = 120.0

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

logger = logging.getLogger("embedded-aws")


class SerialApplication:
    """A WSGI application that passes requests to `application` one at a time, each with its whole body."""

    def __init__(self, application: Callable[[Environ, StartResponse], Iterable[bytes]], identity: dict[str, Any]):
        self._application = application
        self._identity = json.dumps(identity).encode()
        self._lock = Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == HEALTH_PATH:
            return _json("200 OK", self._identity, start_response)
        if _is_browser(environ) and environ["PATH_INFO"].startswith(CONTROL_PATHS):
            return _json("403 Forbidden", b'{"error": "browsers may not control the embedded AWS"}', start_response)
        started = time.monotonic()
        body = _whole_body(environ)
        if environ["PATH_INFO"] in REPORT_PATHS:
            with self._lock:
                return _report(environ["PATH_INFO"], body, start_response)
        environ["wsgi.input"] = io.BytesIO(body)
        status = ""

        def answer(line: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            nonlocal status
            status = line
            return start_response(line, headers, exc_info)

        with self._lock:
            answered = self._application(environ, answer)
            try:
                parts = list(answered)
            finally:
                if hasattr(answered, "close"):
                    answered.close()
        logger.info(
            "%s %s %s %d in %d out %.0f ms",
            environ["REQUEST_METHOD"],
            environ.get("HTTP_X_AMZ_TARGET") or environ["RAW_URI"][:300],
            status[:3],
            len(body),
            sum(map(len, parts)),
            (time.monotonic() - started) * 1000,
        )
        return parts


def _is_browser(environ: Environ) -> bool:
    """Whether a web page sent the request: browsers add one of these headers, AWS clients none of them."""
    return "HTTP_ORIGIN" in environ or environ.get("HTTP_SEC_FETCH_SITE", "none") != "none"


def _json(status: str, body: bytes, start_response: StartResponse) -> list[bytes]:
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def _report(path: str, body: bytes, start_response: StartResponse) -> list[bytes]:
    try:
        moto_glue_sqs.set_state(path, json.loads(body))
    except (KeyError, IndexError, StopIteration, ValueError) as error:
        return _json("404 Not Found", json.dumps({"error": repr(error)}).encode(), start_response)
    logger.info("POST %s %s", path, body.decode())
    return _json("200 OK", b"{}", start_response)


def _whole_body(environ: Environ) -> bytes:
    """The request's body. Raises ConnectionResetError if the client disconnects before the end."""
    if environ.get("wsgi.input_terminated"):  # chunked: werkzeug ends the stream, or raises
        return bytes(environ["wsgi.input"].read())
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = bytes(environ["wsgi.input"].read(length)) if length else b""
    if len(body) < length:
        raise ConnectionResetError(f"the client sent {len(body)} of {length} bytes")
    return body


def _backend_app(service: Any) -> Any:
    """moto's Flask application of one service; an operation that moto lacks is an error that clients do not retry."""

    def not_implemented(error: Exception) -> tuple[str, int, dict[str, str]]:
        message = f"the embedded AWS lacks this operation of {service}: {error}"
        if request.mimetype == "application/x-www-form-urlencoded":  # IAM and others answer in XML
            error_element = f"<Error><Code>NotImplemented</Code><Message>{escape(message)}</Message></Error>"
            body = f"<ErrorResponse>{error_element}</ErrorResponse>"
            return body, 501, {"Content-Type": "text/xml"}
        body = json.dumps({"__type": "NotImplemented", "message": message})
        return body, 501, {"Content-Type": "application/x-amz-json-1.1"}

    application = create_backend_app(service)
    application.register_error_handler(NotImplementedError, not_implemented)
    return application


class _Handler(MotoRequestHandler):  # type: ignore[misc]
    """moto's request handler, without a second log line for each request."""

    timeout = IDLE_SECONDS

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """`SerialApplication` writes the log line."""


class _BoundedLog(RotatingFileHandler):
    """A log file of bounded size that also receives the process's standard output and error."""

    def __init__(self, file: Path):
        super().__init__(file, maxBytes=LOG_BYTES // 2, backupCount=1, encoding="utf-8")
        self._redirect_output()

    def doRollover(self) -> None:
        super().doRollover()
        self._redirect_output()

    def _redirect_output(self) -> None:
        if self.stream is not None:
            for descriptor in (1, 2):
                os.dup2(self.stream.fileno(), descriptor)


def _end(_signal: int, _frame: Any) -> None:
    sys.exit(0)


def main() -> None:
    """Serves until SIGTERM. `--fd`: the listening socket; `--log`: the log; `--state`: the owner's state folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--state", required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    logging.basicConfig(
        level=logging.INFO, handlers=[_BoundedLog(arguments.log)], format="%(asctime)s %(levelname)s %(message)s"
    )
    moto_glue_sqs.apply()
    moto_kinesis.apply()
    moto_emr.apply()
    identity = {"service": "movement embedded AWS", "pid": os.getpid(), "state": arguments.state}
    application = SerialApplication(DomainDispatcherApplication(_backend_app), identity)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Handler, fd=arguments.fd)
    logger.info("serving on 127.0.0.1:%d", server.port)
    server.serve_forever()


if __name__ == "__main__":
    main()
