"""A run is spread over workers, and neither a worker's death nor the run's own makes anything be asked twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.engine.generate import WINDOW
from tests.engine.workshop import Workshop
from tests.flows.workers import ended, start, work_pool

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

CONCURRENCY, CHUNK = 10, 10
MOST_OPEN = WINDOW * CONCURRENCY + CHUNK


async def until(holds: Callable[[], bool], *, within_s: float = 90) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - the sandbox and the ledger tell no one
            await asyncio.sleep(0.05)


async def test_shard_whose_worker_is_killed_is_taken_over_by_another(
    workshop_on_postgres: Workshop, tmp_path: Path
) -> None:
    workshop, records, shards = workshop_on_postgres, 200, 3
    workshop.numbered(records)
    workshop.sandbox.configure(latency_ms=300)
    async with work_pool(tmp_path) as pool:
        await pool.deploy("flows.content:content", "notes")
        await pool.worker(limit=1)
        options = {"shards": shards, "concurrency": CONCURRENCY, "chunk_size": CHUNK}
        parent = await start("content/notes", template="note", options=options)
        # The first worker has room for the run alone: its shards are for the second.
        await until(lambda: workshop.value("SELECT count(*) FROM runs") == 1)
        second = await pool.worker()
        await until(lambda: workshop.requests >= records // 3)
        await pool.kill(second)
        in_flight = workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL")
        await pool.worker()
        assert (await ended(parent, within_s=120)).is_completed(), pool.said()

    assert workshop.requests <= records + in_flight
    (run,) = workshop.rows("SELECT * FROM runs WHERE parent_run_id IS NULL")
    assert run["status"] == "completed"
    assert workshop.statuses(run["id"]) == {"succeeded": records}
    assert workshop.value("SELECT count(*) FROM runs WHERE status = 'crashed' AND trigger = 'shard'") > 0
