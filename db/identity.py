"""Identify a process, so that others can tell whether it still runs.

A host name and a pid are not enough: containers share host names, and each counts its pids from one, and again from one
after a reboot. So the identity also has the process's start, the boot id of the machine and the pid namespace, if the
system reports them. `presswork up` identifies its services by the same facts (presswork/operate/processes.py).
"""

from typing import Literal

from db.machine import UNKNOWN, Machine, here

Fate = Literal["alive", "gone", "unseen"]
"""What can be seen of a process from here: it runs, it has ended, or it can't be seen."""


def this_process() -> str:
    """Return this process's identity: host/pid/start/boot/pid namespace; UNKNOWN for what is not reported."""
    machine = here()
    start = machine.started(machine.pid)
    return "/".join((machine.host[:100], str(machine.pid), start, machine.boot_id, machine.pid_namespace))


def fate_of(process: str | None, *, one_machine: bool) -> Fate:
    """Return what can be seen of the process with this identity.

    `one_machine`: all that write to this ledger run on this machine, so a process of another boot has ended.
    The identities of an early Presswork have too few parts, so their processes can't be seen.
    """
    parts = (process or "").split("/")
    if len(parts) != 5 or not parts[1].isdigit():
        return "unseen"
    machine = here()
    host, pid, start, boot, namespace = parts
    if UNKNOWN in {boot, machine.boot_id}:
        return _fate_here(machine, int(pid), start) if host == machine.host[:100] else "unseen"
    if boot != machine.boot_id:
        return "gone" if one_machine else "unseen"
    return _fate_here(machine, int(pid), start) if namespace == machine.pid_namespace else "unseen"


def _fate_here(machine: Machine, pid: int, start: str) -> Fate:
    exists = machine.exists(pid)
    if not exists:
        return "unseen" if exists is None else "gone"
    # Another process may have got this pid since; then the start differs. Earlier releases knew no start on macOS.
    return "alive" if start in {UNKNOWN, machine.started(pid)} else "gone"
