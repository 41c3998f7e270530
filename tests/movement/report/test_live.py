"""The routes of the live page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from jobs.settings.settings import load_settings
from movement.report import live
from producer.api_access import may_read
from tests.helpers.gold_tables import corridor, write_gold
from tests.helpers.report_lakes import add_batch
from tests.helpers.serving import serving

pytestmark = pytest.mark.aws


@contextmanager
def served(lake: str | Path, *overrides: str, keys: Sequence[str] = ()) -> Iterator[httpx.Client]:
    app = FastAPI()
    required = [key.encode() for key in keys]
    settings = load_settings(None, [f"lake={lake}", *overrides])
    app.include_router(live.router(settings, lambda request: may_read(request, required)))
    with serving(app) as address, httpx.Client(base_url=address) as client:
        yield client


class Clock:
    """A clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(live, "time", self)

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_page_itself_needs_no_lake(tmp_path: Path) -> None:
    with served(tmp_path / "none") as client:
        answer = client.get("/")

    assert answer.status_code == 200
    assert '{"live":true}' in answer.text
    assert "connect-src 'self'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_new_data_is_read_when_due_and_not_with_every_request(tmp_path: Path, clock: Clock) -> None:
    add_batch(tmp_path, 0)
    with served(tmp_path, "report.refresh_seconds=5") as client:
        first = client.get("/report/data.json").json()
        add_batch(tmp_path, 1)
        clock.now += 4
        soon = client.get("/report/data.json").json()
        clock.now += 1
        due = client.get("/report/data.json").json()

    assert first["gold"] is None
    assert [len(answer["pipeline"]["batches"]["read"]) for answer in (first, soon, due)] == [1, 1, 2]
    assert due["refresh_seconds"] == 5


def test_the_gold_tables_are_sent_only_when_they_have_changed(tmp_path: Path, clock: Clock) -> None:
    write_gold(tmp_path, [corridor("A", "1", "2", 60)])
    with served(tmp_path) as client:
        gold = client.get("/report/data.json").json()["gold"]
        same = client.get("/report/data.json", params={"known": gold["version"]}).json()["gold"]
        write_gold(tmp_path, [corridor("A", "1", "2", 60), corridor("A", "2", "1", 61)])
        blob = f"/report/blobs/{gold['version']}/{gold['cities'][0]['zones_blob']}"
        before = client.get(blob)
        clock.now += 100
        changed = client.get("/report/data.json", params={"known": gold["version"]}).json()["gold"]
        after = client.get(blob)

    assert gold["cities"][0]["name"] == "A"
    assert same["cities"] is None
    assert (before.status_code, before.headers["content-type"]) == (200, "application/octet-stream")
    assert (changed["rows"], changed["cities"][0]["name"]) == (2, "A")
    assert after.status_code == 404, "of tables that are no more nothing is handed out"


def test_a_lake_that_cannot_be_read_is_an_answer_that_says_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_batch(tmp_path, 0)
    (tmp_path / "_ledger" / "abc" / "0.json").write_text("no entry: account 123456789012")

    with served(tmp_path) as client:
        answer = client.get("/report/data.json")

    assert answer.status_code == 200
    problem = answer.json()["problem"]
    assert "--set lake=s3://" in problem["remedy"]
    assert "0.json" not in answer.text, "the reason is for the log"
    assert "_ledger/abc/0.json" in caplog.text


@pytest.mark.parametrize("path", ["/", "/report/data.json", "/report/blobs/1/z0"])
def test_the_page_requires_a_key_if_the_api_does(tmp_path: Path, path: str) -> None:
    with served(tmp_path, keys=["secret", "other"]) as client:
        refused = client.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Basic realm="movement"')
        for wrong in ({"Authorization": "Basic !"}, {"Authorization": "Bearer secret"}, {"X-API-Key": "wrong"}):
            assert client.get(path, headers=wrong).status_code == 401
        assert client.get(path, auth=("anybody", "wrong")).status_code == 401
        assert client.get(path, auth=("anybody", "other")).status_code in (200, 404)


def test_a_blobs_path_never_reads_a_file(tmp_path: Path) -> None:
    with served(tmp_path) as client:
        for path in ("/report/blobs/1/..%2f..%2fetc%2fpasswd", "/report/blobs/%2e%2e/z0"):
            assert client.get(path).status_code == 404
