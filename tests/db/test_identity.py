"""A process is known by machine, boot, namespace, number and start: nothing less tells it from another."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from db import machine
from db.identity import fate_of, this_process
from db.machine import UNKNOWN, here

HOST, PID, STARTED, BOOT, NAMESPACE = this_process().split("/")
OTHER_BOOT = "11111111-0000-0000-0000-000000000000"


def test_this_process_is_named_so_that_it_is_known_again() -> None:
    assert (HOST, PID, STARTED.isdigit()) == (socket.gethostname(), str(os.getpid()), True)
    assert fate_of(this_process(), one_machine=False) == "alive"


@pytest.mark.parametrize(
    ("process", "fate", "on_one_machine"),
    [
        (f"{HOST}/{PID}/1/{BOOT}/{NAMESPACE}", "gone", "gone"),  # the number is another's now
        (f"renamed/{PID}/{STARTED}/{BOOT}/{NAMESPACE}", "alive", "alive"),
        (f"{HOST}/{PID}/{STARTED}/{BOOT}/1", "unseen", "unseen"),  # another container, with numbers of its own
        (f"{HOST}/{PID}/{STARTED}/{OTHER_BOOT}/{NAMESPACE}", "unseen", "gone"),  # another `localhost`, or a restart
        (f"{HOST}/{PID}/{STARTED}/{UNKNOWN}/{UNKNOWN}", "alive", "alive"),
        (f"{HOST}/{PID}/{UNKNOWN}/{UNKNOWN}/{UNKNOWN}", "alive", "alive"),  # as an earlier Presswork wrote it on macOS
        (f"elsewhere/{PID}/{STARTED}/{UNKNOWN}/{UNKNOWN}", "unseen", "unseen"),
        (f"{HOST}/{PID}/{STARTED}", "unseen", "unseen"),  # as an earlier Presswork wrote it
        (f"{HOST}/{10**30}/1/{BOOT}/{NAMESPACE}", "unseen", "unseen"),
        ("odd", "unseen", "unseen"),
        (None, "unseen", "unseen"),
    ],
    ids="start name namespace boot no-boot no-start no-boot-elsewhere old too-large odd none".split(),
)
def test_fate_of_a_process(process: str | None, fate: str, on_one_machine: str) -> None:
    assert fate_of(process, one_machine=False) == fate
    assert fate_of(process, one_machine=True) == on_one_machine


def test_process_that_has_ended_is_gone_also_while_its_parent_has_not_heard_of_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    named = f"{HOST}/{child.pid}/{here().started(child.pid)}/{BOOT}/{NAMESPACE}"
    assert fate_of(named, one_machine=False) == "alive"
    child.kill()
    deadline = time.monotonic() + 60
    while fate_of(named, one_machine=False) != "gone":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.wait()
    assert fate_of(named, one_machine=False) == "gone"


def test_start_is_what_earlier_releases_wrote() -> None:
    # Otherwise an update would take their running processes for crashed ones.
    assert Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19] == STARTED


def test_start_does_not_move_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "create_time", lambda _process: 1.0)
    assert here().started(int(PID)) == STARTED


@pytest.mark.parametrize(
    "error", [psutil.AccessDenied(1), psutil.NoSuchProcess(1), PermissionError(), RuntimeError("proc_pidinfo() failed")]
)
def test_process_that_the_system_does_not_describe_has_no_start(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(_process: psutil.Process) -> NoReturn:
        raise error

    monkeypatch.setattr(psutil.Process, "status", refuse)
    assert here().started(int(PID)) == UNKNOWN


def test_system_that_tells_nothing_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PROC", Path("/nowhere"))
    machine._read_boot_id.cache_clear()
    try:
        assert this_process() == f"{HOST}/{PID}/{STARTED}/{UNKNOWN}/{UNKNOWN}"
        assert fate_of(this_process(), one_machine=True) == "alive"
    finally:
        machine._read_boot_id.cache_clear()
