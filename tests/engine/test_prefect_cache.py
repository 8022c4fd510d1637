"""Prefect's cache of chunks: keyed on the prompt hashes, served by the ledger."""

from __future__ import annotations

import asyncio

import pytest

from flows.content import content
from presswork import RunOptions, Summary
from tests.engine.plain_host import run_plainly
from tests.engine.workshop import Workshop
from tests.waiting import until

pytestmark = pytest.mark.prefect


@pytest.fixture
def held(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop with an overloaded endpoint, in which Prefect waits seconds before a chunk's next try."""
    monkeypatch.setenv("PRESSWORK_REQUEST_RETRIES", "0")
    monkeypatch.setenv("PRESSWORK_CHUNK_RETRY_DELAY_S", "15")
    workshop.sandbox.configure(overloaded=1)
    return workshop


async def when_held(workshop: Workshop, prompts: int) -> None:
    """Wait until every chunk of a run waits for its next try; then make the endpoint available."""
    await workshop.asked(prompts)
    await until(lambda: not workshop.value("SELECT count(*) FROM claims"))
    workshop.sandbox.configure(overloaded=0)


async def another_run(**options: object) -> Summary:
    """Run the same job another time, without Prefect."""
    summary = await run_plainly(content, [], "note", options=RunOptions.model_validate(options))
    assert isinstance(summary, Summary)
    return summary


async def test_chunk_that_another_run_answered_while_prefect_held_it_shows_as_cached(held: Workshop) -> None:
    held.numbered(3)
    running = asyncio.create_task(held.run(chunk_size=1))
    await when_held(held, 3)
    other = await another_run()
    summary = await running

    assert (other.succeeded, summary.succeeded, summary.cached, summary.exit_status) == (3, 0, 3, 0)
    assert await held.task_states(summary.run_id, 3) == ["Cached"] * 3
    # Each prompt was requested once without success, and once by the other run.
    assert (held.requests, held.sandbox.stats()["served"]["answers"]) == (6, 3)


async def test_chunk_of_many_is_a_hit_only_where_all_its_prompts_are(held: Workshop) -> None:
    held.numbered(4)
    running = asyncio.create_task(held.run(chunk_size=2))
    await when_held(held, 4)
    await another_run(limit=3)
    summary = await running

    assert await held.task_states(summary.run_id, 2) == ["Cached", "Completed"]
    assert (summary.cached, summary.succeeded) == (3, 1)
    assert held.sandbox.stats()["served"]["answers"] == 4


async def test_chunk_that_ran_shows_as_completed_and_what_the_run_looked_up_not_at_all(workshop: Workshop) -> None:
    workshop.numbered(3)
    first = await workshop.run(chunk_size=1)
    assert await workshop.task_states(first.run_id, 3) == ["Completed"] * 3
    again = await workshop.run(chunk_size=1)
    assert (await workshop.task_states(again.run_id, 0), again.cached) == ([], 3)


async def test_refresh_passes_prefects_cache_by(held: Workshop) -> None:
    held.numbered(2)
    held.sandbox.configure(overloaded=0)
    await another_run()
    held.sandbox.configure(overloaded=1)
    running = asyncio.create_task(held.run(refresh=True, chunk_size=1))
    await when_held(held, 4)
    summary = await running

    assert await held.task_states(summary.run_id, 2) == ["Completed"] * 2
    assert (summary.cached, summary.succeeded) == (0, 2)
