"""Simultaneous runs pay for each prompt once; if one crashes or fails, another takes over its prompts."""

from __future__ import annotations

import asyncio

import pytest

from tests.engine.workshop import Process, Workshop, ended

LEASE_S = 6
SHORT_LEASES = f"""
from db.ledger import leases
# The lease of a crashed owner must expire during the test.
leases.LEASE_S, leases.HEARTBEAT_S = {LEASE_S}, 0.5
"""


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.ledger.leases.LEASE_S", LEASE_S)
    monkeypatch.setattr("db.ledger.leases.HEARTBEAT_S", 0.5)
    monkeypatch.setattr("presswork.engine.claiming.ASK_AGAIN_S", (0.05, 0.3))


async def start(workshop: Workshop) -> Process:
    """Start the same job in its own process."""
    return await workshop.process(first=SHORT_LEASES, concurrency=5, chunk_size=10)


def bought_and_cached(workshop: Workshop) -> tuple[int, int]:
    """Count the paid outcomes and the cached ones; a late run finds some that are current and unchanged."""
    origins = workshop.counts("SELECT origin, count(*) FROM generations GROUP BY 1")
    unchanged = workshop.value("SELECT sum(unchanged) FROM run_steps")
    return origins["live"], origins.get("cache", 0) + unchanged


async def test_two_processes_with_the_same_job_buy_each_prompt_once(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.numbered(60)
    workshop.sandbox.configure(latency_ms=300)
    for process in [await workshop.process(concurrency=5, chunk_size=10) for _process in range(2)]:
        await ended(process)

    assert (workshop.requests, workshop.sandbox.stats()["repeated_bodies"]) == (60, 0)
    runs = workshop.rows("SELECT id, status FROM runs")
    assert [run["status"] for run in runs] == ["completed"] * 2
    for run in runs:
        assert workshop.statuses(run["id"]) == {"succeeded": 60}
    assert bought_and_cached(workshop) == (60, 60)
    assert workshop.value("SELECT count(*) FROM claims") == 0


async def test_runs_that_share_a_process_buy_each_prompt_once(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    # Each run has duplicates too.
    workshop.items({f"{number:05}": f"item {number % 40}" for number in range(80)})
    workshop.sandbox.configure(latency_ms=60, latency_spread=0.5)
    summaries = await asyncio.gather(*(workshop.run(concurrency=4, chunk_size=4) for _number in range(3)))

    assert (workshop.requests, workshop.sandbox.stats()["repeated_bodies"]) == (40, 0)
    assert [summary.succeeded + summary.cached for summary in summaries] == [80] * 3
    assert bought_and_cached(workshop) == (40, 200)
    assert workshop.value("SELECT count(*) FROM claims") == 0


async def test_run_takes_over_from_one_that_was_killed_while_it_waited(workshop: Workshop, short_leases: None) -> None:
    workshop.numbered(30)
    workshop.sandbox.configure(latency_ms=600)
    process = await start(workshop)
    await asyncio.wait_for(workshop.answered(10), 60)
    waiting = asyncio.create_task(workshop.run(concurrency=5, chunk_size=10))
    # It begins before the owner crashes, so it can't recover the owner's claims at its start, but only when the lease
    # expires.
    await workshop.begun(2)
    process.kill()
    await process.communicate()
    asked = workshop.requests
    workshop.sandbox.configure(latency_ms=0)
    summary = await waiting

    assert (summary.succeeded + summary.cached, summary.exit_status) == (30, 0)
    assert 0 < summary.cached < 30
    # At most the five requests in flight.
    assert workshop.requests - 30 <= 5
    assert asked >= 10
    assert workshop.value("SELECT count(*) FROM current_content") == 30
    assert (await workshop.run()).cached == 30
    assert workshop.counts("SELECT status, count(*) FROM runs GROUP BY 1") == {"crashed": 1, "completed": 2}


async def test_owner_that_lives_keeps_its_claims_beyond_a_lease(workshop: Workshop, short_leases: None) -> None:
    workshop.numbered(3)
    workshop.sandbox.configure(latency_ms=1000 * LEASE_S + 1500)
    summaries = await asyncio.gather(workshop.run(), workshop.run())
    assert (workshop.requests, sum(summary.succeeded for summary in summaries)) == (3, 3)


async def test_run_takes_over_what_the_owner_fails(
    workshop: Workshop, short_leases: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUEST_RETRIES", "CHUNK_RETRIES"):
        monkeypatch.setenv(f"PRESSWORK_{name}", "0")
    workshop.numbered(6)
    workshop.sandbox.configure(latency_ms=500, overloaded=1)
    owner = asyncio.create_task(workshop.run())
    await workshop.asked(6)
    waiting = asyncio.create_task(workshop.run())
    await workshop.begun(2)
    workshop.sandbox.configure(latency_ms=0, overloaded=0)

    assert (await owner).failed == 6
    summary = await waiting
    assert (summary.succeeded, summary.cached, summary.exit_status) == (6, 0, 0)
    assert workshop.requests == 12


async def test_run_takes_over_what_a_stopped_one_gives_back(workshop: Workshop, short_leases: None) -> None:
    workshop.numbered(12)
    workshop.sandbox.configure(latency_ms=300)
    capped = asyncio.create_task(workshop.run(concurrency=2, chunk_size=2, max_cost=0.0045))
    await workshop.asked(1)
    summary = await workshop.run(concurrency=2)
    first = await capped
    assert (first.status, first.succeeded + first.cached + first.skipped) == ("capped", 12)
    assert first.skipped > 0
    assert summary.succeeded + summary.cached == 12
    assert (workshop.requests, workshop.sandbox.stats()["repeated_bodies"]) == (12, 0)
