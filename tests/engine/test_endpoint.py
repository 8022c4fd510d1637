"""A whole run whose endpoint is unavailable, refuses the key or has no credit left; test_gate.py needs no run."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from presswork.errors import StoppingCallError
from sandbox import SANDBOX_HEADER
from tests.engine.test_gate import gateway, passing_on
from tests.engine.workshop import Workshop

# Unavailable


async def test_chunks_outlive_an_endpoint_that_is_away(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_REQUEST_RETRIES", "1")
    monkeypatch.setenv("PRESSWORK_CHUNK_RETRIES", "6")
    monkeypatch.setenv("PRESSWORK_CHUNK_RETRY_DELAY_S", "0.3")
    workshop.numbered(60)
    workshop.sandbox.configure(latency_ms=40)

    async def interrupt() -> None:
        await workshop.answered(20)
        await workshop.sandbox.stop()
        await asyncio.sleep(0.6)
        await workshop.sandbox.start()

    interruption = asyncio.create_task(interrupt())
    summary = await workshop.run(chunk_size=10, concurrency=10)
    await interruption

    assert (summary.succeeded, summary.exit_status) == (60, 0)
    assert workshop.sandbox.stats()["repeated_bodies"] == 0
    assert workshop.value("SELECT count(*) FROM generations") == 60
    assert workshop.value("SELECT count(*) FROM attempts WHERE error_type IN ('connect', 'connection')") > 0
    assert await workshop.task_states(summary.run_id, 6) == ["Completed"] * 6


async def test_endpoint_that_stays_away_leaves_failed_records_and_no_request(
    workshop_on_each: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = workshop_on_each
    monkeypatch.setenv("PRESSWORK_REQUEST_RETRIES", "1")
    monkeypatch.setenv("PRESSWORK_CHUNK_RETRIES", "1")
    workshop.numbered(4)
    workshop.sandbox.configure(latency_ms=30_000)

    async def end_soon() -> None:
        await workshop.asked(4)
        await workshop.sandbox.stop()

    ending = asyncio.create_task(end_soon())
    summary = await workshop.run(chunk_size=2)
    await ending

    assert (summary.failed, summary.succeeded, summary.status, summary.exit_status) == (4, 0, "completed", 1)
    assert {failure.status for failure in summary.failures} == {"failed"}
    # Requests in flight when the endpoint ended may be billed; requests that could not connect can't be.
    assert (summary.requests, summary.perhaps_billed) == (4, 4)
    kinds = workshop.counts("SELECT error_type, count(*) FROM attempts GROUP BY 1")
    assert kinds == {"connection": 4, "connect": 12}
    assert await workshop.task_states(summary.run_id, 2) == ["Failed"] * 2

    await workshop.sandbox.start()
    workshop.sandbox.configure(latency_ms=0)
    assert (await workshop.run()).succeeded == 4


# Refusing


async def test_refused_key_stops_the_run_without_a_request(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-invalid-1")
    workshop.numbered(30)
    with pytest.raises(StoppingCallError, match="ANTHROPIC_API_KEY"):
        await workshop.run()
    assert workshop.requests == 0
    assert workshop.rows("SELECT * FROM runs") == []


async def test_refused_key_of_a_named_endpoint_ends_the_run_as_failed(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-invalid-1")
    monkeypatch.setenv("PRESSWORK_ENDPOINT", "sandbox")
    workshop.numbered(30)
    with pytest.raises(StoppingCallError, match="ANTHROPIC_API_KEY"):
        await workshop.run()
    assert workshop.requests == 0
    assert workshop.counts("SELECT status, count(*) FROM runs GROUP BY 1") == {"failed": 1}
    assert workshop.rows("SELECT * FROM generations") == []


async def test_gateway_that_refuses_leaves_one_request_in_the_ledger_and_nothing_open(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def refuse(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        return web.json_response({"type": "error", "error": {"type": "billing_error", "message": "no"}}, status=402)

    workshop.numbered(150)
    async with gateway(refuse) as url:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-mine")
        monkeypatch.setenv("PRESSWORK_ENDPOINT", "gateway")
        with pytest.raises(StoppingCallError):
            await workshop.run(concurrency=20)
    assert asked == 1
    (run,) = workshop.rows("SELECT * FROM runs")
    assert (run["status"], run["endpoint"], run["ended_at"] is not None) == ("failed", "gateway", True)
    assert workshop.rows("SELECT * FROM generations") == []
    sent = workshop.rows("SELECT * FROM attempts WHERE error_type <> 'not_sent' OR error_type IS NULL")
    assert [(attempt["error_type"], attempt["http_status"]) for attempt in sent] == [("billing_error", 402)]
    assert workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0
    assert workshop.value("SELECT count(*) FROM claims") == 0


async def test_answers_of_a_tier_without_a_price_are_unpriced_and_count_for_the_cap_all_the_same(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(40)
    async with gateway(passing_on(workshop.sandbox, service_tier="priority")) as url:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-mine")
        monkeypatch.setenv("PRESSWORK_ENDPOINT", "gateway")
        summary = await workshop.run(max_cost=0.01, concurrency=1)
    assert (summary.status, summary.cost_usd, summary.unpriced) == ("capped", None, summary.succeeded)
    assert 0 < summary.succeeded < 40


async def test_request_that_the_endpoint_refuses_fails_alone(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pass_on(request: web.Request) -> web.Response:
        body = await request.read()
        if b"item 2" in body:
            error = {"type": "invalid_request_error", "message": "prompt is too odd"}
            return web.json_response({"type": "error", "error": error}, status=400, headers={SANDBOX_HEADER: "1"})
        async with aiohttp.ClientSession() as session:
            headers = {"x-api-key": "any", "anthropic-version": request.headers["anthropic-version"]}
            async with session.post(f"{workshop.sandbox.url}/v1/messages", data=body, headers=headers) as answer:
                return web.Response(
                    body=await answer.read(), content_type="application/json", headers={SANDBOX_HEADER: "1"}
                )

    workshop.numbered(5)
    async with gateway(pass_on) as url:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        monkeypatch.setenv("PRESSWORK_ENDPOINT", "sandbox")
        summary = await workshop.run()
    assert (summary.succeeded, summary.failed) == (4, 1)
    (failure,) = summary.failures
    assert (failure.record_key, failure.kind) == ("00002", "invalid_request_error")
    # A request with a final error is sent once.
    assert workshop.requests == 4
    assert summary.requests == 5


async def test_spend_limit_stops_the_run_and_is_not_retried(workshop: Workshop) -> None:
    workshop.numbered(120)
    workshop.sandbox.configure(spend_limit=1, latency_ms=20)
    with pytest.raises(StoppingCallError, match="usage limits"):
        await workshop.run(concurrency=4, chunk_size=1)
    assert workshop.requests <= 4
    assert workshop.counts("SELECT status, count(*) FROM runs GROUP BY 1") == {"failed": 1}
    kinds = workshop.counts("SELECT error_type, count(*) FROM attempts GROUP BY 1")
    assert kinds["enforced_spend_limit_reached"] == workshop.requests
    assert set(kinds) <= {"enforced_spend_limit_reached", "not_sent"}

    workshop.sandbox.configure(spend_limit=0)
    assert (await workshop.run()).succeeded == 120


async def test_what_was_answered_before_the_spend_limit_is_kept(workshop: Workshop) -> None:
    workshop.numbered(60)
    workshop.sandbox.configure(latency_ms=10)

    async def run_dry() -> None:
        await workshop.answered(25)
        workshop.sandbox.configure(spend_limit=1)

    drying = asyncio.create_task(run_dry())
    with pytest.raises(StoppingCallError):
        await workshop.run(concurrency=5, chunk_size=10)
    await drying
    answered = workshop.sandbox.stats()["served"]["answers"]
    assert workshop.value("SELECT count(*) FROM current_content") == answered

    workshop.sandbox.configure(spend_limit=0)
    again = await workshop.run()
    assert (again.cached, again.succeeded) == (answered, 60 - answered)
    assert workshop.sandbox.stats()["repeated_bodies"] == 0


# How a run reports it


async def test_limit_that_a_run_sets_ends_with_it(workshop: Workshop) -> None:
    workshop.numbered(4)
    first = await workshop.run(rpm=120)
    assert (first.pace.limit_from, first.pace.limit_per_minute) == ("own", 120)
    assert first.pace.waited_s > 0.5
    second = await workshop.run(refresh=True)
    assert second.pace.limit_from != "own"
    assert second.pace.waited_s < 0.5, "what the first run waited is not the second's"


async def test_refusals_of_an_endpoint_that_tells_no_limits_are_waited_for(workshop: Workshop) -> None:
    workshop.numbered(60)
    workshop.sandbox.configure(rate_headers=False, rate_limited=0.3)
    summary = await workshop.run(concurrency=10)
    assert summary.succeeded == 60
    assert summary.pace.rate_limited == summary.rate_limited > 0
    assert f"{summary.rate_limited} answered 429" in summary.pace.words()
