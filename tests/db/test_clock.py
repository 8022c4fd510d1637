"""The ledger's clock decides which row is newer, whichever machine's clock is ahead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from db.clock import agree, new_id, now
from db.ledger import leases
from db.machine import boot_time_s, here, wall_time_s
from tests.db.rows import Book
from tests.machines import SetMachine


@pytest.fixture(autouse=True)
def machine(machine: SetMachine) -> SetMachine:
    """A machine that knows of no ledger yet."""
    return machine


def ahead(minutes: float) -> None:
    """Set the ledger's clock ahead of this machine's."""
    here().ledger_clock.set(datetime.now(UTC) + timedelta(minutes=minutes), boot_time_s())


def shift_s() -> float:
    """The ledger's time minus this machine's."""
    return here().ledger_clock.now_s() - wall_time_s()


def moment_of(identifier: str) -> datetime:
    return datetime.fromtimestamp((UUID(identifier).int >> 80) / 1000, UTC)


@pytest.mark.parametrize("minutes", [-5, 0, 5])
def test_times_and_ids_are_the_ledgers(minutes: int) -> None:
    ahead(minutes)
    expected = datetime.now(UTC) + timedelta(minutes=minutes)
    assert abs(now() - expected) < timedelta(seconds=1)
    assert abs(moment_of(new_id()) - expected) < timedelta(seconds=1)
    assert UUID(new_id()).version == 7


def test_ids_of_two_processes_sort_by_the_ledgers_time() -> None:
    ahead(-5)  # this one's own clock is five minutes ahead
    older = new_id()
    here().ledger_clock.reset()
    here().ledger_clock.set(datetime.now(UTC) + timedelta(seconds=1), boot_time_s())
    assert older < new_id()


def test_ids_of_one_process_stay_in_order_while_the_measurements_differ_a_little() -> None:
    ahead(5)
    made = []
    for number in range(2000):
        if number % 100 == 0:
            here().ledger_clock.set(
                datetime.now(UTC) + timedelta(minutes=5, milliseconds=number % 3 * 10), boot_time_s()
            )
        made.append(new_id())
    assert made == sorted(made)


def test_clock_that_is_put_right_does_not_move_the_ledgers_time(machine: SetMachine) -> None:
    ahead(0)
    machine.wall = (datetime.now(UTC) + timedelta(hours=1)).timestamp
    # An hour's jump of the time of day: the ledger is now an hour behind it.
    assert shift_s() == pytest.approx(-3600, abs=1)


def test_clock_of_a_ledger_is_measured(ledger: Engine) -> None:
    ahead(60)
    agree(ledger)
    if ledger.dialect.name == "sqlite":
        assert shift_s() == pytest.approx(0, abs=0.001)
        return
    with ledger.connect() as connection:
        there = connection.scalar(text("SELECT clock_timestamp()"))
    assert abs(now() - there) < timedelta(seconds=1)


@pytest.mark.postgres
def test_heartbeat_that_waited_for_a_lock_does_not_move_the_ledgers_time(ledger: Engine) -> None:
    if ledger.dialect.name != "postgresql":
        pytest.skip("SQLite has one machine, and so one clock")
    agree(ledger)
    lease, locked = Book(ledger).lease, Event()

    def hold() -> None:
        with ledger.begin() as connection:
            connection.execute(text("SELECT id FROM leases FOR UPDATE"))
            locked.set()
            connection.execute(text("SELECT pg_sleep(2.5)"))

    holder = Thread(target=hold)
    holder.start()
    locked.wait()
    leases.renew(ledger, lease)
    holder.join()

    assert abs(shift_s()) < 0.5
