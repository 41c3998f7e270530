"""Starts, finds and stops the embedded AWS, a background process.

`up` binds the port, starts `local.emulator` in its own session and waits until it answers; `down` ends it. AWS clients
find it by the variables of `environment`.

A process file in the settings' state folder names the process, which holds an exclusive lock (flock) on the file until
it ends. So an unlocked file is stale, and a locked file names the right process even if process ids were reused.
"""

from __future__ import annotations

import errno
import fcntl
import http.client
import importlib.util
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jobs.common.errors import TerminalError
from jobs.settings.settings import Settings

HOST = "127.0.0.1"
REGION = "us-east-1"
LOG_NAME = "embedded-aws.log"
PROCESS_NAME = "embedded-aws.json"
START_SECONDS = 60.0
STOP_SECONDS = 5.0
HEALTH_SECONDS = 2.0

Notice = Callable[[str], None]
logger = logging.getLogger(__name__)


class EmbeddedAwsError(TerminalError):
    """The embedded AWS could not be started, found or stopped."""


@dataclass(frozen=True)
class RunningServer:
    """A running embedded AWS. `started` is false if `up` found it running."""

    pid: int
    port: int
    log: Path
    started: bool = False

    @property
    def endpoint(self) -> str:
        """Its URL, such as `http://127.0.0.1:4566`. With an IP address S3 clients use path-style URLs."""
        return f"http://{HOST}:{self.port}"


def up(settings: Settings, notice: Notice = logger.warning) -> RunningServer:
    """Starts the embedded AWS on `settings.local.port`, or returns the running one of the same state folder.

    The running one may have another port. A stale process file is removed, with a line to `notice`. Raises
    EmbeddedAwsError if the port is taken, moto is missing, the process dies at start, or a running one does not answer.
    """
    state = _state(settings)
    state.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + START_SECONDS
    while (lock := _locked(state / PROCESS_NAME)) is None:
        found = _answering(state)
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise EmbeddedAwsError(
                f"the embedded AWS of {state} is running but does not answer; stop it with `movement local down`"
            )
        time.sleep(0.1)
    with lock:
        stale = lock.read()
        if stale.strip():
            notice(f"the embedded AWS of {state} ended without `movement local down`; removed its process file")
        try:
            with _listening(settings.local.port) as listener:
                return _start(state, listener, lock, deadline)
        except BaseException:
            (state / PROCESS_NAME).unlink()
            raise


def find(settings: Settings) -> RunningServer | None:
    """The running embedded AWS of the settings' state folder, or None."""
    return _answering(_state(settings))


def down(settings: Settings) -> RunningServer | None:
    """Ends the embedded AWS and removes its process file and log; returns it, or None if none was running.

    Sends SIGTERM, and SIGKILL after STOP_SECONDS. Raises EmbeddedAwsError if the process does not end or belongs to
    another user.
    """
    state = _state(settings)
    if not (state / PROCESS_NAME).exists():
        return None
    stopped = None
    deadline = time.monotonic() + STOP_SECONDS
    sent: signal.Signals | None = None
    while (lock := _locked(state / PROCESS_NAME)) is None:
        stopped = stopped or _recorded(state)
        wanted = signal.SIGKILL if time.monotonic() > deadline else signal.SIGTERM
        if stopped is not None and sent != wanted:
            _signal(stopped.pid, wanted)
            sent = wanted
        if time.monotonic() > deadline + STOP_SECONDS:
            raise EmbeddedAwsError(f"the embedded AWS of {state} did not end; see {state / LOG_NAME}")
        time.sleep(0.02)
    if stopped is not None:
        with suppress(ChildProcessError):  # reaps it if this process started it
            os.waitpid(stopped.pid, 0)
    with lock:
        for name in (PROCESS_NAME, LOG_NAME, f"{LOG_NAME}.1"):
            (state / name).unlink(missing_ok=True)
    with suppress(OSError):  # the folder may contain logs of other runs
        state.rmdir()
    return stopped


def environment(running: RunningServer) -> dict[str, str]:
    """The variables by which every AWS client finds `running`. The credentials are obviously fake."""
    found = {
        "AWS_ENDPOINT_URL": running.endpoint,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "embedded-aws-no-real-key",
        "AWS_SECRET_ACCESS_KEY": "embedded-aws-no-real-secret",
    }
    for name in ("no_proxy", "NO_PROXY"):
        if any(os.environ.get(proxy) for proxy in ("http_proxy", "HTTP_PROXY")):
            others = [host for host in os.environ.get(name, "").split(",") if host and host != HOST]
            found[name] = ",".join([*others, HOST])
    return found


@contextmanager
def aimed_at(running: RunningServer) -> Iterator[None]:
    """Makes this process and its children use only `running`, whatever AWS_… variables the user has set."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    overridden = environment(running)
    others = {name: os.environ[name] for name in overridden if name in os.environ and name not in before}
    for name in before:
        del os.environ[name]
    os.environ.update(overridden)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("AWS_") or name in overridden]:
            del os.environ[name]
        os.environ.update(before | others)


def _state(settings: Settings) -> Path:
    return Path(settings.local.state_dir).expanduser().absolute()


def _locked(file: Path) -> IO[str] | None:
    """`file`, opened and locked by this process; None while another process holds the lock."""
    while True:
        opened = file.open("a+", encoding="utf-8")
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            opened.close()
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(opened.fileno()), file.stat()):
                opened.seek(0)
                return opened
        opened.close()  # another `down` removed it between open and lock


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except PermissionError as error:
            raise EmbeddedAwsError(f"port {port} needs root; choose one above 1023 with --port") from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise EmbeddedAwsError(f"port {port}: {error.strerror}; choose another with --port") from error
            raise EmbeddedAwsError(_taken(port)) from error
        listener.listen(128)
        yield listener


def _taken(port: int) -> str:
    other = _health(port)
    if other is None:
        return f"port {port} is taken by another program; choose another with --port (or local.port)"
    return (
        f"port {port} is taken by the embedded AWS of another folder ({other['state']}); "
        "stop that one, or choose another with --port (or local.port)"
    )


def _start(state: Path, listener: socket.socket, lock: IO[str], deadline: float) -> RunningServer:
    if importlib.util.find_spec("moto") is None:
        raise EmbeddedAwsError("the embedded AWS needs moto: pip install 'movement-lake[local]'")
    log = state / LOG_NAME
    command = [sys.executable, "-m", "local.emulator", "--fd", str(listener.fileno()), "--log", str(log)]
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 (our own module, with this interpreter)
            [*command, "--state", str(state)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(listener.fileno(), lock.fileno()),
            env=_without_aws(os.environ),
            start_new_session=True,
        )
    running = RunningServer(pid=process.pid, port=int(listener.getsockname()[1]), log=log, started=True)
    lock.truncate(0)
    lock.write(json.dumps({"pid": running.pid, "port": running.port}) + "\n")
    lock.flush()
    listener.close()  # the child has inherited it, and the port is freed when the child dies
    while True:
        if process.poll() is not None:
            raise EmbeddedAwsError(f"the embedded AWS stopped at start: {_last_line(log)} (log: {log})")
        health = _health(running.port)
        if health is not None and health["pid"] == running.pid:
            process.returncode = 0  # otherwise Popen warns that the process is still running
            return running
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise EmbeddedAwsError(f"the embedded AWS did not answer in {START_SECONDS:.0f} s (log: {log})")
        time.sleep(0.05)


def _without_aws(environ: Mapping[str, str]) -> dict[str, str]:
    """The child's environment: without AWS_… variables, and with this repository on the Python path."""
    kept = {name: value for name, value in environ.items() if not name.startswith("AWS_")}
    root = str(Path(__file__).parents[1])
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (kept.get("PYTHONPATH"), root)))
    return kept


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it wrote nothing"


def _recorded(state: Path) -> RunningServer | None:
    """The process file's content; None if it does not exist or is incomplete."""
    try:
        content = json.loads((state / PROCESS_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return RunningServer(pid=content["pid"], port=content["port"], log=state / LOG_NAME)


def _answering(state: Path) -> RunningServer | None:
    recorded = _recorded(state)
    health = _health(recorded.port) if recorded else None
    return recorded if recorded and health and health["pid"] == recorded.pid else None


def _health(port: int) -> dict[str, Any] | None:
    """The health answer of the embedded AWS on `port`; None if nothing or something else answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{HOST}:{port}/_movement/health", timeout=HEALTH_SECONDS) as answer:
            content = json.loads(answer.read(10_000))
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return content if isinstance(content, dict) and {"pid", "state"} <= content.keys() else None


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has already ended
    except PermissionError as error:
        raise EmbeddedAwsError(f"the embedded AWS (process {pid}) belongs to another user") from error
