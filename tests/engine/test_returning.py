"""A run whose lease has expired finds out what it still owns before it sends anything."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from db.clock import new_id
from db.ledger import leases
from tests.db.rows import take_up
from tests.engine.workshop import Process, Workshop, ended

LEASE_S = 4
CONCURRENCY, CHUNK = 5, 10
BEFORE = """
from db.ledger import leases
from db.machine import Machine
leases.LEASE_S, leases.HEARTBEAT_S = {lease}, {lease} / 8
if {hidden}:
    # As in its own container: other processes can't see whether it lives.
    Machine.pid_namespace = "1"
"""
Start = Callable[..., Awaitable[Process]]


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.ledger.leases.LEASE_S", LEASE_S)
    monkeypatch.setattr("db.ledger.leases.HEARTBEAT_S", LEASE_S / 8)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Run the note's template in separate processes, which end with the test."""
    processes: list[Process] = []

    async def start(
        workshop: Workshop, *, hidden: bool, lease: float = LEASE_S, clock: str | None = None, **options: Any
    ) -> Process:
        process = await workshop.process(
            first=BEFORE.format(lease=lease, hidden=hidden),
            environment=faked(clock) if clock else None,
            concurrency=CONCURRENCY,
            chunk_size=CHUNK,
            **options,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
            await process.wait()


def faked(clock: str) -> dict[str, str]:
    """Return an environment that moves a process's clock ahead (`+5m`) or back; skips without Debian's libfaketime."""
    found = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if found is None:
        pytest.skip("libfaketime is not installed (Debian's package faketime)")
    return {"LD_PRELOAD": str(found), "FAKETIME": clock, "DONT_FAKE_MONOTONIC": "1"}


@asynccontextmanager
async def frozen(process: Process, workshop: Workshop) -> AsyncIterator[None]:
    """Freeze a process as a sleeping machine does, then wake it."""
    process.send_signal(signal.SIGSTOP)
    while is_locked(workshop):
        # It stopped during a commit, which would block other writers too.
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def is_locked(workshop: Workshop) -> bool:
    if workshop.ledger.dialect.name != "sqlite":
        # The server ends such a transaction, but only after a minute.
        open_ones = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return bool(workshop.value(f"{open_ones} AND xact_start IS NOT NULL"))
    with closing(sqlite3.connect(str(workshop.ledger.url.database), timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        return False


async def test_run_that_slept_leaves_to_another_what_that_one_took_over(
    workshop_on_each: Workshop, start: Start, short_leases: None
) -> None:
    workshop = workshop_on_each
    # On PostgreSQL the process seems to run on another machine; SQLite does not allow that.
    hidden = workshop.ledger_url.startswith("postgresql")
    workshop.numbered(60)
    workshop.sandbox.configure(latency_ms=300)
    process = await start(workshop, hidden=hidden)
    await asyncio.wait_for(workshop.answered(10), 60)
    async with frozen(process, workshop):
        summary = await workshop.run(concurrency=CONCURRENCY, chunk_size=CHUNK)
        assert (summary.succeeded + summary.cached, summary.exit_status) == (60, 0)
        slept = workshop.value("SELECT status FROM runs ORDER BY id LIMIT 1")
        assert slept == ("crashed" if hidden else "running")
    await ended(process)

    runs = workshop.rows("SELECT id, status FROM runs ORDER BY id")
    assert [run["status"] for run in runs] == ["completed"] * 2
    assert workshop.value("SELECT count(*) FROM leases") == 0
    for run in runs:
        assert workshop.statuses(run["id"]) == {"succeeded": 60}
    # Only requests in flight when it fell asleep, and the answers of one commit, are paid for twice.
    assert workshop.requests <= 60 + 2 * CONCURRENCY
    assert workshop.value("SELECT count(*) FROM claims") == 0
    assert workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0
    sent = "SELECT count(*) FROM attempts WHERE error_type IS NULL OR error_type NOT IN ('not_sent', 'crashed')"
    assert workshop.value(sent) == workshop.requests


async def test_run_that_slept_alone_takes_its_work_up_again(
    workshop: Workshop, start: Start, short_leases: None
) -> None:
    workshop.numbered(40)
    workshop.sandbox.configure(latency_ms=300)
    process = await start(workshop, hidden=True)
    await asyncio.wait_for(workshop.answered(10), 60)
    async with frozen(process, workshop):
        await asyncio.sleep(LEASE_S + 1)
        assert leases.end_lapsed(workshop.ledger, except_lease="") != []
    await ended(process)
    assert (workshop.requests, workshop.sandbox.stats()["repeated_bodies"]) == (40, 0)
    assert workshop.counts("SELECT status, count(*) FROM runs GROUP BY 1") == {"completed": 1}


async def test_process_that_slept_ends_where_a_newer_one_goes_on_with_its_run(
    workshop: Workshop, start: Start, short_leases: None
) -> None:
    workshop.numbered(60)
    workshop.sandbox.configure(latency_ms=300)
    process = await start(workshop, hidden=True)
    await asyncio.wait_for(workshop.answered(10), 60)
    async with frozen(process, workshop):
        await asyncio.sleep(LEASE_S + 1)
        leases.end_lapsed(workshop.ledger, except_lease="")
        (slept,) = workshop.rows("SELECT * FROM runs")
        newer = take_up(workshop.ledger, slept["id"], new_id())
    _printed, said = await asyncio.wait_for(process.communicate(), 60)
    assert "Abort: The run was stopped (another process has taken over this part of the run)" in said.decode()
    asked = workshop.requests
    assert asked <= 10 + 2 * CONCURRENCY
    # The run now belongs to the newer process, which will end it.
    assert workshop.counts("SELECT status, count(*) FROM runs GROUP BY 1") == {"running": 1}
    assert workshop.value("SELECT id FROM leases") == newer.id
    # Its paid answers are kept.
    assert workshop.value("SELECT count(*) FROM current_content") == asked
    assert workshop.value("SELECT count(*) FROM claims") == 0


@pytest.mark.postgres
async def test_newest_text_is_current_whoever_clock_is_ahead(workshop_on_each: Workshop, start: Start) -> None:
    workshop = workshop_on_each
    if not workshop.ledger_url.startswith("postgresql"):
        pytest.skip("SQLite has one machine, and so one clock")
    workshop.numbered(3)
    # The first writer's clock is five minutes ahead. By its times, its text would hide newer ones for five minutes.
    await ended(await start(workshop, hidden=True, clock="+5m"))
    older = workshop.counts("SELECT record_key, written_by_generation_id FROM current_content")
    await ended(await start(workshop, hidden=True, clock="-5m", refresh=True))
    newer = workshop.counts("SELECT record_key, written_by_generation_id FROM current_content")
    assert set(older.values()).isdisjoint(newer.values())
    answered = "SELECT count(*) FROM generations g JOIN generations n ON n.record_key = g.record_key AND n.id > g.id"
    assert workshop.value(f"{answered} AND n.created_at > g.created_at") == 3
    assert (await workshop.run()).cached == 3
    assert workshop.counts("SELECT record_key, written_by_generation_id FROM current_content") == newer


@pytest.mark.soak
@pytest.mark.postgres
async def test_workers_with_clocks_apart_pay_once_though_one_sleeps_four_minutes(
    workshop_on_each: Workshop, start: Start
) -> None:
    workshop = workshop_on_each
    if not workshop.ledger_url.startswith("postgresql"):
        pytest.skip("SQLite has one machine, and so one clock")
    workshop.numbered(400)
    workshop.sandbox.configure(latency_ms=500)
    first = await start(workshop, hidden=True, lease=120, clock="+5m")
    await asyncio.wait_for(workshop.answered(50), 120)
    async with frozen(first, workshop):
        second = await start(workshop, hidden=True, lease=120, clock="-5m")
        await asyncio.sleep(240)
    await ended(first)
    await ended(second)
    assert workshop.counts("SELECT status, count(*) FROM runs GROUP BY 1") == {"completed": 2}
    assert workshop.requests <= 400 + 2 * CONCURRENCY
    assert workshop.value("SELECT count(*) FROM current_content") == 400
    sys.stdout.write(f"requested twice: {workshop.requests - 400}\n")
