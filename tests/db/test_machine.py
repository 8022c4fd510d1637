"""What asks for the time or for a process asks the machine in use, and no other clock."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from uuid import UUID

import pytest

from db.clock import new_id, now
from db.identity import fate_of, this_process
from db.machine import Machine, boot_time_s, here, monotonic_s, pause, use, utc_now, wall_time_s
from tests.machines import SetMachine, using

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def machine(machine: SetMachine) -> SetMachine:
    machine.wall, machine.boot, machine.monotonic = NOON.timestamp, lambda: 20.0, lambda: 10.0
    return machine


def test_every_clock_is_the_machines(machine: SetMachine) -> None:
    assert (monotonic_s(), boot_time_s(), wall_time_s(), utc_now()) == (10.0, 20.0, NOON.timestamp(), NOON)
    assert now() == NOON
    assert UUID(new_id()).int >> 80 == NOON.timestamp() * 1000


def test_pause_of_a_machine_without_time_takes_none(machine: SetMachine) -> None:
    paused: list[float] = []
    machine.sleep = paused.append
    pause(3600)
    assert paused == [3600]


def test_ledgers_time_of_one_process_is_not_that_of_another(machine: SetMachine) -> None:
    machine.ledger_clock.set(datetime(2026, 3, 1, 13, tzinfo=UTC), boot_time_s())
    assert now().hour == 13
    with using(SetMachine()) as other:
        other.wall = NOON.timestamp
        assert now().hour == 12
    assert now().hour == 13


def test_process_of_another_machine_is_not_mistaken_for_one_of_this(machine: SetMachine) -> None:
    machine.boot_id, machine.pid_namespace = "one", "1"
    ours = this_process()
    with using(SetMachine()) as other:
        other.boot_id, other.pid_namespace = "two", "1"
        assert (fate_of(ours, one_machine=False), fate_of(ours, one_machine=True)) == ("unseen", "gone")
    assert fate_of(ours, one_machine=False) == "alive"


def test_machine_before_answers_again_after_an_error() -> None:
    before = here()
    with pytest.raises(ZeroDivisionError), using(SetMachine()):
        raise ZeroDivisionError
    assert here() is before
    assert use(before) is before


def test_ids_of_the_real_machine_rise() -> None:
    made = [Machine().uuid7() for _ in range(1000)]
    assert made == sorted(set(made))


def test_asking_for_the_time_loads_the_standard_library_alone() -> None:
    found = (
        "import sys, db.machine; db.machine.utc_now(); print({'psutil', 'uuid_utils', 'sqlalchemy'} & {*sys.modules})"
    )
    ended = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"
