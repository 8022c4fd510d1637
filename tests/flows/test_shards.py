"""A run is spread over workers, and neither a worker's death nor the run's own makes anything be asked twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import AwaitingRetry, Cancelling, Crashed

from tests.engine.workshop import Workshop
from tests.waiting import until
from tests.workers import Pool, prefect, start, work_pool

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

HELPERS = "SELECT count(*) FROM leases WHERE worker <> 'main'"
IN_FLIGHT = "SELECT count(*) FROM attempts WHERE ended_at IS NULL"
OPTIONS = {"concurrency": 10, "chunk_size": 10}


async def soon(holds: Callable[[], bool], *, within_s: float = 120) -> None:
    """Wait until `holds` is true, and fail if that takes too long."""
    async with asyncio.timeout(within_s):
        await until(holds, pause_s=0.05)


async def started(pool: Pool, workshop: Workshop, **options: Any) -> tuple[FlowRun, int]:
    """Start a run that is spread, on a worker that has room for nothing else; the run, and that worker."""
    await prefect("deploy", "flows.content:content", "--name", "notes", "--pool", pool.name)
    worker = await pool.worker(limit=1)
    flow_run = await start("content/notes", template="note", options={**OPTIONS, **options})
    await soon(lambda: workshop.value("SELECT count(*) FROM runs") == 1)
    return flow_run, worker


async def revive(flow_run: FlowRun) -> None:
    """Do what the automations do that see a run without a heartbeat: mark it crashed, and have it run again."""
    async with get_client() as client:
        await client.set_flow_run_state(flow_run.id, Crashed(), force=True)
        await client.set_flow_run_state(flow_run.id, AwaitingRetry(), force=True)


def require_whole(workshop: Workshop, records: int) -> None:
    """There is one run; it has an outcome for each record, and no generation of a prompt was made twice."""
    (run,) = workshop.rows("SELECT * FROM runs")
    assert run["status"] == "completed"
    statuses = workshop.statuses(run["id"])
    assert sum(statuses.values()) == records
    assert set(statuses) <= {"succeeded", "refused"}
    twice = """SELECT prompt_hash FROM generations WHERE origin = 'live' AND status = 'succeeded'
        GROUP BY 1 HAVING count(*) > 1"""
    assert workshop.rows(twice) == []
    for nothing_left in ("claims", "leases", "working_rows"):
        assert workshop.value(f"SELECT count(*) FROM {nothing_left}") == 0


@pytest.mark.soak
async def test_shard_whose_worker_is_killed_is_taken_over_by_another(
    workshop_on_postgres: Workshop, tmp_path: Path
) -> None:
    workshop, records = workshop_on_postgres, 200
    workshop.numbered(records)
    workshop.sandbox.configure(latency_ms=2000, refused=0.05)
    async with work_pool(tmp_path) as pool:
        run, _worker = await started(pool, workshop, shards=3)
        second = await pool.worker()
        await soon(lambda: workshop.value(HELPERS) == 3 or workshop.requests >= records // 2)
        await soon(lambda: workshop.requests >= records // 6)
        await pool.kill(second)
        in_flight = workshop.value(IN_FLIGHT)
        await pool.worker()
        await pool.reached(run, "Completed", within_s=300)
    # Nobody asks again for what one that died was refused: that is an outcome of their run.
    assert workshop.value("SELECT count(*) FROM generations WHERE status = 'refused'") > 0
    assert records <= workshop.requests <= records + in_flight
    assert workshop.value("SELECT count(DISTINCT lease_id) FROM attempts") > 3
    require_whole(workshop, records)
    # The run itself asks for nothing.
    assert workshop.value("SELECT count(*) FROM generations WHERE lease_id IS NULL") == 0


@pytest.mark.soak
async def test_many_records_in_many_shards_on_three_workers_are_each_asked_for_once(
    workshop_on_postgres: Workshop, tmp_path: Path
) -> None:
    workshop, records = workshop_on_postgres, 5000
    workshop.numbered(records)
    workshop.sandbox.configure(latency_ms=350)
    async with work_pool(tmp_path) as pool:
        run, _worker = await started(pool, workshop, shards=8)
        await pool.worker()
        await pool.worker()
        await pool.reached(run, "Completed", within_s=600)
    assert workshop.requests == records
    assert workshop.sandbox.stats()["repeated_bodies"] == 0
    require_whole(workshop, records)


@pytest.mark.soak
async def test_deaths_of_a_shard_and_of_the_run_cost_only_what_was_in_flight(
    workshop_on_postgres: Workshop, tmp_path: Path
) -> None:
    workshop, records = workshop_on_postgres, 5000
    workshop.numbered(records)
    workshop.sandbox.configure(latency_ms=350)
    async with work_pool(tmp_path) as pool:
        run, first = await started(pool, workshop, shards=8)
        second = await pool.worker(limit=4)
        await pool.worker(limit=4)
        await soon(lambda: workshop.requests >= records // 3, within_s=300)
        await pool.kill(second)
        # Of those whose process lives, some may be in flight too: no more than all of them can be asked again.
        lost = workshop.value(IN_FLIGHT)
        await pool.worker(limit=4)
        await soon(lambda: workshop.requests >= records * 2 // 3, within_s=300)
        await pool.kill(first)
        await revive(run)
        await pool.worker(limit=1)
        await pool.reached(run, "Completed", within_s=600)
    assert records <= workshop.requests <= records + lost
    require_whole(workshop, records)


@pytest.mark.soak
async def test_two_workers_stay_within_the_limit_that_they_share(
    workshop_on_postgres: Workshop, tmp_path: Path
) -> None:
    workshop, records = workshop_on_postgres, 3000
    workshop.numbered(records)
    workshop.sandbox.configure(latency_ms=350, rpm=1000)
    async with work_pool(tmp_path) as pool:
        run, _worker = await started(pool, workshop, shards=2, concurrency=50, chunk_size=50)
        await pool.worker(limit=1)
        await pool.worker(limit=1)
        await pool.reached(run, "Completed", within_s=600)
    refused = workshop.value("SELECT count(*) FROM attempts WHERE http_status = 429")
    assert refused <= workshop.requests / 100
    require_whole(workshop, records)


@pytest.mark.soak
async def test_cost_cap_holds_for_the_whole(workshop_on_postgres: Workshop, tmp_path: Path) -> None:
    workshop, records = workshop_on_postgres, 300
    workshop.numbered(records)
    async with work_pool(tmp_path) as pool:
        run, _worker = await started(pool, workshop, shards=3, max_cost=0.05)
        await pool.worker()
        await pool.reached(run, "Completed", within_s=300)
    assert 0.04 < float(workshop.value("SELECT sum(cost_usd) FROM attempts")) <= 0.05
    (whole,) = workshop.rows("SELECT * FROM runs")
    assert whole["status"] == "capped"
    statuses = workshop.statuses(whole["id"])
    assert set(statuses) == {"succeeded", "skipped"}
    assert statuses["succeeded"] == workshop.requests


@pytest.mark.soak
async def test_cancel_of_the_run_cancels_its_shards(workshop_on_postgres: Workshop, tmp_path: Path) -> None:
    workshop, records = workshop_on_postgres, 1000
    workshop.numbered(records)
    workshop.sandbox.configure(latency_ms=1000)
    async with work_pool(tmp_path) as pool:
        run, _worker = await started(pool, workshop, shards=3)
        await pool.worker(limit=2)
        await soon(lambda: workshop.requests > 100)
        async with get_client() as client:
            await client.set_flow_run_state(run.id, Cancelling())
        await pool.reached(run, "Cancelled", within_s=60)
        await soon(lambda: workshop.value("SELECT count(*) FROM leases") == 0)
        asked = workshop.requests
        await asyncio.sleep(3)
        assert workshop.requests == asked < records
    assert workshop.counts("SELECT status, count(*) FROM runs GROUP BY 1") == {"cancelled": 1}
    assert workshop.value(IN_FLIGHT) == 0
