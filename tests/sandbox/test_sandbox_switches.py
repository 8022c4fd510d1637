"""Each switch does what it says: faults by rate, stop reasons, latency and limits, drawn the same for the same seed."""

import asyncio
import time
from typing import Any

import aiohttp
import pytest
from anthropic import (
    APIConnectionError,
    APIStatusError,
    AsyncAnthropic,
    InternalServerError,
    OverloadedError,
    RateLimitError,
)
from pydantic import ValidationError

from sandbox import Sandbox, Switches
from sandbox.error_shapes import Refusal
from sandbox.faults import draw_fate
from sandbox.limits import Limits
from sandbox.switches import FAULTS
from tests.waiting import until

ASKED: dict[str, Any] = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 512,
    "messages": [{"role": "user", "content": "Name: Mountain Oolong"}],
}


@pytest.mark.parametrize(
    ("fault", "error", "kind", "retry"),
    [
        ("rate_limited", RateLimitError, "rate_limit_error", "true"),
        ("overloaded", OverloadedError, "overloaded_error", "true"),
        ("server_error", InternalServerError, "api_error", "true"),
        ("spend_limit", RateLimitError, "rate_limit_error", "false"),
    ],
)
async def test_error_rate_gives_that_error(
    sandbox: Sandbox, client: AsyncAnthropic, fault: str, error: type[APIStatusError], kind: str, retry: str
) -> None:
    sandbox.configure(**{fault: 1})
    with pytest.raises(error) as caught:
        await client.messages.create(**ASKED)
    assert caught.value.type == kind
    assert caught.value.response.headers["x-should-retry"] == retry
    assert caught.value.error_code == ("enforced_spend_limit_reached" if fault == "spend_limit" else None)
    assert sandbox.stats()["by_fault"] == {fault: 1}
    assert sandbox.stats()["by_status"] == {str(caught.value.status_code): 1}
    assert sandbox.stats()["served"]["answers"] == 0


@pytest.mark.parametrize(
    ("fault", "stop_reason"),
    [
        ("truncated", "max_tokens"),
        ("context_exceeded", "model_context_window_exceeded"),
        ("paused", "pause_turn"),
        ("refused", "refusal"),
        ("tool_use", "tool_use"),
        ("malformed", "end_turn"),
        ("invalid", "end_turn"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_stop_reason_of_each_fault(
    sandbox: Sandbox, client: AsyncAnthropic, fault: str, stop_reason: str, streamed: bool
) -> None:
    whole = await client.messages.create(**ASKED)
    sandbox.reset()
    sandbox.configure(**{fault: 1})
    if streamed:
        async with client.messages.stream(**ASKED) as stream:
            answer: Any = await stream.get_final_message()
    else:
        answer = await client.messages.create(**ASKED)
    assert answer.stop_reason == stop_reason
    assert answer.usage.output_tokens >= 1
    if stop_reason == "refusal":
        assert answer.stop_details.category in ("general_harms", "cyber", "bio")
        assert answer.content == []
    if fault in ("truncated", "context_exceeded", "paused"):
        assert answer.usage.output_tokens < whole.usage.output_tokens
    assert sandbox.stats()["by_stop_reason"] == {stop_reason: 1}
    await client.messages.create(**ASKED)
    assert sandbox.stats()["repeated_bodies"] == 0, "asking again after a bad answer pays for nothing twice"


@pytest.mark.parametrize(("fault", "generated"), [("dropped_before", 0), ("dropped_after", 1)])
async def test_dropped_connection_counts_what_was_generated(
    sandbox: Sandbox, client: AsyncAnthropic, fault: str, generated: int
) -> None:
    sandbox.configure(**{fault: 1})
    with pytest.raises(APIConnectionError):
        await client.messages.create(**ASKED)
    stats = sandbox.stats()
    assert stats["dropped"]["answers"] == generated
    assert (stats["dropped"]["output_tokens"] > 0) == bool(generated)
    assert stats["served"]["answers"] == 0
    assert stats["by_status"] == {"dropped": 1}
    assert stats["in_flight"] == 0


async def test_answer_to_a_client_that_has_gone_is_dropped(sandbox: Sandbox, client: AsyncAnthropic) -> None:
    sandbox.configure(latency_ms=500)
    asking = asyncio.create_task(client.messages.create(**ASKED))
    await until(lambda: sandbox.stats()["in_flight"])
    asking.cancel()
    await until(lambda: sandbox.stats()["dropped"]["answers"])


async def test_stall_and_latency_take_their_time(sandbox: Sandbox, client: AsyncAnthropic) -> None:
    sandbox.configure(stall=1, stall_seconds=0.2, latency_ms=50)
    begun = time.monotonic()
    assert (await client.messages.create(**ASKED)).stop_reason == "end_turn"
    assert time.monotonic() - begun >= 0.25


def test_latency_has_the_median_and_spread_that_were_set() -> None:
    switches = Switches(latency_ms=100, latency_spread=0.5)
    drawn = sorted(draw_fate(switches, b"%d" % n, 0).latency for n in range(4000))
    assert drawn[2000] == pytest.approx(0.1, rel=0.05)
    assert drawn[3364] == pytest.approx(0.1 * 1.6487, rel=0.08)  # one sigma above: 84.1 %


def test_faults_come_at_their_rates_and_exclude_each_other() -> None:
    switches = Switches.model_validate(dict.fromkeys(FAULTS, 0.05))
    drawn = [draw_fate(switches, b"%d" % n, 0).fault for n in range(20_000)]
    for fault in FAULTS:
        assert drawn.count(fault) / len(drawn) == pytest.approx(0.05, abs=0.008)


def test_fate_is_that_of_the_seed_the_body_and_its_times() -> None:
    one = Switches(truncated=0.5, latency_ms=10, latency_spread=1)
    assert draw_fate(one, b"body", 3) == draw_fate(one, b"body", 3)
    again = {draw_fate(one, b"body", seen).fault for seen in range(20)}
    assert again == {"", "truncated"}, "a repeated body draws afresh"
    other = one.model_copy(update={"seed": 1})
    assert draw_fate(one, b"body", 3).key != draw_fate(other, b"body", 3).key


async def test_run_repeats_exactly_whatever_the_order(sandbox: Sandbox, client: AsyncAnthropic) -> None:
    sandbox.configure(overloaded=0.3, truncated=0.3)

    async def outcome(n: int) -> str:
        try:
            asked = ASKED | {"messages": [{"role": "user", "content": f"Tea {n}"}]}
            return str((await client.messages.create(**asked)).stop_reason)
        except APIStatusError as error:
            return str(error.status_code)

    first = [await outcome(n) for n in range(30)]
    sandbox.reset()
    second = await asyncio.gather(*(outcome(n) for n in reversed(range(30))))
    assert first == second[::-1]
    assert len(set(first)) == 3


async def test_requests_over_the_limit_are_told_when_to_come_back(sandbox: Sandbox, client: AsyncAnthropic) -> None:
    sandbox.configure(rpm=2)
    for _ in range(2):
        raw = await client.messages.with_raw_response.create(**ASKED)
    assert raw.headers["anthropic-ratelimit-requests-limit"] == "2"
    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "0"
    with pytest.raises(RateLimitError) as caught:
        await client.messages.create(**ASKED)
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 30
    assert "2 requests per minute" in str(caught.value)
    assert sandbox.stats()["by_status"] == {"200": 2, "429": 1}


@pytest.mark.parametrize(
    ("limit", "unit"), [({"itpm": 1000}, "input tokens"), ({"otpm": 600}, "output tokens"), ({"rpm": 10}, "requests")]
)
def test_buckets_refill_continuously(limit: dict[str, int], unit: str) -> None:
    now = 1000.0
    limits = Limits(Switches(**limit), clock=lambda: now)
    for _ in range(10):
        limits.admit(100)
        limits.charge(100, 60)
    with pytest.raises(Refusal) as caught:
        limits.admit(100)
    assert unit in caught.value.message
    now += int(caught.value.headers["retry-after"])
    limits.admit(100)


async def test_limits_can_be_told_by_refusals_alone(sandbox: Sandbox, client: AsyncAnthropic) -> None:
    await client.messages.create(**ASKED)  # the first takes longer, and each second would lower the wait
    sandbox.configure(rpm=1, rate_headers=False)
    raw = await client.messages.with_raw_response.create(**ASKED)
    with pytest.raises(RateLimitError) as caught:
        await client.messages.create(**ASKED)
    told = [*raw.headers, *caught.value.response.headers]
    assert not [name for name in told if name.startswith("anthropic-ratelimit")]
    assert caught.value.response.headers["retry-after"] == "60"


def test_limit_that_changes_keeps_what_was_left_of_it() -> None:
    now = 1000.0
    limits = Limits(Switches(rpm=120, burst_seconds=10), clock=lambda: now)

    def admitted() -> int:
        for count in range(1000):
            try:
                limits.admit(0)
            except Refusal:
                return count
        return 1000

    for _ in range(12):
        limits.admit(0)
    limits.change(Switches(rpm=240, burst_seconds=10))
    assert admitted() == 8, "what was left of twenty"
    now += 1
    assert admitted() == 4
    limits.change(Switches(rpm=60, burst_seconds=10))
    now += 60
    assert admitted() == 10
    limits.change(Switches())
    assert admitted() == 1000
    limits.change(Switches(rpm=60, burst_seconds=10))
    assert admitted() == 10, "a new limit starts full"


def test_cache_reads_do_not_count_against_the_input_limit() -> None:
    limits = Limits(Switches(itpm=100), clock=lambda: 0.0)
    for _ in range(50):
        limits.admit(0)
        limits.charge(0, 10)
    limits.admit(100)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"truncated": 0.6, "refused": 0.6}, "add up to 1 or less, not 1.2"),
        ({"truncated": 2}, "truncated: Input should be less than or equal to 1"),
        ({"speed": 3}, "speed: no such switch"),
        ({"rpm": 0}, "rpm: Input should be greater than or equal to 1"),
    ],
)
async def test_wrong_switch_is_refused_and_nothing_changes(
    sandbox: Sandbox, changes: dict[str, float], message: str
) -> None:
    with pytest.raises(ValidationError):
        Switches.model_validate(changes)
    async with (
        aiohttp.ClientSession() as session,
        session.put(f"{sandbox.url}/sandbox/switches", json=changes) as response,
    ):
        assert response.status == 400
        assert message in (await response.json())["error"]["message"]
    assert sandbox.switches == Switches()


async def test_switches_change_while_it_runs(sandbox: Sandbox, client: AsyncAnthropic) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{sandbox.url}/sandbox/switches", json={"refused": 1, "keep_bodies": 1}) as response:
            assert (await response.json())["refused"] == 1
        assert (await client.messages.create(**ASKED)).stop_reason == "refusal"
        async with session.get(f"{sandbox.url}/sandbox/requests") as response:
            assert await response.json() == {"bodies": [ASKED]}
        async with session.get(f"{sandbox.url}/sandbox/switches") as response:
            assert Switches.model_validate(await response.json()) == sandbox.switches
