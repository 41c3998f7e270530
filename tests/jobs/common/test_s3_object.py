"""Connections that break within an object's content, which botocore does not retry."""

from __future__ import annotations

import io
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from botocore.exceptions import FlexibleChecksumError

from jobs.common import aws
from jobs.common.errors import TransientError
from jobs.common.retry import RetryPolicy
from jobs.lake.store import S3Lake
from jobs.settings.config_files import download
from jobs.settings.settings import Settings
from local import server
from tests.helpers.proxy import Proxy

pytestmark = pytest.mark.aws

FILE, CONTENT = "_claims/x.json", b"one " * 100_000


class BreaksWithin(Proxy):
    """Loses the connection within the body of the next `left` requested objects."""

    left = 0

    def handle(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        answer, content = self.forward(request, body)
        breaks = request.command == "GET" and self.left > 0
        self.left -= breaks
        self.answer(request, answer, content, sent=len(content) // 2 if breaks else None)
        request.close_connection = breaks


@pytest.fixture
def network(
    embedded_aws: server.RunningServer, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BreaksWithin]:
    S3Lake(lake_settings.lake).put(FILE, io.BytesIO(CONTENT))
    monkeypatch.setattr(aws, "BODY_RETRY", RetryPolicy(sleep=lambda _: None))
    with BreaksWithin(embedded_aws.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def test_a_connection_that_breaks_within_an_object_only_delays(network: BreaksWithin, lake_settings: Settings) -> None:
    lake = S3Lake(lake_settings.lake)
    network.left = 2
    assert lake.get(FILE) == CONTENT
    network.left = 2
    assert lake.replace(FILE, CONTENT, b"key: value")
    network.left = 2
    assert download(f"{lake.uri}/{FILE}").read_bytes() == b"key: value"
    assert network.left == 0


def test_a_connection_that_always_breaks_is_an_error_that_names_the_object(
    network: BreaksWithin, lake_settings: Settings
) -> None:
    network.left = 100
    with pytest.raises(TransientError, match=rf"read {lake_settings.lake}/{FILE}: the connection broke .* 6 times"):
        S3Lake(lake_settings.lake).get(FILE)
    assert network.left == 100 - RetryPolicy.attempts


def test_content_that_does_not_match_its_checksum_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """versitygw gives this answer while another writer replaces the object."""
    answers: list[Exception | bytes] = [FlexibleChecksumError(error_msg="does not match"), b"new"]

    class Server:
        def get_object(self, **_place: str) -> dict[str, object]:
            return {"Body": self, "ETag": "etag"}

        def read(self, _most: int | None = None) -> bytes:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(aws, "BODY_RETRY", RetryPolicy(sleep=lambda _: None))
    assert aws.read_object(Server(), Bucket="b", Key="k") == (b"new", "etag")  # type: ignore[arg-type]
