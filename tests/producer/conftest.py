"""Emulators and streams for the producer's tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.helpers.kinesis_mock import running_kinesis_mock
from tests.helpers.kinesis_streams import EmulatorStream
from tests.helpers.ports import free_port, wait_for_port

# moto's own server is threaded and loses records of concurrent PutRecords; this one serves one request at a time.
_MOTO = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple, WSGIRequestHandler
WSGIRequestHandler.protocol_version = "HTTP/1.1"
class Quiet(WSGIRequestHandler):
    def log_request(self, *a): pass
app = DomainDispatcherApplication(create_backend_app)
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=False, request_handler=Quiet)
"""


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """The URL of a moto server in its own process."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", _MOTO, str(port)], stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session")
def kinesis_mock_endpoint() -> Iterator[str]:
    """The URL of kinesis-mock, whose sequence numbers look like AWS's and which supports concurrent requests."""
    with running_kinesis_mock() as endpoint:
        yield endpoint


@pytest.fixture
def stream(moto_endpoint: str, aws_environment: pytest.MonkeyPatch) -> EmulatorStream:
    """A new stream of four shards on moto. AWS_ENDPOINT_URL_KINESIS is its endpoint."""
    aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", moto_endpoint)
    return EmulatorStream(moto_endpoint, 4)


@pytest.fixture(params=["moto", "kinesis_mock"])
def any_stream(
    request: pytest.FixtureRequest,
    aws_environment: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> EmulatorStream:
    """A new stream of four shards, on each emulator in turn."""
    endpoint: str = request.getfixturevalue(f"{request.param}_endpoint")
    record_property("server", request.param.replace("_", "-"))
    aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", endpoint)
    return EmulatorStream(endpoint, 4)
