"""Pages that wait at this host for whichever of its worker processes wants them: one Unix socket a page.

Spark hands its idle Python workers out in turn, so a shard's next range is read in another process than the last one.
The process that offers a page listens on a socket file named by the page's key, fetches, and sends the page to the
first that connects. Where nobody listens, where the process has died, or where it takes too long, there is no page,
and the reader fetches for itself. `ahead` makes the offers, and takes them.

The files stand in a directory that only this user may enter; without such a directory, or without Unix sockets,
nothing is offered.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import msgspec

from spark_kinesis.client import Page, Record

_log = logging.getLogger(__name__)

# A page that nobody has asked for is given up after so long.
_KEPT_SECONDS = 60.0
# Who waits for a page that is still being fetched, waits no longer: then it is faster to fetch it.
_PATIENCE_SECONDS = 5.0
# What one process holds at a time.
_MOST_BYTES = 16 * 1024 * 1024
_MOST_PAGES = 16
# So many guesses may be wrong, and one more for each ten that were right: where the next task mostly runs on another
# host, guessing ends by itself.
_WRONG_GUESSES = 2
_RIGHT_FOR_A_WRONG = 10
# A socket's path: macOS allows 104 bytes with the closing zero, Linux 108. A key takes up to 20.
_LONGEST_FOLDER = 82

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Page[Record]).decode


class HostOffers:
    """The offers of this host's processes that use `folder`. Thread-safe; fulfils `ahead.Offers`.

    folder  a private directory (`private_folder`); None: there is none, and nothing is offered or found
    """

    def __init__(
        self, folder: Path | None, *, kept_seconds: float = _KEPT_SECONDS, patience_seconds: float = _PATIENCE_SECONDS
    ) -> None:
        self._folder = folder
        self._kept_seconds = kept_seconds
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._held: list[int] = []
        self._taken = 0
        self._wrong = 0
        if folder is not None:
            _sweep(folder, older_than=time.time() - 2 * kept_seconds)

    def offer(self, key: str, fetch: Callable[[], Page[Record]], size: int) -> None:
        """Listens at once, fetches in a thread; does nothing where enough is held, or enough guesses were wrong."""
        if self._folder is None:
            return
        with self._lock:
            full = len(self._held) >= _MOST_PAGES or (self._held and sum(self._held) + size > _MOST_BYTES)
            if full or self._wrong > _WRONG_GUESSES + self._taken // _RIGHT_FOR_A_WRONG:
                return
            self._held.append(size)
        path = self._folder / key
        try:
            listener = _listener(path)
        except OSError as error:
            # Another attempt of the same task offers it already, or there are no more files to be had.
            _log.debug("offers no page at %s: %s", path, error)
            self._settle(size, None)
            return
        serving = threading.Thread(target=self._serve, args=(listener, path, fetch, size), daemon=True)
        try:
            serving.start()
        except RuntimeError as error:
            _log.debug("offers no page at %s: %s", path, error)  # no more threads to be had
            listener.close()
            path.unlink(missing_ok=True)
            self._settle(size, None)

    def take(self, key: str) -> Page[Record] | None:
        if self._folder is None:
            return None
        path = self._folder / key
        try:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(self._patience_seconds)
                peer.connect(str(path))
                with peer.makefile("rb") as answer:
                    body = answer.read()
            return _decode(body) if body else None
        except FileNotFoundError:
            return None
        except ConnectionRefusedError:
            with suppress(OSError):
                path.unlink()  # left behind by a process that was killed
        except (OSError, msgspec.MsgspecError) as error:
            _log.debug("no page came from %s: %s", path, error)
        return None

    def _serve(self, listener: socket.socket, path: Path, fetch: Callable[[], Page[Record]], size: int) -> None:
        taken = False
        try:
            with listener:
                try:
                    listener.settimeout(self._kept_seconds)
                    body = _encode(fetch())
                    peer, _ = listener.accept()
                finally:
                    path.unlink(missing_ok=True)
            with peer:
                peer.settimeout(self._patience_seconds)
                peer.sendall(body)
            taken = True
        except Exception as error:  # noqa: BLE001 whatever it is: it was a guess, and the reader makes the call itself
            _log.debug("the page at %s was not taken: %s", path, error)
        finally:
            self._settle(size, taken)

    def _settle(self, size: int, taken: bool | None) -> None:
        with self._lock:
            self._held.remove(size)
            self._taken += taken is True
            self._wrong += taken is False


def _listener(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    try:
        found.bind(str(path))
        found.listen(1)
    except OSError:
        found.close()
        raise
    return found


def private_folder(base: str | None = None) -> Path | None:
    """`<base>/movement-ahead-<uid>`, made if need be; None unless it is this user's alone. `base`: the system's
    directory for temporary files."""
    if not hasattr(socket, "AF_UNIX"):
        return None
    folder = Path(base or tempfile.gettempdir()) / f"movement-ahead-{os.getuid()}"
    if len(os.fsencode(folder)) > _LONGEST_FOLDER:
        _log.debug("nothing is read ahead: %s is too long a path for a socket", folder)
        return None
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        _log.debug("nothing is read ahead: %s", error)
        return None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        _log.warning("nothing is read ahead: %s is not this user's alone; remove it", folder)
        return None
    return folder


def _sweep(folder: Path, older_than: float) -> None:
    """Removes what killed processes left behind."""
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                if path.lstat().st_mtime < older_than:
                    path.unlink()


@lru_cache(maxsize=1)
def host_offers() -> HostOffers:
    """This process's, so that it counts its guesses over all its tasks. Where Spark ends its Python workers with their
    tasks (`spark.python.worker.reuse=false`), a page would be gone before anybody wanted it, so nothing is offered."""
    return HostOffers(private_folder() if os.environ.get("SPARK_REUSE_WORKER") else None)
