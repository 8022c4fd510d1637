"""How often a prompt is requested: one limit for paid requests over all retries, and only time limits free ones."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.engine.workshop import Workshop

PER_PROMPT = "SELECT prompt_hash, count(*) FROM attempts GROUP BY 1"


@pytest.mark.parametrize(
    ("fault", "status"), [("dropped_after", "failed"), ("invalid", "invalid"), ("malformed", "invalid")]
)
@pytest.mark.parametrize("chunk_size", [1, 3])
async def test_no_prompt_is_paid_for_more_often_than_the_bound_in_a_run(
    workshop: Workshop, fault: str, status: str, chunk_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_MAX_PAID_REQUESTS", "7")
    monkeypatch.setenv("PRESSWORK_REPAIRS", "10")
    workshop.numbered(4)
    workshop.sandbox.configure(**{fault: 1})

    summary = await workshop.run(chunk_size=chunk_size)

    assert set(workshop.counts(PER_PROMPT).values()) == {7}
    assert (summary.requests, workshop.statuses(summary.run_id), summary.exit_status) == (28, {status: 4}, 1)
    messages = workshop.rows("SELECT error_message FROM generations")
    assert all("PRESSWORK_MAX_PAID_REQUESTS" in row["error_message"] for row in messages)


async def test_lost_answers_of_several_runs_are_given_up(workshop: Workshop) -> None:
    workshop.numbered(2)
    workshop.sandbox.configure(dropped_after=1)
    for _run in range(3):
        summary = await workshop.run()
        assert (summary.failed, summary.requests) == (2, 16)
    last = await workshop.run()

    assert (last.skipped, last.requests) == (2, 0)
    (row,) = workshop.rows("SELECT DISTINCT error_message FROM generations WHERE error_kind = 'given_up'")
    assert "failed (connection)" in row["error_message"]


@pytest.mark.parametrize("fault", ["overloaded", "server_error", "rate_limited"])
async def test_what_generated_nothing_is_asked_as_often_as_before(workshop: Workshop, fault: str) -> None:
    workshop.numbered(1)
    workshop.sandbox.configure(**{fault: 1})

    summary = await workshop.run()

    # Five tries in each of the chunk's six tries; free ones at least this often.
    assert summary.requests >= 30
    assert (summary.failed, summary.perhaps_billed, summary.likely_usd) == (1, 0, Decimal(0))


async def test_repair_that_was_interrupted_goes_on_when_its_chunk_is_tried_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_REQUEST_RETRIES", "0")
    workshop.numbered(40)
    workshop.sandbox.configure(invalid=0.5, overloaded=0.3)

    await workshop.run(chunk_size=5)

    repairs = (
        "SELECT max(n) AS n FROM (SELECT count(*) AS n FROM attempts WHERE kind = 'repair' GROUP BY generation_id) r"
    )
    assert workshop.value(repairs) <= 2
    gone_on = "SELECT count(*) FROM attempts WHERE kind = 'retry' AND request_changes IS NOT NULL"
    assert workshop.value(gone_on) > 0
