"""The claim: one job at a time writes through a checkpoint. Taken before the query starts, kept up while it runs.

A second job on the same checkpoint would delete the first one's files as leftovers and write offsets into its
checkpoint, long before the ledger's conditional put could stop it. `<lake>/_claims/<checkpoint's hash>.json` says who
runs; it changes by compare-and-swap alone, so of two who start at once one wins.

A job that was killed leaves its claim behind. On the machine where it ran, the next start sees that the process is
gone and goes on at once; elsewhere it watches the claim's beat for LEASE_SECONDS, by its own clock, before it takes
over. A job that finds its claim taken over stops before its next step.
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

BEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0


class ClaimEntry(msgspec.Struct, frozen=True):
    """Who holds a checkpoint. `machine` is where `pid` means something; `released`: None while the job runs, then
    `clean` after an end between two batches, or `failed` after an error, and until what that left is cleared."""

    checkpoint: str
    owner: str
    machine: str
    pid: int
    process_start: str
    beat: int
    released: str | None = None
    version: int = 1


class Claim:
    """This process's claim on a checkpoint: `with Claim(lake, checkpoint) as claim:` around the query's life.

    Entering raises AlreadyRunningError where another job runs on the checkpoint.
    """

    def __init__(
        self,
        lake: Lake,
        checkpoint: str,
        *,
        beat_seconds: float = BEAT_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        holder: str = "job on the checkpoint",
        remedy: str = "stop the other, or give this one a checkpoint of its own (stream_job.checkpoint)",
    ) -> None:
        """`holder` and `remedy` are how errors call who holds a claim, and what they advise."""
        self._holder, self._remedy = holder, remedy
        self._lake = lake
        self._checkpoint = checkpoint
        self._path = f"_claims/{hashlib.sha256(checkpoint.encode()).hexdigest()[:16]}.json"
        self._beat_seconds = beat_seconds
        self._lease_seconds = lease_seconds
        self._entry = ClaimEntry(checkpoint, uuid.uuid4().hex, machine(), os.getpid(), process_start(os.getpid()), 0)
        self._written = b""
        self._beaten = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="claim", daemon=True)
        # Whether the job before this one may have died within a batch, and left files of it behind. True too where
        # no claim tells of one before.
        self.after_crash = True
        self._found_crash = False

    def __enter__(self) -> Claim:
        self._take()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        try:
            self._swap(released="failed" if error or self._found_crash else "clean")
        except MovementError as failure:
            # The job's own end is what matters; the next start finds this process gone, or waits for the lease.
            log.warning("the claim on %s could not be released: %s", self._checkpoint, failure)

    def cleared(self) -> None:
        """What the job before this one may have left is gone. A job that ends before that hands its claim on as it
        found it, so that the next one clears."""
        self.after_crash = self._found_crash = False

    def hold(self) -> None:
        """Raises AlreadyRunningError where another job has taken over. Call before each step that others would see.

        Asks S3 only where the last beat is old: after a pause longer than usual, or while S3 fails.
        """
        if time.monotonic() - self._beaten > self._lease_seconds / 2:
            self._swap(released=None)

    def _take(self) -> None:
        mine = msgspec.json.encode(self._entry)
        found = self._lake.get(self._path)
        if found is None:
            if self._lake.put_if_absent(self._path, mine):
                return self._taken(mine)
            found = self._lake.get(self._path)
        if found is not None:
            entry = msgspec.json.decode(found, type=ClaimEntry)
            if entry.released is None:
                self._wait_until_dead(found, entry)
            self.after_crash = self._found_crash = entry.released != "clean"
            if self._lake.replace(self._path, found, mine):
                return self._taken(mine)
        raise self._lost("has just been started")

    def _taken(self, mine: bytes) -> None:
        self._written, self._beaten = mine, time.monotonic()

    def _wait_until_dead(self, found: bytes, entry: ClaimEntry) -> None:
        """Returns once the claim's holder is surely gone."""
        if entry.machine == machine() and entry.machine:
            if process_start(entry.pid) == entry.process_start:
                raise self._lost(f"runs as process {entry.pid} of this machine")
            return
        log.warning("the claim on %s is another machine's: watching it for %d s", self._checkpoint, self._lease_seconds)
        deadline = time.monotonic() + self._lease_seconds
        while time.monotonic() < deadline:
            time.sleep(self._beat_seconds)
            if self._lake.get(self._path) != found:
                raise self._lost(f"runs as process {entry.pid} of {entry.machine.partition('/')[0]}")

    def _keep(self) -> None:
        while not self._ended.wait(self._beat_seconds):
            try:
                self._swap(released=None)
            except AlreadyRunningError:
                return  # `hold` says so where the job can stop
            except MovementError as error:
                log.warning("the claim on %s could not be kept up: %s", self._checkpoint, error)

    def _swap(self, released: str | None) -> None:
        with self._lock:
            entry = msgspec.structs.replace(self._entry, beat=self._entry.beat + 1, released=released)
            content = msgspec.json.encode(entry)
            if not self._lake.replace(self._path, self._written, content):
                self._beaten = float("-inf")
                raise self._lost("has taken over, as this one did not answer for a while")
            self._entry, self._written, self._beaten = entry, content, time.monotonic()

    def _lost(self, why: str) -> AlreadyRunningError:
        return AlreadyRunningError(
            f"another {self._holder} {self._checkpoint} {why}. Nothing was written by this one: {self._remedy}"
        )


def is_alive(entry: ClaimEntry) -> bool | None:
    """Whether the claim's holder runs; None where that cannot be told from here: it is another machine's."""
    if entry.released is not None:
        return False
    if not entry.machine or entry.machine != machine():
        return None
    return process_start(entry.pid) == entry.process_start
