"""Identify a process, so that others can check whether it still runs, and read the clock that leases use.

The host's name and the pid are not enough: containers share host names, and pids start again from one in each container
and after each reboot. So the identity also has the process's start time, the machine's boot id and the pid namespace,
if the system provides them. presswork/operate/installation.py uses the same facts for the services of `presswork up`.
"""

import os
import socket
import time
from functools import lru_cache
from pathlib import Path
from typing import Literal

Fate = Literal["alive", "gone", "unseen"]
"""The state of a process as seen from here: it runs, it has ended, or it is not visible."""

UNKNOWN = "-"
_PROC = Path("/proc")
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def this_process() -> str:
    """Return this process's identity: host/pid/start/boot/pid namespace, UNKNOWN for parts the system does not show."""
    return "/".join((socket.gethostname()[:100], str(os.getpid()), started(os.getpid()), boot_id(), _pid_namespace()))


def fate_of(process: str | None, *, one_machine: bool) -> Fate:
    """Return the state of the process with this identity.

    `one_machine`: all processes that write to this ledger run on this machine, so a process of another boot has ended.
    The shorter identities of earlier releases always return "unseen".
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
    """Return the seconds since this machine started; unlike time.monotonic(), they include its sleep."""
    return time.clock_gettime(_CLOCK)


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return the unique id of this machine's last start, UNKNOWN if the system does not show it."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or UNKNOWN
    except (OSError, ValueError):
        return UNKNOWN


def started(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; UNKNOWN if it has ended or is a zombie."""
    try:
        # stat in proc(5): the program's name before the bracket may contain spaces. State is field 3, start field 22.
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
    # Pids are reused: only the same start time means the same process.
    return "alive" if started(pid) == start else "gone"
