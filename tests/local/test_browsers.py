"""A web page that the user has open must not reset the embedded AWS."""

from __future__ import annotations

from typing import Any

import pytest

from local.emulator import SerialApplication


def status(path: str, **headers: str) -> str:
    """The status of an empty POST; the application behind answers 200."""
    found: list[str] = []

    def application(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b""]

    environ = {"PATH_INFO": path, "RAW_URI": path, "REQUEST_METHOD": "POST", **headers}
    SerialApplication(application, {})(environ, lambda line, *_: found.append(line))
    return found[0]


@pytest.mark.parametrize(
    "path", ["/moto-api/reset", "/moto-api/seed", "/_movement/glue/crawl", "/_movement/glue/job-run"]
)
@pytest.mark.parametrize(
    "header", [{"HTTP_ORIGIN": "https://a.example"}, {"HTTP_ORIGIN": "null"}, {"HTTP_SEC_FETCH_SITE": "cross-site"}]
)
def test_a_browser_may_not_control_the_embedded_aws(path: str, header: dict[str, str]) -> None:
    assert status(path, **header) == "403 Forbidden"


def test_programs_may_and_pages_may_use_s3() -> None:
    assert status("/moto-api/reset") == "200 OK"
    assert status("/bucket/moto-api/reset", HTTP_ORIGIN="https://a.example") == "200 OK"
