"""A killed run leaves a trace, and the next one continues: no recorded prompt is requested again."""

from __future__ import annotations

from functools import partial

from presswork.engine.live import WINDOW
from tests.engine.workshop import Workshop

RECORDS, CONCURRENCY, CHUNK = 300, 20, 25
MOST_OPEN = WINDOW * CONCURRENCY + CHUNK
"""The most prompts that are open at a time: in flight, or in the commit window before or after."""


async def test_killed_run_is_gone_on_with_and_repeats_only_what_was_in_flight(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.numbered(RECORDS)
    workshop.sandbox.configure(latency_ms=20)
    half_answered = partial(workshop.has_answered, RECORDS // 2)
    await workshop.killed(half_answered, concurrency=CONCURRENCY, chunk_size=CHUNK)

    (dead,) = workshop.rows("SELECT * FROM runs")
    assert (dead["status"], dead["ended_at"]) == ("running", None)
    kept = workshop.value("SELECT count(*) FROM generations")
    assert 0 < kept < RECORDS
    trace = workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL")
    assert 0 < trace <= MOST_OPEN
    asked = workshop.requests
    # Each request that reached the endpoint is in the ledger, because it was written before it was sent.
    assert asked <= workshop.value("SELECT count(*) FROM attempts")

    summary = await workshop.run(concurrency=CONCURRENCY, chunk_size=CHUNK)
    assert (summary.cached, summary.succeeded, summary.exit_status) == (kept, RECORDS - kept, 0)
    repeated = workshop.requests - RECORDS
    assert repeated <= trace
    assert workshop.value("SELECT count(*) FROM current_content") == RECORDS
    assert workshop.statuses(summary.run_id) == {"succeeded": RECORDS}
    assert workshop.written(summary.run_id) == {"succeeded": RECORDS - kept}
    twice = "SELECT prompt_hash FROM generations WHERE origin = 'live' GROUP BY 1 HAVING count(*) > 1"
    assert workshop.rows(twice) == []

    (dead,) = workshop.rows("SELECT * FROM runs WHERE id = :id", id=dead["id"])
    assert (dead["status"], dead["ended_at"] is not None) == ("crashed", True)
    kinds = workshop.counts("SELECT error_type, count(*) FROM attempts GROUP BY 1")
    assert kinds["crashed"] == trace
    assert workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0
    assert workshop.value("SELECT count(*) FROM claims") == 0
