"""The cost cap: what is settled and what is in flight stay under it; the rest is skipped and said."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.workshop import Workshop

pytestmark = pytest.mark.prefect

CAP = 0.02


@pytest.mark.parametrize("way", ["option", "setting"])
@pytest.mark.parametrize("chunk_size", [1, 7])
async def test_run_stays_under_its_cap_skips_the_rest_and_is_finished_by_another(
    workshop: Workshop, way: str, chunk_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(60)
    workshop.sandbox.configure(latency_ms=20)
    if way == "setting":
        monkeypatch.setenv("PRESSWORK_MAX_COST", str(CAP))
    options: dict[str, Any] = {"max_cost": CAP} if way == "option" else {}
    capped = await workshop.run(concurrency=8, chunk_size=chunk_size, **options)

    assert (capped.status, capped.exit_status) == ("capped", 3)
    assert capped.succeeded + capped.skipped == 60
    assert capped.succeeded > 5
    assert capped.skipped > 5
    # The sum of what was answered, by the sandbox's own count of what it served.
    assert float(workshop.value("SELECT sum(cost_usd) FROM attempts")) <= CAP
    assert workshop.requests == capped.requests == capped.succeeded
    row = workshop.rows("SELECT error_kind, error_message FROM generations WHERE status = 'skipped' LIMIT 1")[0]
    assert row["error_kind"] == "cost_cap"
    assert "--max-cost" in row["error_message"]
    assert workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0
    assert workshop.value("SELECT count(*) FROM claims") == 0
    assert workshop.value("SELECT status FROM runs") == "capped"

    monkeypatch.delenv("PRESSWORK_MAX_COST", raising=False)
    rest = await workshop.run()
    assert (rest.status, rest.exit_status) == ("completed", 0)
    assert (rest.cached, rest.succeeded) == (capped.succeeded, capped.skipped)
    assert (workshop.requests, workshop.sandbox.stats()["repeated_bodies"]) == (60, 0)


async def test_option_wins_over_the_setting(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_MAX_COST", "0.000001")
    workshop.numbered(5)
    assert (await workshop.run(max_cost=5)).succeeded == 5


async def test_cap_below_the_first_request_sends_none(workshop: Workshop) -> None:
    workshop.numbered(5)
    summary = await workshop.run(max_cost=0.000001)
    assert (summary.status, summary.skipped, summary.requests) == ("capped", 5, 0)
    assert workshop.requests == 0


async def test_repairs_and_retries_count_for_the_cap(workshop: Workshop) -> None:
    workshop.numbered(40)
    workshop.sandbox.configure(invalid=0.4, rate_limited=0.2, latency_ms=10)
    summary = await workshop.run(max_cost=CAP, concurrency=6)
    assert summary.status == "capped"
    assert summary.exit_status == 3
    assert float(workshop.value("SELECT sum(cost_usd) FROM attempts")) <= CAP
    assert sum(workshop.statuses(summary.run_id).values()) == 40


async def test_cap_that_is_never_met_changes_nothing(workshop: Workshop) -> None:
    workshop.numbered(20)
    summary = await workshop.run(max_cost=50)
    assert (summary.status, summary.succeeded, summary.exit_status) == ("completed", 20, 0)


async def test_what_the_ledger_has_costs_nothing_under_a_cap(workshop: Workshop) -> None:
    workshop.numbered(20)
    await workshop.run()
    summary = await workshop.run(max_cost=0.000001)
    assert (summary.status, summary.cached, summary.exit_status) == ("completed", 20, 0)
