"""Start and stop services that outlive the command that starts them, each known by its pid and by when it began.

What a service has started in turn (flow runs, each in a session of its own) is found by a mark in its environment,
where the system shows that (Linux).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from db.identity import UNKNOWN, boot_id, started
from flows.settings import ROOT

MARK = "PRESSWORK_STARTED_BY"
_LOOK_S = 0.1
_KILLED_WITHIN_S = 10.0


@dataclass(frozen=True)
class Process:
    """A process: `born` is when it began, as the system tells it."""

    pid: int
    born: str

    @property
    def is_alive(self) -> bool:
        """Whether it runs: this one, not another to whom its pid was given."""
        return born(self.pid) == self.born


def start(command: Sequence[str], environment: Mapping[str, str], log: Path | None) -> Process:
    """Start a service in the project's root, out of reach of this terminal's Ctrl-C. Without `log`, it prints to ours."""
    with log.open("ab") if log else nullcontext() as output:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            # Standard output is for this command's answer.
            stdout=output or 2,
            stderr=output,
            start_new_session=True,
        )
    # It is known by its pid from now on; whoever started it need not wait for it.
    child.returncode = 0
    return Process(child.pid, born(child.pid) or "")


def this_process() -> Process:
    """The process that asks."""
    return Process(os.getpid(), born(os.getpid()) or "")


def stop(processes: Sequence[Process], *, within_s: float) -> None:
    """End processes: SIGTERM, and SIGKILL for those that have not ended within some seconds."""
    for number, patience_s in ((signal.SIGTERM, within_s), (signal.SIGKILL, _KILLED_WITHIN_S)):
        for process in processes:
            if process.is_alive:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        deadline = time.monotonic() + patience_s
        while any(process.is_alive for process in processes) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)


def reap() -> None:
    """Let children of this process that have ended be forgotten by the system."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def marked(mark: str) -> list[Process]:
    """Find the processes that carry a mark in their environment."""
    entry = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            carries = entry in (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is not ours to look at
            continue
        if carries and (when := born(int(folder.name))):
            found.append(Process(int(folder.name), when))
    return found


def born(pid: int) -> str | None:
    """When a process began, as db.identity knows it; None where none of this pid runs."""
    if boot_id() != UNKNOWN:
        start = started(pid)
        return None if start == UNKNOWN else f"{boot_id()} {start}"
    told = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],  # noqa: S607 - the system's own, wherever that is
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split(maxsplit=1)
    # One that has ended, and is only not forgotten yet, is listed as Z or X.
    return None if not told or told[0].startswith(("Z", "X")) else told[-1].strip()
