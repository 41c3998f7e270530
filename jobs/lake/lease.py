"""The lease: only one job at a time writes through a checkpoint. Taken before the query starts, renewed while it runs.

A second job on the same checkpoint would delete the first job's files as leftovers and write offsets into its
checkpoint, long before the ledger's conditional put could stop it. `<lake>/_claims/<hash of the checkpoint>.json` names
the owner. It changes only by compare-and-swap, so of two jobs that start at once one wins.

Two jobs that read one stream into one lake would write each record twice, whatever their checkpoints: a copied
checkpoint even has the same query. So a lease may also name a stream. It is given up again if another lease of this
stream is held. Of two such jobs that start at once, at most one goes on.

A job that was killed leaves its lease behind. On the same machine the next start sees that the process is gone and
goes on at once. On another machine it watches the owner's heartbeat for LEASE_SECONDS, by its own clock, before it
takes over. A job that has lost its lease stops before its next step.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import uuid
from types import TracebackType

import msgspec

from jobs.common.errors import AlreadyRunningError, MovementError
from jobs.common.process_identity import machine, process_start
from jobs.lake.store import Lake

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0
_FOLDER = "_claims/"


class LeaseRecord(msgspec.Struct, frozen=True):
    """The stored lease: who owns a checkpoint.

    machine     the machine on which `pid` and `process_start` name the owner
    beat        the heartbeat: a counter that grows while the owner runs
    released    None while the job runs; `clean` after it ended between two batches; `failed` after an error, or if
                it ended before it had deleted the leftovers of the job before it
    stream      the stream that the owner reads into the lake; None for other jobs and in leases of older releases
    """

    checkpoint: str
    owner: str
    machine: str
    pid: int
    process_start: str
    beat: int
    released: str | None = None
    version: int = 1
    stream: str | None = None


_decode = msgspec.json.Decoder(LeaseRecord).decode


class Lease:
    """This process's lease on a checkpoint: `with Lease(lake, checkpoint) as lease:` around the query's life.

    Entering raises AlreadyRunningError if another job runs on the checkpoint, or reads the same stream into the lake.
    """

    def __init__(
        self,
        lake: Lake,
        checkpoint: str,
        *,
        stream: str | None = None,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        holder: str = "job on the checkpoint",
        remedy: str = "stop the other, or give this one a checkpoint of its own (stream_job.checkpoint)",
    ) -> None:
        """`stream`: the stream that only this job may read into the lake.

        `holder`: the lease owner's label in error messages. `remedy`: the advice appended to them.
        """
        self._holder, self._remedy = holder, remedy
        self._lake = lake
        self._checkpoint = checkpoint
        self._path = f"{_FOLDER}{hashlib.sha256(checkpoint.encode()).hexdigest()[:16]}.json"
        self._heartbeat_seconds = heartbeat_seconds
        self._lease_seconds = lease_seconds
        self._record = LeaseRecord(
            checkpoint, uuid.uuid4().hex, machine(), os.getpid(), process_start(os.getpid()), 0, stream=stream
        )
        self._stored = b""
        self._renewed = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_end, name="lease", daemon=True)
        # Whether the job before this one may have died within a batch and left files of it. Also true if there is no
        # record of an earlier job.
        self.after_crash = True
        self._leftovers_possible = stream is not None

    def __enter__(self) -> Lease:
        self.acquire()
        self._thread.start()
        if self._record.stream is not None:
            try:
                self._refuse_a_second_reader(self._record.stream)
            except BaseException:
                self.__exit__(None, None, None)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        try:
            self._update(released="failed" if error or self._leftovers_possible else "clean")
        except MovementError as failure:
            # Not fatal: the next start finds this process gone, or waits until the lease expires.
            log.warning("the lease on %s could not be released: %s", self._checkpoint, failure)

    def mark_clean(self) -> None:
        """Notes that the leftovers of the job before this one are deleted.

        A job that ends before this call releases its lease as `failed`, so that the next job deletes them.
        """
        self.after_crash = self._leftovers_possible = False

    def check(self) -> None:
        """Raises AlreadyRunningError if another job has taken over. Call it before each step that others can see.

        Sends a request only if the last renewal is old: after a long pause, or while S3 fails.
        """
        if time.monotonic() - self._renewed > self._lease_seconds / 2:
            self._update(released=None)

    def acquire(self) -> None:
        """Takes the lease without the thread that renews it. Raises AlreadyRunningError if another job holds it."""
        mine = msgspec.json.encode(self._record)
        found = self._lake.get(self._path)
        if found is None:
            if self._lake.put_if_absent(self._path, mine):
                return self._acquired(mine)
            found = self._lake.get(self._path)
        if found is not None:
            record = _decode(found)
            if record.released is None:
                self._wait_until_dead(self._path, found, record)
            self.after_crash = self._leftovers_possible = record.released != "clean"
            if self._lake.replace(self._path, found, mine):
                return self._acquired(mine)
        raise self._lost("has just been started")

    def _acquired(self, mine: bytes) -> None:
        self._stored, self._renewed = mine, time.monotonic()

    def _refuse_a_second_reader(self, stream: str) -> None:
        """Raises AlreadyRunningError if another job with another checkpoint reads the stream into the lake."""
        for path, _ in self._lake.list(_FOLDER):
            found = None if path == self._path else self._lake.get(path)
            if found is None:
                continue
            record = _decode(found)
            if record.stream != stream or record.released is not None:
                continue
            self._wait_until_dead(path, found, record)
            # So that no later start waits for it. It loses its lease if it was only paused.
            dead = msgspec.structs.replace(record, released="failed")
            if not self._lake.replace(path, found, msgspec.json.encode(dead)):
                raise self._lost("has just been started", record)
            self.after_crash = self._leftovers_possible = True  # its checkpoint may be a copy of this one

    def _wait_until_dead(self, path: str, found: bytes, record: LeaseRecord) -> None:
        """Returns once the owner of the lease at `path` is certainly gone. Raises AlreadyRunningError if it runs."""
        if record.machine == machine() and record.machine:
            if process_start(record.pid) == record.process_start:
                raise self._lost(f"runs as process {record.pid} of this machine", record)
            return
        log.warning(
            "the lease on %s belongs to another machine: watching it for %d s", record.checkpoint, self._lease_seconds
        )
        deadline = time.monotonic() + self._lease_seconds
        while time.monotonic() < deadline:
            time.sleep(self._heartbeat_seconds)
            if self._lake.get(path) != found:
                raise self._lost(f"runs as process {record.pid} of {record.machine.partition('/')[0]}", record)

    def _renew_until_end(self) -> None:
        while not self._ended.wait(self._heartbeat_seconds):
            try:
                self._update(released=None)
            except AlreadyRunningError:
                return  # `check` raises it where the job can stop
            except MovementError as error:
                log.warning("the lease on %s could not be renewed: %s", self._checkpoint, error)

    def _update(self, released: str | None) -> None:
        with self._lock:
            record = msgspec.structs.replace(self._record, beat=self._record.beat + 1, released=released)
            content = msgspec.json.encode(record)
            if not self._lake.replace(self._path, self._stored, content):
                self._renewed = float("-inf")
                raise self._lost("has taken over, as this one did not answer for a while")
            self._record, self._stored, self._renewed = record, content, time.monotonic()

    def _lost(self, why: str, by: LeaseRecord | None = None) -> AlreadyRunningError:
        """`by`: the lease of the other job; None if it is on this checkpoint."""
        if by is not None and by.checkpoint != self._checkpoint:
            return AlreadyRunningError(
                f"another job reads the stream {by.stream} into {self._lake.uri}, with the checkpoint {by.checkpoint}: "
                f"it {why}. Both would write the same records. Nothing was written by this one: stop the other, or "
                "give this one a lake of its own (lake)"
            )
        return AlreadyRunningError(
            f"another {self._holder} {self._checkpoint} {why}. Nothing was written by this one: {self._remedy}"
        )


def leases(lake: Lake) -> list[LeaseRecord]:
    """The lease of every checkpoint, held or released."""
    contents = (lake.get(path) for path, _ in lake.list(_FOLDER))
    return [_decode(content) for content in contents if content]


def is_alive(record: LeaseRecord) -> bool | None:
    """Whether the lease's owner runs; None if it is on another machine, where this process cannot look."""
    if record.released is not None:
        return False
    if not record.machine or record.machine != machine():
        return None
    return process_start(record.pid) == record.process_start
