"""The embedded AWS as a background process: started, found again, stopped.

`up` binds the port, starts `local.emulator` in a session of its own and waits until it answers; `down` ends it.
Every client then finds it by the variables of `environment`.

A process file in the settings' state folder names the process. The process holds an exclusive lock (flock) on
that file for as long as it lives, so a file without a lock is stale and a locked one names the right process,
whatever the kernel has done with process ids since.
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
    """An embedded AWS that answers. `started` is false where `up` found it already there."""

    pid: int
    port: int
    log: Path
    started: bool = False

    @property
    def endpoint(self) -> str:
        """Its address, such as `http://127.0.0.1:4566`: an IP address, so that S3 clients use path-style URLs."""
        return f"http://{HOST}:{self.port}"


def up(settings: Settings, notice: Notice = logger.warning) -> RunningServer:
    """Starts the embedded AWS on `settings.local.port`, or finds the one of the same state folder.

    One that runs on another port is returned as it is. A stale process file is cleaned away with one line to
    `notice`. Raises EmbeddedAwsError, one line with a remedy, where the port is taken, moto is missing, the
    process dies at start, or one that is there does not answer.
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
                f"the embedded AWS of {state} runs but does not answer; `movement local down` stops it"
            )
        time.sleep(0.1)
    with lock:
        stale = lock.read()
        if stale.strip():
            notice(f"the embedded AWS of {state} had ended without `movement local down`; cleaned up after it")
        try:
            with _listening(settings.local.port) as listener:
                return _start(state, listener, lock, deadline)
        except BaseException:
            (state / PROCESS_NAME).unlink()
            raise


def find(settings: Settings) -> RunningServer | None:
    """The embedded AWS of the settings' state folder if it answers, else None. Starts and cleans nothing."""
    return _answering(_state(settings))


def down(settings: Settings) -> RunningServer | None:
    """Ends the embedded AWS and removes its process file and log; what ran is returned, None if nothing did.

    SIGTERM first, SIGKILL after STOP_SECONDS. Raises EmbeddedAwsError where the process stays or is not ours
    to end.
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
        with suppress(ChildProcessError):  # where this very process started it, it is ours to bury
            os.waitpid(stopped.pid, 0)
    with lock:
        for name in (PROCESS_NAME, LOG_NAME, f"{LOG_NAME}.1"):
            (state / name).unlink(missing_ok=True)
    with suppress(OSError):  # other runs' logs may stand here; then the folder stays
        state.rmdir()
    return stopped


def environment(running: RunningServer) -> dict[str, str]:
    """The variables by which every AWS client finds `running`. The credentials are no one's, and look it."""
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
    """Within, this process and its children talk to `running` alone, whatever AWS_… the user has set."""
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
    """`file`, opened and locked for this process; None while another holds it."""
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
        opened.close()  # removed by another `down` between open and lock


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
        process = subprocess.Popen(  # noqa: S603 (our own module, by the interpreter that runs us)
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
    listener.close()  # the child has it: if the child dies, so does the port
    while True:
        if process.poll() is not None:
            raise EmbeddedAwsError(f"the embedded AWS stopped at start: {_last_line(log)} (log: {log})")
        health = _health(running.port)
        if health is not None and health["pid"] == running.pid:
            process.returncode = 0  # it outlives this object, which would warn of that
            return running
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise EmbeddedAwsError(f"the embedded AWS did not answer in {START_SECONDS:.0f} s (log: {log})")
        time.sleep(0.05)


def _without_aws(environ: Mapping[str, str]) -> dict[str, str]:
    """The child's environment: no word of any AWS, and our packages on its path wherever it is started."""
    kept = {name: value for name, value in environ.items() if not name.startswith("AWS_")}
    root = str(Path(__file__).parents[1])
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (kept.get("PYTHONPATH"), root)))
    return kept


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it wrote nothing"


def _recorded(state: Path) -> RunningServer | None:
    """What the process file says; None where there is none, or its writer has not finished it."""
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
    """What the embedded AWS on `port` says of itself; None where nothing, or something else, answers."""
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
        return  # ended by itself meanwhile
    except PermissionError as error:
        raise EmbeddedAwsError(f"the embedded AWS (process {pid}) belongs to another user") from error
