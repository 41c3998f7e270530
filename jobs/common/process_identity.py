"""Identifies a process beyond its id, which the kernel reuses: to tell whether the writer of a file still runs."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path


def machine() -> str:
    """The scope of a process id: host, boot and pid namespace. Empty if it is unknown (not on Linux)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()}/{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def process_start(pid: int) -> str:
    """The start time of the process, in kernel ticks since boot. Empty if it does not run; a zombie does not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def signature() -> str:
    """This process as a part of a file's name: `<hash of the machine>.<pid>.<start>`. `is_gone` reads it."""
    return f"{_machine_hash()}.{os.getpid()}.{process_start(os.getpid())}"


def is_gone(signature: str) -> bool:
    """Whether the process with this `signature` has ended. False if it may run on another machine."""
    where, _, process = signature.partition(".")
    pid, _, start = process.partition(".")
    return bool(machine()) and where == _machine_hash() and pid.isdigit() and process_start(int(pid)) != start


def _machine_hash() -> str:
    return hashlib.sha256(machine().encode()).hexdigest()[:12]
