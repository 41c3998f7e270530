"""The process of the embedded AWS: it starts once, is found again and stops; each failure is one line."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import boto3
import pytest

from jobs.settings.settings import Settings, load_settings
from local import server

pytestmark = pytest.mark.aws


def process_is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def process_file(settings: Settings) -> Path:
    return Path(settings.local.state_dir) / server.PROCESS_NAME


def test_up_starts_a_server_that_answers_and_a_second_up_finds_it(settings: Settings) -> None:
    first = server.up(settings)
    second = server.up(settings)
    assert first.started
    assert not second.started
    assert (second.pid, second.port, second.log) == (first.pid, settings.local.port, first.log)
    with server.aimed_at(second):
        assert boto3.client("kinesis").list_streams()["StreamNames"] == []
    assert server.find(settings) == second


def test_two_ups_at_once_start_one_server(settings: Settings) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: server.up(settings), range(2)))
    assert found[0].pid == found[1].pid
    assert [running.started for running in found].count(True) == 1


def test_a_server_on_another_port_of_the_same_folder_is_found(settings: Settings) -> None:
    first = server.up(settings)
    other = settings.model_copy(update={"local": settings.local.model_copy(update={"port": 1})})
    assert server.up(other).port == first.port


def test_down_leaves_no_process_no_file_and_no_folder(settings: Settings) -> None:
    running = server.up(settings)
    stopped = server.down(settings)
    assert stopped is not None
    assert stopped.pid == running.pid
    assert process_is_gone(running.pid)
    assert not Path(settings.local.state_dir).exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", running.port)) != 0
    assert server.down(settings) is None
    assert server.find(settings) is None


def test_down_keeps_other_files_of_the_state_folder(settings: Settings) -> None:
    server.up(settings)
    other = Path(settings.local.state_dir) / "stream.log"
    other.write_text("a run's log")
    server.down(settings)
    assert list(Path(settings.local.state_dir).iterdir()) == [other]


def test_ctrl_c_in_the_terminal_does_not_stop_the_server(settings: Settings) -> None:
    running = server.up(settings)
    # Ctrl-C goes to the foreground process group of the terminal's session.
    assert os.getsid(running.pid) == running.pid
    assert os.getpgid(running.pid) == running.pid


def test_the_process_file_of_a_killed_server_is_removed_with_one_line(settings: Settings) -> None:
    killed = server.up(settings)
    os.kill(killed.pid, signal.SIGKILL)
    os.waitpid(killed.pid, 0)
    notices: list[str] = []
    again = server.up(settings, notice=notices.append)
    assert again.started
    assert again.pid != killed.pid
    assert len(notices) == 1
    assert "removed its process file" in notices[0]


@pytest.mark.parametrize("content", ["", "{", '{"pid": 1, "port": 2}\n'])
def test_any_process_file_without_a_lock_is_stale(settings: Settings, content: str) -> None:
    process_file(settings).parent.mkdir(parents=True)
    process_file(settings).write_text(content)
    assert server.find(settings) is None
    assert server.down(settings) is None
    assert not process_file(settings).exists()


def test_a_recycled_process_id_is_never_killed(settings: Settings) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        process_file(settings).parent.mkdir(parents=True)
        process_file(settings).write_text(json.dumps({"pid": stranger.pid, "port": settings.local.port}))
        assert server.down(settings) is None
        assert not process_file(settings).exists()
        assert stranger.poll() is None
        stranger.kill()


def test_a_server_that_ignores_sigterm_is_killed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    running = server.up(settings)
    os.kill(running.pid, signal.SIGSTOP)
    monkeypatch.setattr(server, "STOP_SECONDS", 0.3)
    assert server.down(settings) is not None
    assert process_is_gone(running.pid)


def test_up_reports_a_server_that_hangs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    running = server.up(settings)
    os.kill(running.pid, signal.SIGSTOP)
    monkeypatch.setattr(server, "START_SECONDS", 0.5)
    monkeypatch.setattr(server, "HEALTH_SECONDS", 0.2)
    with pytest.raises(server.EmbeddedAwsError, match=r"does not answer; stop it with `movement local down`"):
        server.up(settings)
    os.kill(running.pid, signal.SIGCONT)


def test_a_taken_port_is_named_with_the_remedy(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEALTH_SECONDS", 0.2)
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", settings.local.port))
        taker.listen()
        with pytest.raises(server.EmbeddedAwsError, match=rf"^port {settings.local.port} is taken.*--port[^\n]*$"):
            server.up(settings)
    assert not process_file(settings).exists()


def test_a_port_taken_by_another_web_server_is_taken(settings: Settings) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"pid": "elsewhere"}')

        def log_message(self, format: str, *args: object) -> None:
            """Suppresses the log."""

    with HTTPServer(("127.0.0.1", settings.local.port), Other) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(server.EmbeddedAwsError, match="another program"):
            server.up(settings)
        other.shutdown()


def test_a_port_taken_by_the_embedded_aws_of_another_folder_names_the_folder(
    settings: Settings, tmp_path: Path
) -> None:
    server.up(settings)
    other = load_settings(None, [f"local.port={settings.local.port}", f"local.state_dir={tmp_path / 'other'}"])
    with pytest.raises(server.EmbeddedAwsError, match=re.escape(settings.local.state_dir)):
        server.up(other)
    assert server.down(other) is None
    assert server.find(settings) is not None


def test_a_crash_at_start_shows_the_last_line_of_the_log_and_its_path(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "path" / "moto"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('moto is broken today')")
    monkeypatch.setenv("PYTHONPATH", f"{broken.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with pytest.raises(server.EmbeddedAwsError) as caught:
        server.up(settings)
    assert "RuntimeError: moto is broken today" in str(caught.value)
    assert str(Path(settings.local.state_dir) / server.LOG_NAME) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not process_file(settings).exists()
    monkeypatch.undo()
    assert server.up(settings).started


def test_the_environment_names_the_server_and_no_real_credentials(running: server.RunningServer) -> None:
    found = server.environment(running)
    assert found["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{running.port}"
    assert found["AWS_REGION"] == "us-east-1"
    assert "no-real" in found["AWS_ACCESS_KEY_ID"]
    assert "no-real" in found["AWS_SECRET_ACCESS_KEY"]


def test_the_server_is_excluded_from_proxies(running: server.RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    monkeypatch.setenv("NO_PROXY", "intranet")
    assert server.environment(running)["NO_PROXY"] == "intranet,127.0.0.1"
    with server.aimed_at(running):
        assert boto3.client("sts").get_caller_identity()["Account"] == "123456789012"
    assert os.environ["NO_PROXY"] == "intranet"


def test_inside_aimed_at_the_users_aws_variables_are_ignored(
    running: server.RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    before = dict(os.environ)
    with server.aimed_at(running):
        kinesis = boto3.client("kinesis")
        assert kinesis.meta.endpoint_url == running.endpoint
        assert kinesis.meta.region_name == "us-east-1"
    assert dict(os.environ) == before


def test_the_log_is_bounded_and_takes_the_processs_output(tmp_path: Path) -> None:
    log = tmp_path / "bounded.log"
    program = f"""
import logging, os, pathlib
from local import emulator
emulator.LOG_BYTES = 20_000
handler = emulator._BoundedLog(pathlib.Path({str(log)!r}))
for number in range(2_000):
    handler.emit(logging.makeLogRecord({{"msg": "request %d", "args": (number,)}}))
os.write(2, b"a traceback\\n")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
    written = list(tmp_path.iterdir())
    assert sum(file.stat().st_size for file in written) <= 20_100
    assert log.read_text().endswith("request 1999\na traceback\n")


def test_the_log_names_the_requests(settings: Settings) -> None:
    running = server.up(settings)
    with server.aimed_at(running):
        boto3.client("kinesis").list_streams()
    time.sleep(0.05)
    assert re.search(r"POST Kinesis_20131202.ListStreams 200", running.log.read_text())
