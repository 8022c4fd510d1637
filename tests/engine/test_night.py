"""Long tests at full size, with faults, kills and outages for minutes. `make soak` runs them."""

from __future__ import annotations

import asyncio
import itertools
import sys

import pytest

from presswork import Summary
from presswork.engine.live import WINDOW
from tests.engine.workshop import Workshop

pytestmark = [pytest.mark.prefect, pytest.mark.soak]

KILLS = 20
RECORDS, CONCURRENCY, CHUNK = 4000, 50, 50
MOST_OPEN = WINDOW * CONCURRENCY + CHUNK
"""The most prompts that are open at a time: in flight, or in the commit window before or after."""


@pytest.mark.parametrize("seed", range(5))
async def test_ten_thousand_succeed_under_faults_of_every_kind(
    workshop: Workshop, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_REPAIRS", "3")
    monkeypatch.setenv("PRESSWORK_ESCALATIONS", "3")
    workshop.numbered(10_000)
    workshop.sandbox.configure(
        seed=seed,
        rate_limited=0.10,
        overloaded=0.02,
        dropped_before=0.005,
        dropped_after=0.005,
        invalid=0.02,
        truncated=0.01,
    )
    summary = await workshop.run(concurrency=100)

    stats = workshop.sandbox.stats()
    assert (summary.succeeded, summary.status, summary.exit_status) == (10_000, "completed", 0)
    assert workshop.value("SELECT count(*) FROM current_content") == 10_000
    assert (summary.requests, stats["repeated_bodies"]) == (stats["requests"], 0)
    served = "SELECT sum(output_tokens) FROM attempts"
    assert workshop.value(served) == stats["served"]["output_tokens"]


async def test_twenty_kills_repeat_only_what_was_open_each_time(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.numbered(RECORDS)
    workshop.sandbox.configure(latency_ms=100)
    repeated = [0]
    for kill in range(KILLS):
        before = workshop.requests
        process = await workshop.process(concurrency=CONCURRENCY, chunk_size=CHUNK)
        await asyncio.wait_for(workshop.asked(before + 1), 120)
        # Multiples of the golden ratio spread the kills evenly over 0.8 s, the same way each time.
        await asyncio.sleep(0.8 * (kill * 0.618 % 1))
        process.kill()
        await process.communicate()
        repeated.append(workshop.sandbox.stats()["repeated_bodies"])
    killed_at = workshop.value("SELECT count(*) FROM generations WHERE origin = 'live'")
    summary = await workshop.run(concurrency=CONCURRENCY, chunk_size=CHUNK)
    repeated.append(workshop.sandbox.stats()["repeated_bodies"])

    each = [after - before for before, after in itertools.pairwise(repeated)]
    sys.stdout.write(f"answered before the last run: {killed_at}; repeated after each kill: {each[1:]}\n")
    assert max(each) <= MOST_OPEN
    assert (summary.records, summary.succeeded + summary.cached, summary.exit_status) == (RECORDS, RECORDS, 0)
    assert workshop.value("SELECT count(*) FROM current_content") == RECORDS
    assert each_record_counts_once(workshop, summary) == RECORDS
    twice = "SELECT prompt_hash FROM generations WHERE origin = 'live' GROUP BY 1 HAVING count(*) > 1"
    assert workshop.rows(twice) == []
    assert workshop.counts("SELECT status, count(*) FROM runs GROUP BY 1") == {"crashed": KILLS, "completed": 1}
    assert workshop.value("SELECT sum(requests) FROM usage_by_day") == workshop.value(
        "SELECT count(*) FROM attempts WHERE error_type IS NULL OR error_type NOT IN ('not_sent', 'connect')"
    )


def each_record_counts_once(workshop: Workshop, summary: Summary) -> int:
    """Count the records whose current content the run has written or confirmed, each in one of both ways.

    Every such content must be in the run's figures: as a row of history that counts, or in the counts of its step.
    """
    last = {"id": summary.run_id}
    current = workshop.value("SELECT count(*) FROM current_content WHERE run_id = :id", **last)
    written = workshop.value(
        "SELECT count(*) FROM current_content c JOIN generations g ON g.id = c.generation_id "
        "WHERE g.run_id = :id AND c.run_id = :id AND g.replaced_by = '' AND g.status = 'succeeded'",
        **last,
    )
    confirmed = workshop.value("SELECT sum(unchanged) FROM run_steps WHERE run_id = :id", **last)
    from_ledger = workshop.value("SELECT count(*) FROM generations WHERE run_id = :id AND origin = 'cache'", **last)
    assert sum(workshop.written(summary.run_id).values()) == written
    assert (summary.succeeded, summary.cached) == (written - from_ledger, confirmed + from_ledger)
    assert written + confirmed == current
    assert workshop.value("SELECT count(*) FROM working_rows WHERE run_id = :id", **last) == 0
    return int(current)


async def test_endpoint_that_is_away_for_ninety_seconds_costs_nothing_twice(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RETRY_WAIT_MAX_S", "RETRY_AFTER_CAP_S", "CHUNK_RETRY_DELAY_S"):
        # The defaults of an installation.
        monkeypatch.delenv(f"PRESSWORK_{name}")
    workshop.numbered(2_000)
    workshop.sandbox.configure(latency_ms=100)

    async def interrupt() -> None:
        await workshop.answered(700)
        await workshop.sandbox.stop()
        await asyncio.sleep(90)
        await workshop.sandbox.start()

    interruption = asyncio.create_task(interrupt())
    summary = await workshop.run(concurrency=50)
    await interruption

    assert (summary.succeeded, summary.exit_status) == (2_000, 0)
    assert workshop.sandbox.stats()["repeated_bodies"] == 0
    assert workshop.value("SELECT count(*) FROM generations") == 2_000
