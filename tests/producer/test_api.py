"""`POST /travel_times`: the answers, and that every record answered with success is on the stream."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from jobs.common.errors import AwsAccessError
from jobs.settings.settings import load_settings
from producer.api import create_app
from producer.api_access import API_KEY_VARIABLE
from tests.helpers.faulty_kinesis import Fail, FaultyKinesis, Reset, Status
from tests.helpers.ports import free_port
from tests.helpers.samples import READING, READINGS_YAML

pytestmark = pytest.mark.aws

JSON = {"Content-Type": "application/json"}
GOOD = {
    "City": "Paris",
    "Origin Movement ID": "9",
    "Destination Movement ID": "5",
    "Date Range": "09/03/2016 - 10/01/2016, Every day, Daily Average",
    "Mean Travel Time (Seconds)": 446,
}
BAD = GOOD | {"Mean Travel Time (Seconds)": "soon", "Date Range": "02/30/2017 - 03/01/2017, x, y"}


def good(number: int) -> dict[str, object]:
    return GOOD | {"Origin Movement ID": str(number)}


@pytest.fixture
def kinesis(aws_environment: pytest.MonkeyPatch) -> Iterator[FaultyKinesis]:
    aws_environment.delenv(API_KEY_VARIABLE, raising=False)
    with FaultyKinesis() as server:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", server.url)
        yield server


@contextmanager
def client(*overrides: str) -> Iterator[httpx.Client]:
    """A client of the API, which uvicorn serves in a thread."""
    port = free_port()
    app = create_app(load_settings(None, ["stream.name=stream", "producer.request_timeout_seconds=10", *overrides]))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="debug", log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the API did not start"
        time.sleep(0.01)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            yield http
    finally:
        server.should_exit = True
        thread.join(20)


def on_stream(kinesis: FaultyKinesis) -> list[dict[str, object]]:
    return [json.loads(data) for _, data in kinesis.accepted]


def test_the_answer_has_the_sequence_number_of_the_record(kinesis: FaultyKinesis) -> None:
    with client() as api:
        answer = api.post("/travel_times", json=GOOD)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["success"], body["accepted"]) == (True, 1)
    assert body["records"] == [{"sequence_number": "1", "shard_id": body["records"][0]["shard_id"]}]
    assert on_stream(kinesis) == [GOOD]
    assert kinesis.accepted[0][0] == "Paris|9|5"


def test_a_number_keeps_its_text_and_deep_nesting_is_no_server_error(kinesis: FaultyKinesis) -> None:
    body = json.dumps(GOOD).replace("446", '446, "Factor": 1.50')
    with client() as api:
        assert api.post("/travel_times", content=body, headers=JSON).status_code == 200
        deep = json.dumps(GOOD).replace("446", '446, "Deep": ' + "[" * 900 + "]" * 900)
        assert api.post("/travel_times", content=deep, headers=JSON).status_code in (200, 400, 422)
    assert b'"Factor":1.50' in kinesis.accepted[0][1]


def test_the_answer_to_a_list_keeps_its_order(kinesis: FaultyKinesis) -> None:
    with client() as api:
        body = api.post("/travel_times", json=[good(n) for n in range(1200)]).json()
    assert body["accepted"] == 1200
    for number, entry in enumerate(body["records"]):
        _, data = kinesis.accepted[int(entry["sequence_number"]) - 1]
        assert json.loads(data)["Origin Movement ID"] == str(number)


def test_concurrent_requests_share_put_records_requests(kinesis: FaultyKinesis) -> None:
    kinesis.delay = 0.02
    with client("api.linger_ms=100") as api, ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda n: api.post("/travel_times", json=good(n)), range(300)))
    assert all(answer.status_code == 200 for answer in answers)
    assert len(kinesis.accepted) == 300
    assert len(kinesis.requests) < 100


def test_the_answer_names_invalid_fields_and_nothing_is_sent(kinesis: FaultyKinesis) -> None:
    with client() as api:
        answer = api.post("/travel_times", json=[GOOD, BAD, {}])
    assert answer.status_code == 422
    first, second = answer.json()["rejected"]
    assert [(error["reason"], error["field"]) for error in first["errors"]] == [
        ("wrong_type", "Mean Travel Time (Seconds)"),
        ("bad_date_range", "Date Range"),
    ]
    assert {error["reason"] for error in second["errors"]} == {"missing_field"}
    assert (first["index"], second["index"]) == (1, 2)
    assert not kinesis.accepted


def test_partial_sends_the_valid_records_and_reports_the_others(kinesis: FaultyKinesis) -> None:
    with client() as api:
        answer = api.post("/travel_times?partial=true", json=[BAD, GOOD])
        all_bad = api.post("/travel_times?partial=true", json=[BAD])
    assert (answer.status_code, all_bad.status_code) == (200, 422)
    body = answer.json()
    assert (body["success"], body["accepted"], body["records"][0]) == (True, 1, None)
    assert [one["index"] for one in body["rejected"]] == [0]
    assert on_stream(kinesis) == [GOOD]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"", 400),
        (b"\xff\xfe", 400),
        (b'{"a": "\xff"}', 400),
        (b"[" * 50_000, 400),
        (b'{"a": NaN}', 400),
        (b"[]", 422),
        (b"1", 422),
        (b"[1, null]", 422),
        (b'"text"', 422),
    ],
)
def test_a_body_without_a_valid_record_is_a_client_error(body: bytes, status: int, kinesis: FaultyKinesis) -> None:
    with client() as api:
        answer = api.post("/travel_times", content=body, headers=JSON)
    assert answer.status_code == status
    assert answer.json()["success"] is False
    assert not kinesis.accepted


def test_a_body_or_a_record_that_is_too_large_is_413(kinesis: FaultyKinesis) -> None:
    def stream() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    big = json.dumps(GOOD | {"Origin Geometry": "x" * 1_100_000})
    with client("api.max_body_bytes=2000") as api:
        assert api.post("/travel_times", content=b" " * 2001, headers=JSON).status_code == 413
        assert api.post("/travel_times", content=stream(), headers=JSON).status_code == 413
    with client() as api:
        answer = api.post("/travel_times", content=big, headers=JSON)
    assert answer.status_code == 413
    assert answer.json()["rejected"][0]["errors"][0]["reason"] == "too_large"
    assert not kinesis.accepted


def test_a_key_is_required_if_one_is_configured(kinesis: FaultyKinesis, aws_environment: pytest.MonkeyPatch) -> None:
    aws_environment.setenv(API_KEY_VARIABLE, "old-key, new-key")
    with client() as api:
        assert api.post("/travel_times", json=GOOD).status_code == 401
        for wrong in ("", "old", "old-key, new-key", "ключ".encode()):
            assert api.post("/travel_times", json=GOOD, headers={"X-API-Key": wrong}).status_code == 401
        assert not kinesis.accepted
        for key in ("old-key", "new-key"):
            assert api.post("/travel_times", json=GOOD, headers={"X-API-Key": key}).status_code == 200
        assert api.get("/healthz").status_code == 200


def test_docs_and_metrics_require_the_key_too(kinesis: FaultyKinesis, aws_environment: pytest.MonkeyPatch) -> None:
    aws_environment.setenv(API_KEY_VARIABLE, "secret")
    with client() as api:
        for path in ("/docs", "/openapi.json", "/metrics"):
            refused = api.get(path)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Basic realm="movement"')
            assert api.get(path, auth=("anybody", "wrong")).status_code == 401
            assert api.get(path, auth=("anybody", "secret")).status_code == 200
            assert api.get(path, headers={"X-API-Key": "secret"}).status_code == 200
        assert api.get("/redoc").status_code == 404


def test_without_a_key_only_names_of_this_machine_are_served(
    kinesis: FaultyKinesis, aws_environment: pytest.MonkeyPatch
) -> None:
    def statuses(*overrides: str) -> list[int]:
        with client(*overrides) as api:
            names = ("localhost", "127.0.0.1:8000", "[::1]:8000", "evil.example", "api.example.com:443", "")
            return [api.post("/records", json=GOOD, headers={"Host": name}).status_code for name in names]

    assert statuses() == [200, 200, 200, 400, 400, 400]
    assert statuses("api.allowed_hosts=[api.example.com]") == [400, 400, 400, 400, 200, 400]
    assert len(kinesis.accepted) == 4


def test_records_is_the_same_path_and_takes_gzip(kinesis: FaultyKinesis) -> None:
    with client() as api:
        body, headers = gzip.compress(json.dumps([GOOD, GOOD]).encode()), JSON | {"Content-Encoding": "gzip"}
        assert api.post("/records", content=body, headers=headers).json()["accepted"] == 2
        assert api.post("/records", content=body, headers=JSON | {"Content-Encoding": "br"}).status_code == 415
        assert api.post("/records", content=json.dumps(GOOD), headers={"Content-Type": "text/plain"}).status_code == 415
    assert on_stream(kinesis) == [GOOD, GOOD]


def test_partial_is_true_or_false(kinesis: FaultyKinesis) -> None:
    with client() as api:
        assert api.post("/records?partial=True", json=[BAD, GOOD]).status_code == 200
        assert api.post("/records?partial=false", json=[BAD, GOOD]).status_code == 422
        refused = api.post("/records?partial=yes", json=GOOD)
    assert (refused.status_code, refused.json()["error"]) == (422, "partial is 'yes'; send true or false")


def test_a_list_of_too_many_records_is_413_before_any_is_checked(kinesis: FaultyKinesis) -> None:
    with client("api.max_pending_records=5") as api:
        answer = api.post("/records", json=[{}] * 6)
        metrics = api.get("/metrics").text
    assert (answer.status_code, answer.json()["error"]) == (413, "6 records in one request; at most 5 are allowed")
    assert "missing_field" not in metrics


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_server_error(
    kinesis: FaultyKinesis, caplog: pytest.LogCaptureFixture
) -> None:
    with client() as api:
        with socket.create_connection((api.base_url.host, api.base_url.port or 0)) as leaving:
            leaving.sendall(b"POST /records HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
            leaving.sendall(b"Content-Length: 100\r\n\r\n[")
        deadline = time.monotonic() + 5
        while (text := api.get("/metrics").text).count('status="499"') < 1 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert 'movement_http_requests_total{status="499"} 1.0' in text
    assert "Exception" not in caplog.text


def test_a_throttled_record_is_retried_before_the_answer(kinesis: FaultyKinesis) -> None:
    kinesis.faults = lambda n: Fail(lambda index: index % 2 == 0) if n < 3 else None
    with client() as api:
        body = api.post("/travel_times", json=[good(n) for n in range(10)]).json()
    assert (body["success"], body["accepted"], len(kinesis.accepted)) == (True, 10, 10)


def test_a_timeout_is_503_with_the_results_so_far(kinesis: FaultyKinesis) -> None:
    kinesis.faults = lambda n: Fail(lambda index: index == 1 or n > 0)
    with client("api.timeout_seconds=0.3") as api:
        answer = api.post("/travel_times", json=[good(n) for n in range(3)])
        time.sleep(0.5)
        kinesis.faults = lambda _n: None
        assert api.post("/travel_times", json=good(9)).status_code == 200
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    body = answer.json()
    assert (body["success"], body["accepted"]) == (False, 2)
    origins = [record["Origin Movement ID"] for record in on_stream(kinesis)]
    assert sorted(origins) == ["0", "2", "9"], "a cancelled record was sent later"
    assert body["records"][1] is None


def test_with_too_many_pending_records_the_answer_is_429_with_retry_after(kinesis: FaultyKinesis) -> None:
    kinesis.delay = 0.3
    with client("api.max_pending_records=5") as api, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: api.post("/travel_times", json=good(n)), range(20)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 429)
    assert len(kinesis.accepted) == statuses.count(200)


def test_an_outage_loses_no_record_that_was_answered_with_success(kinesis: FaultyKinesis) -> None:
    kinds = [
        Reset(after=True),
        Status(500, "InternalFailure"),
        None,
        Fail(lambda index: index % 2 == 0),
        Status(400, "ProvisionedThroughputExceededException"),
        None,
    ]
    kinesis.faults = lambda n: kinds[n % len(kinds)]
    with client("api.timeout_seconds=1.0") as api, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: api.post("/travel_times", json=good(n)), range(300)))
    origins = {record["Origin Movement ID"] for record in on_stream(kinesis)}
    accepted = {str(n) for n, answer in enumerate(answers) if answer.status_code == 200}
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert len(accepted) > 100
    assert accepted <= origins


def test_an_aws_refusal_is_503_and_healthz_reports_it_without_details(kinesis: FaultyKinesis) -> None:
    with client() as api:
        assert api.get("/healthz").json()["status"] == "ok"
        kinesis.faults = lambda _n: Status(400, "AccessDeniedException")
        answer = api.post("/travel_times", json=GOOD)
        health = api.get("/healthz")
        kinesis.faults = lambda _n: None
        assert api.post("/travel_times", json=GOOD).status_code == 200
        assert api.get("/healthz").status_code == 200
    assert answer.status_code == 503
    assert "AccessDenied" not in answer.text
    assert (health.status_code, health.json()["last_error"]) == (503, "AwsAccessError")


@pytest.mark.usefixtures("stream")
def test_a_missing_stream_is_an_error_at_startup() -> None:
    app = create_app(load_settings(None, ["stream.name=nowhere"]))

    async def start() -> None:
        async with app.router.lifespan_context(app):
            raise AssertionError("the API started")

    with pytest.raises(AwsAccessError, match="movement local up"):
        asyncio.run(start())


def test_metrics_count_requests_records_and_reasons(kinesis: FaultyKinesis) -> None:
    with client() as api:
        api.post("/travel_times", json=[good(n) for n in range(3)])
        api.post("/travel_times", json=BAD)
        text = api.get("/metrics").text
    assert "movement_records_accepted_total 3.0" in text
    assert 'movement_http_requests_total{status="200"} 1.0' in text
    assert 'movement_http_requests_total{status="422"} 1.0' in text
    assert 'movement_records_rejected_total{reason="wrong_type"} 1.0' in text


def test_the_contracts_own_path_accepts_records_and_is_documented(kinesis: FaultyKinesis, tmp_path: Path) -> None:
    contract = tmp_path / "readings.yaml"
    contract.write_text(READINGS_YAML, encoding="utf-8")
    for chosen, record, paths in (
        ([], GOOD, {"/travel_times", "/records", "/uber_movement"}),
        ([f"contract={contract}"], READING, {"/readings", "/records"}),
    ):
        with client(*chosen) as api:
            documented = api.get("/openapi.json").json()["paths"]
            assert {path for path in documented if "post" in documented[path]} == paths
            assert {api.post(path, json=record).status_code for path in paths} == {200}
            assert api.post("/travel_time", json=record).status_code == 404
    assert len(kinesis.accepted) == 5


def test_the_openapi_page_has_the_contracts_fields_and_valid_examples(kinesis: FaultyKinesis) -> None:
    with client() as api:
        page = api.get("/openapi.json").json()
        operation = page["paths"]["/travel_times"]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            assert api.post("/travel_times", json=example["value"]).status_code == 200
        docs = api.get("/docs")
        assert "Date Range" in docs.text
        assert "http" not in docs.text, "the page loads something from another host"
    assert "Date Range" in content["schema"]["oneOf"][0]["required"]
    assert content["schema"]["oneOf"][1]["minItems"] == 1
    assert page["paths"]["/records"]["post"]["responses"].keys() == operation["responses"].keys()
    assert list(page["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]
    assert operation["parameters"][0]["schema"]["type"] == "boolean"
    assert {"200", "400", "401", "408", "413", "415", "422", "429", "503"} <= set(operation["responses"])


def test_no_content_of_a_body_is_logged(kinesis: FaultyKinesis, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "s3cret-payload"
    kinesis.faults = lambda n: Status(500, "InternalFailure") if n == 0 else None
    with client() as api:
        api.post("/travel_times", json=GOOD | {"Origin Display Name": secret})
        api.post("/travel_times", json=BAD | {"Mean Travel Time (Seconds)": secret})
        api.post("/travel_times", content=secret.encode(), headers=JSON)
    ours = [record for record in caplog.records if not record.name.startswith(("botocore", "urllib3", "httpx"))]
    assert secret not in "".join(record.getMessage() for record in ours)


def test_sigterm_answers_open_requests_before_the_end(kinesis: FaultyKinesis) -> None:
    port = free_port()
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    server = subprocess.Popen(
        [sys.executable, "-m", "movement", "serve", "--set", "stream.name=stream", "--port", str(port), "--access-log"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                httpx.get(f"{url}/healthz")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        assert '{"live":true}' in httpx.get(f"{url}/").text, "the server has the page as well as the API"
        kinesis.delay = 1.0
        answers: list[httpx.Response] = []
        posting = threading.Thread(target=lambda: answers.append(httpx.post(f"{url}/travel_times", json=GOOD)))
        posting.start()
        time.sleep(0.4)
        server.send_signal(signal.SIGTERM)
        posting.join(10)
        output, _ = server.communicate(timeout=10)
    finally:
        server.kill()
    assert [answer.status_code for answer in answers] == [200], output
    assert len(kinesis.accepted) == 1
    assert server.returncode in (0, -signal.SIGTERM), output
    assert b"Paris" not in output
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/healthz")
