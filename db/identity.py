"""Name a process, so that others can tell whether it still lives, and read the clock that leases are measured by.

A host's name and a process's number are not enough: containers share host names, and each counts its processes from
one, and again from one after a reboot. So the identity also holds the process's start, the boot of the machine and the
pid namespace, where the system tells them. What `presswork up` keeps of its services is made of
the same facts (presswork/operate/installation.py).
"""

import os
import socket
import time
from functools import lru_cache
from pathlib import Path
from typing import Literal

Fate = Literal["alive", "gone", "unseen"]
"""What can be seen of a process from here: it lives, it has ended, or it can't be seen."""

UNKNOWN = "-"
_PROC = Path("/proc")
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def this_process() -> str:
    """Return this process's identity: host/pid/start/boot/pid namespace, UNKNOWN for what the system does not tell."""
    return "/".join((socket.gethostname()[:100], str(os.getpid()), started(os.getpid()), boot_id(), _pid_namespace()))


def fate_of(process: str | None, *, one_machine: bool) -> Fate:
    """Say what can be seen of the process with this identity.

    `one_machine`: whoever writes to this ledger runs on this machine, so that a process of another boot has ended.
    An identity that an earlier Presswork wrote tells too little, and so its process can't be seen.
    """
    parts = (process or "").split("/")
    if len(parts) != 5 or not parts[1].isdigit():
        return "unseen"
    host, pid, start, boot, namespace = parts
    if UNKNOWN in {boot, boot_id()}:
        return _fate_here(int(pid), start) if host == socket.gethostname()[:100] else "unseen"
    if boot != boot_id():
        return "gone" if one_machine else "unseen"
    return _fate_here(int(pid), start) if namespace == _pid_namespace() else "unseen"


def boot_time_s() -> float:
    """Return seconds since this machine started; unlike time.monotonic() they go on while it sleeps."""
    return time.clock_gettime(_CLOCK)


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return what tells one start of a machine from every other, UNKNOWN where the system does not say."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or UNKNOWN
    except (OSError, ValueError):
        return UNKNOWN


def started(pid: int) -> str:
    """When a process started, in clock ticks since boot; UNKNOWN where it has ended and only its parent must hear."""
    try:
        # proc(5)'s stat: the name of the program before the bracket may hold spaces. State is field 3, start field 22.
        state, *fields = (_PROC / f"{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return UNKNOWN if state in {"Z", "X"} else fields[18]
    except (OSError, IndexError, ValueError):
        return UNKNOWN


def _pid_namespace() -> str:
    try:
        return str((_PROC / "self/ns/pid").readlink()).strip("pid:[]") or UNKNOWN
    except OSError:
        return UNKNOWN


def _fate_here(pid: int, start: str) -> Fate:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except (PermissionError, OverflowError):
        return "unseen"
    # A number is given to another process in time: the moment it started tells them apart.
    return "alive" if started(pid) == start else "gone"
