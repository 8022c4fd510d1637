"""`presswork up`: what one machine needs is there after one command, mended by the next, and gone after `down`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.settings import ROOT
from tests.conftest import PREFECT_DATABASE
from tests.control.machine import AUTH, Machine

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


@pytest.fixture
def machine(prefect_home: Path, tmp_path: Path) -> Iterator[Machine]:
    """A machine whose server's tables are made: making them takes as long as all the rest."""
    home = tmp_path / "state"
    home.mkdir()
    (prefect_home / PREFECT_DATABASE).rename(home / "control.db")
    machine = Machine(home)
    machine.settings["PRESSWORK_DATABASE_URL"] = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    yield machine
    machine.presswork("down")
    for process in machine.processes():
        process.kill()


def test_up_starts_what_is_needed_mends_what_died_and_down_leaves_nothing(machine: Machine) -> None:
    machine.settings["PREFECT_SERVER_API_AUTH_STRING"] = AUTH
    # Neither one file's name nor a block that is not made yet keeps a machine from starting.
    machine.settings["PRESSWORK_NOTIFY_BLOCK"] = "slack-webhook/nobody"
    machine.settings["PRESSWORK_TEMPLATES_DIR"] = str(shutil.copytree(ROOT / "templates", machine.home / "templates"))
    shutil.copy(ROOT / "templates" / "album_notes.md.j2", machine.home / "templates" / "q&a.md.j2")
    first = machine.json("up")
    assert first["api"] == machine.api
    assert {"product-copy/nightly", "content/any-template", "content/album_notes"} <= set(first["deployments"])
    with urllib.request.urlopen(first["ui"]) as page:  # noqa: S310 - a loopback URL of our own
        assert b"<title>" in page.read()
    seen = machine.json("status")
    assert seen["well"]
    assert [worker["online"] for worker in seen["outlook"]["workers"]] == [True]

    assert machine.json("up")["pids"] == first["pids"], "what runs was started again"

    for pid in first["pids"].values():
        os.kill(pid, signal.SIGKILL)
    dead = machine.json("status", status=1)["services"]
    assert (dead["worker"]["running"], dead["server"]["running"]) == (False, False)
    mended = machine.presswork("up")
    assert mended.returncode == 0, mended.stderr
    assert "Template q&a: not deployed." in mended.stderr
    assert "slack-webhook/nobody" in mended.stderr
    assert f"The worker (process {first['pids']['worker']}) has ended since" in mended.stderr

    refused = machine.presswork("status", PREFECT_API_AUTH_STRING="operator:wrong")
    assert "refuses the user and password" in refused.stderr
    # What is known of it is on no disk.
    assert not any(AUTH in file.read_text(errors="replace") for file in machine.home.glob("*.[jl]*"))

    assert machine.json("down")["stopped"] == ["the worker", "Prefect's server"]
    machine.assert_nothing_is_left()
    assert machine.json("down") == {"stopped": []}


def test_foreground_stays_until_it_is_told_to_end(machine: Machine) -> None:
    with machine.foreground() as supervisor:
        assert told(supervisor)["api"] == machine.api
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(timeout=60) == 0
        assert supervisor.stderr is not None
        assert "Traceback" not in supervisor.stderr.read()
    machine.assert_nothing_is_left()


@pytest.mark.soak
def test_foreground_ends_with_a_status_when_a_service_dies(machine: Machine) -> None:
    for service in ("worker", "server"):
        with machine.foreground() as supervisor:
            os.kill(told(supervisor)["pids"][service], signal.SIGKILL)
            assert supervisor.wait(timeout=60) == 1
            assert supervisor.stderr is not None
            assert "has ended by itself" in supervisor.stderr.read()
        machine.assert_nothing_is_left()


@pytest.mark.soak
def test_ten_times_up_and_down_leaves_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "state")
    for _ in range(10):
        assert machine.json("up")["seconds"] < 60
        machine.json("down")
        machine.assert_nothing_is_left()


def told(supervisor: subprocess.Popen[str]) -> Any:
    """What it says once all is healthy."""
    assert supervisor.stdout is not None
    return json.loads("".join(iter(supervisor.stdout.readline, "}\n")) + "}")
