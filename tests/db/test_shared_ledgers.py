"""Machines whose clocks differ share a ledger: its database's clock judges leases and orders rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, select

from db.clock import agree, is_shared, new_id, now
from db.identity import this_process
from db.ledger import leases
from db.ledger.connecting import open_ledger
from db.ledger.leases import LEASE_S, LeaseLostError
from db.tables import StoredLease
from tests.db.rows import Book
from tests.machines import SetMachine, shared_by_machines, using

NOON = 1_772_366_400.0  # 2026-03-01 12:00 UTC


class World:
    """The true time, by which the database goes, and machines whose clocks show another."""

    def __init__(self) -> None:
        self.now_s = NOON

    def machine(self, boot_id: str, *, ahead_s: float, up_s: float) -> SetMachine:
        made, began = SetMachine(), self.now_s
        made.boot_id = boot_id
        made.wall = lambda: self.now_s + ahead_s
        made.boot = made.monotonic = lambda: self.now_s - began + up_s
        return made


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def ledger(world: World, sqlite_ledger_url: str) -> Iterator[Engine]:
    engine = open_ledger(sqlite_ledger_url)
    yield shared_by_machines(engine, lambda: world.now_s)
    engine.dispose()


@pytest.fixture
def behind(world: World) -> SetMachine:
    return world.machine("one", ahead_s=-3600, up_s=50_000)


@pytest.fixture
def ahead(world: World) -> SetMachine:
    return world.machine("two", ahead_s=3600, up_s=10)


def at_work(ledger: Engine, machine: SetMachine) -> leases.Lease:
    with using(machine):
        agree(ledger)
        return Book(ledger, process=this_process()).lease


def test_only_a_ledger_that_is_said_to_be_is_shared_on_sqlite(ledger: Engine, sqlite_ledger_url: str) -> None:
    alone = open_ledger(sqlite_ledger_url)
    assert [is_shared(each) for each in (ledger, alone)] == [True, False]
    with ledger.connect() as connection, alone.connect() as other:
        assert [is_shared(each) for each in (connection, other)] == [True, False]
    alone.dispose()


def test_lease_lasts_by_the_databases_clock_whichever_machine_looks(
    world: World, ledger: Engine, behind: SetMachine, ahead: SetMachine
) -> None:
    for holder, other in ((behind, ahead), (ahead, behind)):
        lease = at_work(ledger, holder)
        for passed in (LEASE_S - 1, LEASE_S - 1):
            world.now_s += passed
            with using(other):
                assert leases.end_lapsed(ledger, except_lease="") == []
            with using(holder):
                leases.renew(ledger, lease)
        world.now_s += LEASE_S + 1
        with using(other):
            assert leases.end_lapsed(ledger, except_lease="") == [lease.run_id]
        with using(holder), pytest.raises(LeaseLostError):
            leases.renew(ledger, lease)


def test_process_of_another_machine_is_not_gone(ledger: Engine, behind: SetMachine, ahead: SetMachine) -> None:
    behind.pid_namespace = ahead.pid_namespace = "1"
    lease = at_work(ledger, behind)
    with using(ahead), ledger.connect() as connection:
        assert [each.id for each in leases.living(connection)] == [lease.id]
        assert connection.scalar(select(StoredLease.boot)) is None


def test_heartbeat_measures_the_databases_clock(world: World, ledger: Engine, ahead: SetMachine) -> None:
    lease = at_work(ledger, ahead)
    true_wall = ahead.wall
    ahead.wall = lambda: true_wall() + 86400  # somebody sets the clock
    world.now_s += 1
    with using(ahead):
        assert now().timestamp() == pytest.approx(world.now_s, abs=0.1)
    ahead.boot = lambda: world.now_s - NOON + 500  # and the other clock is wrong for a while
    with using(ahead):
        assert now().timestamp() != pytest.approx(world.now_s, abs=100)
        leases.renew(ledger, lease)
        assert now().timestamp() == pytest.approx(world.now_s, abs=0.1)


def test_ids_of_two_machines_sort_by_the_databases_clock(
    world: World, ledger: Engine, behind: SetMachine, ahead: SetMachine
) -> None:
    for machine in (behind, ahead):
        at_work(ledger, machine)
    made = []
    for machine in (ahead, behind, ahead, behind):
        world.now_s += 0.2
        with using(machine):
            made.append(new_id())
    assert made == sorted(made)
