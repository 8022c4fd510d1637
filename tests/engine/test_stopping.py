"""Stop a run cleanly, at once or by Prefect's Cancel: its answers are kept, and the next run resumes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import pytest
from prefect.exceptions import Abort
from sqlalchemy import text

from db.clock import new_id
from db.identity import this_process
from db.ledger import claims
from db.ledger.lifecycle import begin_or_resume
from presswork.report.summary import Summary
from tests.db.rows import run_row
from tests.engine.workshop import Workshop

RECORDS, AT_ONCE = 40, 4


@pytest.fixture
def work(workshop: Workshop) -> Workshop:
    workshop.numbered(RECORDS)
    workshop.sandbox.configure(latency_ms=400)
    return workshop


def begin(work: Workshop, **options: Any) -> asyncio.Task[Summary]:
    return asyncio.create_task(work.run(**{"concurrency": AT_ONCE, "chunk_size": 5, **options}))


async def ended(run: asyncio.Task[Summary]) -> str:
    """Wait for the end of a stopped run, and return its message."""
    with pytest.raises(Abort) as stop:
        await run
    return str(stop.value)


def interrupt(number: signal.Signals = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def assert_in_order(work: Workshop) -> None:
    """Assert that nothing is left open."""
    assert work.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0
    assert work.value("SELECT count(*) FROM claims") == 0
    run = work.rows("SELECT status, ended_at FROM runs ORDER BY id DESC LIMIT 1")[0]
    assert (run["status"], run["ended_at"] is not None) == ("cancelled", True)


async def assert_goes_on(work: Workshop, *, repeated: int = 0) -> None:
    """Run again, and assert that all records have content and no answered prompt is requested again."""
    kept = work.value("SELECT count(*) FROM current_content")
    asked = work.requests
    work.sandbox.configure(latency_ms=0)
    again = await work.run()
    assert (again.cached, again.succeeded, again.exit_status) == (kept, RECORDS - kept, 0)
    assert work.requests - asked == RECORDS - kept
    assert work.sandbox.stats()["repeated_bodies"] <= repeated


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
async def test_first_signal_lets_what_is_in_flight_end_and_sends_no_more(
    work: Workshop, number: signal.Signals
) -> None:
    work.sandbox.configure(latency_ms=1200)
    run = begin(work)
    await work.asked(AT_ONCE + 2)
    interrupt(number)
    # What had a place when the signal came may arrive a moment later. None ends before, so no place is free meanwhile.
    await asyncio.sleep(0.5)
    asked = work.requests
    said = await ended(run)

    assert number.name in said
    assert "To resume, run it again" in said
    assert work.requests == asked
    # Exactly the requested records were answered and recorded.
    assert work.value("SELECT count(*) FROM current_content") == asked
    assert work.sandbox.stats()["served"]["answers"] == asked
    assert work.counts("SELECT coalesce(error_type, '-'), count(*) FROM attempts GROUP BY 1")["-"] == asked
    assert_in_order(work)
    await assert_goes_on(work)


async def test_second_signal_stops_at_once_and_marks_what_it_cuts_off(work: Workshop) -> None:
    work.sandbox.configure(latency_ms=30_000)
    run = begin(work)
    await work.asked(AT_ONCE)
    interrupt()
    await asyncio.sleep(0.1)
    assert not run.done()
    began = time.monotonic()
    interrupt()
    await ended(run)

    assert time.monotonic() - began < 5
    kinds = work.counts("SELECT error_type, count(*) FROM attempts GROUP BY 1")
    assert kinds.pop("abandoned") == AT_ONCE
    assert set(kinds) <= {"not_sent"}
    assert_in_order(work)
    await assert_goes_on(work)


async def test_what_is_in_flight_longer_than_the_setting_is_abandoned(
    work: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_STOP_WAIT_S", "0.3")
    work.sandbox.configure(latency_ms=30_000)
    run = begin(work)
    await work.asked(AT_ONCE)
    interrupt()
    began = time.monotonic()
    await ended(run)
    assert 0.2 < time.monotonic() - began < 8
    assert work.value("SELECT count(*) FROM attempts WHERE error_type = 'abandoned'") == AT_ONCE
    assert_in_order(work)


async def test_stop_ends_waits_between_retries_and_for_limits(work: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_RETRY_WAIT_MAX_S", "60")
    monkeypatch.setenv("PRESSWORK_RETRY_AFTER_CAP_S", "60")
    work.sandbox.configure(latency_ms=0, rpm=5, burst_seconds=60)
    run = begin(work)
    await work.asked(5)
    await asyncio.sleep(0.3)
    began = time.monotonic()
    interrupt()
    await ended(run)
    assert time.monotonic() - began < 3
    assert_in_order(work)
    work.sandbox.configure(rpm=None)


async def test_stop_ends_a_wait_of_prefects_retries(work: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_REQUEST_RETRIES", "0")
    monkeypatch.setenv("PRESSWORK_CHUNK_RETRY_DELAY_S", "60")
    work.sandbox.configure(latency_ms=0, overloaded=1)
    run = begin(work)
    await work.asked(10)
    await asyncio.sleep(1)
    began = time.monotonic()
    interrupt()
    await ended(run)
    assert time.monotonic() - began < 5
    assert_in_order(work)
    work.sandbox.configure(overloaded=0)
    await assert_goes_on(work)


async def test_run_that_waits_for_another_ends_when_it_is_stopped(work: Workshop) -> None:
    work.sandbox.configure(latency_ms=0)
    await work.run()
    with work.ledger.begin() as connection:
        hashes = list(connection.scalars(text("SELECT DISTINCT prompt_hash FROM generations")))
    another = run_row(process=this_process())
    claims.take(work.ledger, begin_or_resume(work.ledger, another, new_id()).id, hashes)
    run = begin(work, refresh=True)
    await work.begun(3)  # the first, the other, and this one
    await asyncio.sleep(0.5)
    began = time.monotonic()
    interrupt()
    await ended(run)
    assert time.monotonic() - began < 3
    assert work.value("SELECT count(*) FROM claims") == len(hashes)
