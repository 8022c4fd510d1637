"""Identify a process, so that others can tell whether it still runs, and read the clock that leases are measured by.

A host name and a pid are not enough: containers share host names, and each counts its pids from one, and again from one
after a reboot. So the identity also has the process's start, the boot id of the machine and the pid namespace, if the
system reports them. `presswork up` identifies its services by the same facts (presswork/operate/processes.py).
"""

import os
import socket
import time
from functools import lru_cache
from pathlib import Path
from typing import Literal

import psutil

Fate = Literal["alive", "gone", "unseen"]
"""What can be seen of a process from here: it runs, it has ended, or it can't be seen."""

UNKNOWN = "-"
ZOMBIES = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
_PROC = Path("/proc")
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def this_process() -> str:
    """Return this process's identity: host/pid/start/boot/pid namespace; UNKNOWN for what is not reported."""
    return "/".join((socket.gethostname()[:100], str(os.getpid()), started(os.getpid()), boot_id(), _pid_namespace()))


def fate_of(process: str | None, *, one_machine: bool) -> Fate:
    """Return what can be seen of the process with this identity.

    `one_machine`: all that write to this ledger run on this machine, so a process of another boot has ended.
    The identities of an early Presswork have too few parts, so their processes can't be seen.
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
    """Return the seconds since this machine started; unlike time.monotonic(), they include the time that it slept."""
    return time.clock_gettime(_CLOCK)


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return the id of this boot of the machine; UNKNOWN if the system does not report one."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or UNKNOWN
    except (OSError, ValueError):
        return UNKNOWN


def started(pid: int) -> str:
    """When a process started: in clock ticks since boot on Linux, else in seconds. UNKNOWN for a zombie or none."""
    try:
        process = psutil.Process(pid)
        if process.status() in ZOMBIES:
            return UNKNOWN
        # create_time() moves when the clock is set. By this value, psutil itself recognizes a process; it has no
        # public name.
        _pid, created = vars(process)["_ident"]
    except (psutil.Error, OSError, RuntimeError):  # macOS reports some refusals as the last two
        return UNKNOWN
    if created is None:
        return UNKNOWN
    return str(round(created * os.sysconf("SC_CLK_TCK"))) if psutil.LINUX else f"{created:.6f}"


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
    # Another process may have got this pid since; then the start differs. Earlier releases knew no start on macOS.
    return "alive" if start in {UNKNOWN, started(pid)} else "gone"
