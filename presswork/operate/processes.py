"""Start processes, recognize them later, and stop them.

Another process may get the same pid later, so a process is recognized by its pid and its start together. Processes that
a service starts in turn (flow runs, each in a session of its own) are found by a mark in their environment.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

from db.machine import UNKNOWN, here, monotonic_s, pause
from presswork.settings import ROOT

MARK = "PRESSWORK_STARTED_BY"
"""The variable that holds the mark."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_POLL_S = 0.1
_KILLED_WITHIN_S = 10.0


@dataclass(frozen=True)
class Process:
    """A process; `born` is its start, as the system reports it."""

    pid: int
    born: str

    @property
    def is_alive(self) -> bool:
        """Whether this process runs. A zombie does not."""
        return born(self.pid) == self.born


def known(pid: int) -> Process:
    """Return the process that has this pid now."""
    return Process(pid, born(pid) or "")


def current_process() -> Process:
    """Return the process that calls this."""
    return known(os.getpid())


def born(pid: int) -> str | None:
    """Return the start of a process; None if no process with this pid runs."""
    machine = here()
    start = machine.started(pid)
    if start == UNKNOWN:
        return None
    return start if machine.boot_id == UNKNOWN else f"{machine.boot_id} {start}"


def marked_processes(mark: str, *words: str) -> list[Process]:
    """Find the processes that have this mark in their environment, and all these words in their command line."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it has ended, or belongs to another user
            is_marked = process.environ().get(MARK) == mark and {*words} <= {*process.cmdline()}
            if is_marked and (start := born(process.pid)):
                found.append(Process(process.pid, start))
    return found


def start_in_own_session(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path | None,
    stdin: int = subprocess.DEVNULL,
    inherited: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a process in the project's root. Its output goes to the log, or without one to our standard error.

    Ctrl-C at this terminal does not reach it: we stop it ourselves, once its runs are recorded. Of our open files it
    inherits only those that are named.
    """
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if log else os.dup(2)
    try:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=stdin,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=inherited,
        )
    finally:
        os.close(output)


def let_go(child: subprocess.Popen[bytes]) -> Process:
    """Return a child as a process that may outlive us: Python then does not warn that we never waited for it."""
    process = known(child.pid)
    child.returncode = 0
    return process


def stop_processes(processes: Sequence[Process], *, within_s: float) -> None:
    """Stop processes with SIGTERM, then with SIGKILL those that have not ended within some seconds."""
    for number, patience_s in ((signal.SIGTERM, within_s), (signal.SIGKILL, _KILLED_WITHIN_S)):
        for process in processes:
            if process.is_alive:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        deadline = monotonic_s() + patience_s
        while any(process.is_alive for process in processes) and monotonic_s() < deadline:
            pause(_POLL_S)


def ignore_stop_signals() -> None:
    """Ignore SIGTERM, SIGINT and SIGHUP from now on, so that nothing interrupts cleaning up."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def reap_children() -> None:
    """Wait for the children of this process that have ended, so that no zombies remain."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let the first SIGTERM, SIGINT or SIGHUP end the block, and this process with status 0; ignore later ones."""

    def end(_number: int, _frame: FrameType | None) -> None:
        ignore_stop_signals()
        raise SystemExit(0)

    before = {number: signal.signal(number, end) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
