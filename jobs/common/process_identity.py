"""Who a process is, beyond its number, which is given anew: for what it leaves in a lake when it is killed."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path


def machine() -> str:
    """Where a process id means something: host, boot and pid namespace; empty where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()}/{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def process_start(pid: int) -> str:
    """When the process started, in the kernel's ticks since boot; empty where there is none (a zombie is none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def signature() -> str:
    """This process, to stand in a file's name: `<machine's hash>.<pid>.<start>`; `is_gone` reads it."""
    return f"{_machine_hash()}.{os.getpid()}.{process_start(os.getpid())}"


def is_gone(found: str) -> bool:
    """Whether the process of a `signature` has ended; False where that cannot be told from here."""
    where, _, process = found.partition(".")
    pid, _, start = process.partition(".")
    return bool(machine()) and where == _machine_hash() and pid.isdigit() and process_start(int(pid)) != start


def _machine_hash() -> str:
    return hashlib.sha256(machine().encode()).hexdigest()[:12]
