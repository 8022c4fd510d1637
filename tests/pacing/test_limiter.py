"""Test the limiter against the sandbox's own limits, on a simulated clock: minutes pass in milliseconds."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from presswork.claude.rate_limits import Limit, read_limits
from presswork.errors import CallError, PassingCallError, StoppingCallError
from presswork.pacing import limiter as module
from presswork.pacing.buckets import Bucket, Need
from presswork.pacing.limiter import Limiter, limiter_for
from presswork.prices import Usage
from sandbox.error_shapes import Refusal
from sandbox.limits import Limits
from sandbox.switches import Switches
from tests.nights.simulated.loop import LoneLoop

T = TypeVar("T")


@dataclass
class Account:
    """An endpoint with the sandbox's limits; counts the requests that it accepts.

    `random` is the share of requests that it refuses at any rate.
    """

    loop: LoneLoop
    switches: Switches
    tells: bool = True
    latency_s: float = 0.35
    input_tokens: int = 200
    output_tokens: int = 100
    random: float = 0.0
    seed: int = 0
    admitted: int = 0
    refused: int = 0
    bursts: list[float] = field(default_factory=list)
    accepted_at: list[float] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limits = Limits(self.switches, self.loop.time)
        self.chance = random.Random(self.seed)

    async def ask(self, limiter: Limiter, need: Need | None = None) -> bool:
        """Send one request through a limiter; return whether it was accepted."""
        admission = await limiter.admit(need or Need(1, self.input_tokens, self.output_tokens))
        self.bursts.append(self.loop.time())
        usage, error = None, None
        # Requests take different times to arrive.
        await asyncio.sleep(0.01 * self.chance.uniform(0.5, 1.5))
        try:
            self._admit()
        except Refusal as refusal:
            self.refused += 1
            self.refused_at.append(self.loop.time() - 1000.0)
            error = PassingCallError(kind="rate_limit_error", http_status=refusal.status, retry_after_s=1.0)
        else:
            self.admitted += 1
            self.accepted_at.append(self.loop.time() - 1000.0)
            await asyncio.sleep(self.latency_s)
            self.limits.charge(self.input_tokens, self.output_tokens)
            usage = Usage(input_tokens=self.input_tokens, output_tokens=self.output_tokens)
        told = read_limits(self.limits.headers()) if self.tells else None
        limiter.settle(admission, usage, told, error)
        return error is None

    def _admit(self) -> None:
        self.limits.admit(self.input_tokens)
        if self.chance.random() < self.random:
            raise Refusal(429, "rate_limit_error", "", headers={"retry-after": "1"})

    async def ask_all(self, limiter: Limiter, count: int, *, at_once: int = 100, pause_s: float = 1.0) -> float:
        """Send this many, each until it is accepted; return the seconds. A request that waits holds no place."""
        began, left, places = self.loop.time(), iter(range(count)), asyncio.Semaphore(at_once)

        async def ask_in_place() -> bool:
            async with places:
                return await self.ask(limiter)

        async def work() -> None:
            for _number in left:
                is_accepted = await ask_in_place()
                while not is_accepted:
                    await asyncio.sleep(pause_s)
                    is_accepted = await ask_in_place()

        await asyncio.gather(*(work() for _worker in range(3 * at_once)))
        return self.loop.time() - began

    def rate(self, since: float, until: float) -> float:
        """Return the requests accepted per minute between two moments."""
        return sum(since <= at < until for at in self.accepted_at) / (until - since) * 60

    def share_refused(self, since: float, until: float = math.inf) -> float:
        """Return the share of 429s between two moments."""
        refused = sum(since <= at < until for at in self.refused_at)
        return refused / max(refused + sum(since <= at < until for at in self.accepted_at), 1)


def run(loop: LoneLoop, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return loop.run(work())


def tokens(*, input_tokens: int = 0, output_tokens: int = 0) -> Usage:
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens)


# From headers


@pytest.mark.parametrize("processes", [1, 2])
def test_limit_from_headers_is_used_up_and_rarely_exceeded(loop: LoneLoop, processes: int) -> None:
    account = Account(loop, Switches(rpm=1000))

    async def work() -> float:
        limiters = [Limiter() for _process in range(processes)]
        await asyncio.gather(*(account.ask_all(limiter, 3000 // processes) for limiter in limiters))
        return loop.time()

    took = run(loop, work) - 1000.0
    assert account.admitted == 3000
    assert account.admitted / (1000 + took * 1000 / 60) > 0.95
    assert account.refused <= 3000 * 0.015


@pytest.mark.parametrize("limit", ["itpm", "otpm"])
def test_token_limit_that_binds_is_used_up(loop: LoneLoop, limit: str) -> None:
    account = Account(loop, Switches(**{limit: 100_000}))
    took = run(loop, lambda: account.ask_all(Limiter(), 2000))
    used = 2000 * (account.input_tokens if limit == "itpm" else account.output_tokens)
    assert used / (100_000 + took * 100_000 / 60) > 0.93
    assert account.refused <= 2000 * 0.02


def test_few_requests_go_before_the_first_answer_shows_the_limits(loop: LoneLoop) -> None:
    account = Account(loop, Switches(rpm=600), latency_s=5.0)
    run(loop, lambda: account.ask_all(Limiter(), 200, at_once=200))
    assert sum(at < 1004.9 for at in account.bursts) == module.START_IN_FLIGHT


# Set


def test_limit_that_is_set_spreads_requests_evenly(loop: LoneLoop) -> None:
    account = Account(loop, Switches(), tells=False)
    limiter = Limiter()
    limiter.hold(rpm=120, itpm=None, otpm=None)
    took = run(loop, lambda: account.ask_all(limiter, 240))
    assert took == pytest.approx(120, rel=0.03)
    for second in range(int(took)):
        assert sum(second <= at - 1000.0 < second + 1 for at in account.bursts) <= 4


def test_lower_limit_of_the_installation_holds_against_higher_headers(loop: LoneLoop) -> None:
    account = Account(loop, Switches(rpm=4000))
    limiter = Limiter()
    limiter.hold(rpm=300, itpm=None, otpm=None)
    assert run(loop, lambda: account.ask_all(limiter, 300)) > 55


def test_lower_headers_hold_against_a_higher_limit_of_the_installation(loop: LoneLoop) -> None:
    account = Account(loop, Switches(rpm=300, burst_seconds=1))
    limiter = Limiter()
    limiter.hold(rpm=4000, itpm=None, otpm=None)
    assert run(loop, lambda: account.ask_all(limiter, 300)) > 50
    assert account.refused < 60


# Found


def refuse(limiter: Limiter, loop: LoneLoop, count: int = 1, error: CallError | None = None) -> None:
    async def ask() -> None:
        for _number in range(count):
            admission = await limiter.admit(Need(1, 0, 0))
            limiter.settle(admission, None, None, error or PassingCallError(http_status=429, retry_after_s=1.0))

    run(loop, ask)


async def cut_off(*tasks: asyncio.Task[float]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def limit_of(limiter: Limiter) -> float | None:
    return limiter.report().limit_per_minute


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.03, 0.1, 0.3])
def test_refusals_at_random_do_not_lower_the_rate(loop: LoneLoop, share: float, seed: int) -> None:
    account = Account(loop, Switches(), tells=False, latency_s=0.19, random=share, seed=seed)
    limiter = Limiter()
    run(loop, lambda: account.ask_all(limiter, 12_000))
    # A hundred at once, each takes 0.2 s when it is accepted; a trial cut costs little, and only for a short time.
    assert account.rate(0, 25) > 0.93 * 500 * 60 * (1 - share)
    assert limit_of(limiter) is None


def test_share_of_refusals_that_a_cut_did_not_lower_is_remembered(loop: LoneLoop) -> None:
    account = Account(loop, Switches(), tells=False, latency_s=0.19, random=0.1)
    limiter = Limiter()
    run(loop, lambda: account.ask_all(limiter, 9000))
    assert limiter.report().refused_anyway == pytest.approx(0.1, abs=0.04)
    tried = [second for second in range(1, 18) if account.rate(second, second + 1) < 0.85 * 500 * 60 * 0.9]
    assert len(tried) <= 1, "one trial, and none again within the minute"


@pytest.mark.parametrize(
    ("burst_s", "at_once", "latency_s"), [(2, 100, 0.05), (1, 10, 0.05), (60, 50, 0.05), (2, 100, 3.0), (2, 50, 0.5)]
)
def test_hidden_limit_is_found_in_seconds_and_used_up(
    loop: LoneLoop, burst_s: float, at_once: int, latency_s: float
) -> None:
    account = Account(loop, Switches(rpm=600, burst_seconds=burst_s), tells=False, latency_s=latency_s)
    limiter = Limiter()
    took = run(loop, lambda: account.ask_all(limiter, 2400, at_once=at_once))
    assert account.admitted == 2400
    assert 2400 / (10 * burst_s + took * 10) > 0.95
    assert account.share_refused(60) < 0.05
    # Once the burst is used up.
    assert account.share_refused(10 + burst_s / 10, 40) < 0.1
    report = limiter.report()
    assert report.limit_from == "found"
    assert report.limit_per_minute == pytest.approx(600, rel=0.3)


@pytest.mark.parametrize("seed", range(3))
def test_hidden_limit_that_falls_and_rises_is_followed(loop: LoneLoop, seed: int) -> None:
    account = Account(loop, Switches(rpm=1200, burst_seconds=2), tells=False, latency_s=0.05, seed=seed)

    async def work() -> None:
        asking = asyncio.create_task(account.ask_all(Limiter(), 10_000))
        for rpm in (300, 1200):
            await asyncio.sleep(100)
            account.limits.change(Switches(rpm=rpm, burst_seconds=2))
        await asyncio.sleep(100)
        await cut_off(asking)

    run(loop, work)
    for began, rpm in ((0, 1200), (100, 300), (200, 1200)):
        assert account.rate(began + 60, began + 80) == pytest.approx(rpm, rel=0.1)
        assert account.share_refused(began + 60, began + 80) < 0.2


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_that_share_a_hidden_limit_stay_below_it_together(loop: LoneLoop, processes: int) -> None:
    account = Account(loop, Switches(rpm=600, burst_seconds=2), tells=False, latency_s=0.2)

    async def work() -> None:
        asking = [asyncio.create_task(account.ask_all(Limiter(), 10_000, at_once=50)) for _each in range(processes)]
        await asyncio.sleep(240)
        await cut_off(*asking)

    run(loop, work)
    assert account.rate(60, 240) > 0.9 * 600
    assert account.share_refused(60, 240) < (0.08 if processes == 2 else 0.2)


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_hidden_limit_is_used_up_though_some_are_refused_at_random(loop: LoneLoop, share: float) -> None:
    account = Account(loop, Switches(rpm=600, burst_seconds=2), tells=False, latency_s=0.05, random=share)
    took = run(loop, lambda: account.ask_all(Limiter(), 2400))
    # The limit has counted the requests that are refused at random.
    assert 2400 / (1 - share) / (20 + took * 10) > 0.7
    assert account.share_refused(60) < share + 0.08


def test_refusal_of_the_first_request_holds_nothing_back(loop: LoneLoop) -> None:
    account, limiter = Account(loop, Switches(), tells=False, latency_s=0.05), Limiter()
    refuse(limiter, loop)
    assert run(loop, lambda: account.ask_all(limiter, 60, at_once=1)) < 10
    assert limit_of(limiter) is None


@pytest.mark.parametrize("refused_s", [5, 40])
def test_endpoint_that_refuses_everything_for_a_while_is_used_again_soon(loop: LoneLoop, refused_s: float) -> None:
    account = Account(loop, Switches(), tells=False, latency_s=0.09, random=1.0)

    async def work() -> None:
        asking = asyncio.create_task(account.ask_all(Limiter(), 10_000, at_once=20))
        await asyncio.sleep(refused_s)
        account.random = 0.0
        await asyncio.sleep(60)
        await cut_off(asking)

    run(loop, work)
    assert account.refused < 20 * 60 * 5
    assert account.rate(refused_s + 45, refused_s + 60) > 0.9 * 200 * 60


def test_idle_time_is_not_measured(loop: LoneLoop) -> None:
    account, limiter = Account(loop, Switches(), tells=False, latency_s=0.05), Limiter()
    run(loop, lambda: account.ask_all(limiter, 100, at_once=10))
    refuse(limiter, loop, count=12)
    run(loop, lambda: asyncio.sleep(3600))
    assert run(loop, lambda: account.ask_all(limiter, 1000, at_once=10)) < 10


def test_late_refusals_are_distinguished_from_answers(loop: LoneLoop) -> None:
    account = Account(loop, Switches(rpm=600, burst_seconds=2), tells=False, latency_s=1.0)
    limiter = Limiter()

    async def ask_slowly() -> None:
        # A gateway that holds requests before it refuses them.
        admission = await limiter.admit(Need(1, 0, 0))
        await asyncio.sleep(0.6)
        usage: Usage | None = tokens()
        error: CallError | None = None
        try:
            account.limits.admit(0)
            account.accepted_at.append(loop.time() - 1000.0)
        except Refusal:
            usage, error = None, PassingCallError(http_status=429, retry_after_s=1.0)
            account.refused_at.append(loop.time() - 1000.0)
        limiter.settle(admission, usage, None, error)

    async def work() -> None:
        async def one() -> None:
            while loop.time() < 1180:
                await ask_slowly()

        await asyncio.gather(*(one() for _each in range(100)))

    run(loop, work)
    assert account.rate(60, 180) > 0.9 * 600
    assert account.share_refused(60) < 0.15


def test_trouble_of_the_server_cuts_nothing(loop: LoneLoop) -> None:
    account, limiter = Account(loop, Switches(), tells=False), Limiter()
    run(loop, lambda: account.ask_all(limiter, 600, at_once=20))
    refuse(limiter, loop, count=200, error=PassingCallError(kind="overloaded_error", http_status=529))
    refuse(limiter, loop, count=200, error=PassingCallError(kind="connection"))
    assert run(loop, lambda: account.ask_all(limiter, 600, at_once=20)) < 15
    assert limiter.report().rate_limited == 0


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (PassingCallError(http_status=429), 1),
        (PassingCallError(http_status=200, kind="rate_limit_error"), 1),
        (StoppingCallError(http_status=429, kind="enforced_spend_limit_reached"), 0),
        (PassingCallError(http_status=529), 0),
    ],
    ids=["429", "a gateway's, with 200", "a spend limit", "overloaded"],
)
def test_what_counts_as_a_refusal_by_a_rate_limit(loop: LoneLoop, error: CallError, counted: int) -> None:
    limiter = Limiter()
    refuse(limiter, loop, error=error)
    assert limiter.report().rate_limited == counted


# Three limits, kept apart


def answer(limiter: Limiter, loop: LoneLoop, **headers: int) -> None:
    """Return the limits of an answer with these headers, such as `requests_limit=800`."""
    told = {f"anthropic-ratelimit-{name.replace('_', '-')}": str(value) for name, value in headers.items()}

    async def ask() -> None:
        limiter.settle(await limiter.admit(Need(1, 0, 0)), tokens(), read_limits(told), None)
        await asyncio.sleep(2)

    run(loop, ask)


def test_own_limit_applies_again_when_headers_show_a_higher_one(loop: LoneLoop) -> None:
    limiter = Limiter()
    limiter.hold(rpm=1000, itpm=None, otpm=None)
    limits = []
    for told in (800, 4000):
        answer(limiter, loop, requests_limit=told, requests_remaining=told)
        limits.append((limit_of(limiter), limiter.report().limit_from))
    assert limits == [(800, "told"), (1000, "own")]
    account = Account(loop, Switches(rpm=4000))
    assert run(loop, lambda: account.ask_all(limiter, 1000)) > 55


def test_found_limit_ends_when_headers_show_one(loop: LoneLoop) -> None:
    account, limiter = Account(loop, Switches(rpm=60, burst_seconds=2), tells=False), Limiter()
    run(loop, lambda: account.ask_all(limiter, 30, at_once=20))
    assert limiter.report().limit_from == "found"
    account.tells = True
    account.limits.change(Switches(rpm=6000))
    run(loop, lambda: asyncio.sleep(60))
    assert run(loop, lambda: account.ask_all(limiter, 2000)) < 20


def test_lowest_limit_of_the_open_runs_counts_and_ends_with_its_run(loop: LoneLoop) -> None:
    limiter = Limiter()
    release_first = limiter.hold(rpm=600, itpm=None, otpm=None)
    release_second = limiter.hold(rpm=60, itpm=None, otpm=6000)
    limits = [limit_of(limiter)]
    release_second()
    limits.append(limit_of(limiter))
    account = Account(loop, Switches(), tells=False, latency_s=0.01)
    assert 29 < run(loop, lambda: account.ask_all(limiter, 310)) < 32
    release_first()
    assert [*limits, limit_of(limiter)] == [60, 600, None]
    assert run(loop, lambda: account.ask_all(limiter, 1000)) < 2
    limiter.hold(rpm=600, itpm=None, otpm=None)
    assert 29 < run(loop, lambda: account.ask_all(limiter, 310)) < 32


def test_refused_request_returns_its_share_of_the_limits(loop: LoneLoop) -> None:
    limiter = Limiter()
    limiter.hold(rpm=1, itpm=None, otpm=600)

    async def work() -> float:
        for error in (PassingCallError(http_status=429), None):
            admission = await limiter.admit(Need(1, 0, 10))
            limiter.settle(admission, None if error else tokens(), None, error)
        return loop.time() - 1000.0

    assert run(loop, work) < 1


@pytest.mark.parametrize(
    "headers",
    [
        {"requests_limit": 0, "requests_remaining": 0},
        {"requests_limit": 0, "requests_remaining": 50, "input_tokens_limit": 0, "input_tokens_remaining": -3},
        {"requests_limit": -5, "requests_remaining": -5},
        {"requests_limit": 600, "requests_remaining": -4},
        {"requests_limit": 600, "requests_remaining": -(10**12)},
        {"output_tokens_limit": 10**15, "output_tokens_remaining": 10**15},
    ],
)
def test_strange_limits_in_headers_do_not_crash_or_block_permanently(loop: LoneLoop, headers: dict[str, int]) -> None:
    limiter = Limiter()
    answer(limiter, loop, **headers)
    account = Account(loop, Switches(), tells=False, latency_s=0.05)
    assert run(loop, lambda: account.ask_all(limiter, 20)) < 75


def test_report_says_what_a_request_waits_for(loop: LoneLoop) -> None:
    limiter = Limiter()
    limiter.hold(rpm=1, itpm=None, otpm=None)

    async def work() -> list[str | None]:
        await limiter.admit(Need(1, 0, 0))
        waiting = asyncio.create_task(limiter.admit(Need(1, 0, 0)))
        await asyncio.sleep(20)
        holds = [limiter.report().hold]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        holds.append(limiter.report().hold)
        assert holds[0] is not None
        assert holds[0].wait_s == pytest.approx(40, abs=2)
        return [hold.words() if hold else None for hold in holds]

    assert run(loop, work) == ["your own limit of 1 request a minute", None]


# Reserve and settle


def test_expected_tokens_are_reserved_and_replaced_by_the_true_ones(loop: LoneLoop) -> None:
    async def work() -> list[float]:
        limiter = Limiter()
        limiter.hold(rpm=None, itpm=None, otpm=60_000)
        moments = []
        # A thousand a second may be used: the first is sent, and billed a tenth of what was reserved.
        for used in (100, 1000, 10):
            admission = await limiter.admit(Need(1, 0, 1000))
            moments.append(loop.time() - 1000.0)
            limiter.settle(admission, tokens(output_tokens=used), None, None)
        return moments

    assert run(loop, work) == pytest.approx([0.0, 0.1, 1.1], abs=0.01)


def test_request_that_needs_more_than_the_limit_holds_still_goes(loop: LoneLoop) -> None:
    async def work() -> float:
        limiter = Limiter()
        limiter.hold(rpm=None, itpm=600, otpm=None)
        for _number in range(2):
            limiter.settle(await limiter.admit(Need(1, 5000, 0)), tokens(input_tokens=30), None, None)
        return loop.time() - 1000.0

    assert run(loop, work) < 120


def test_waiting_request_is_released_when_the_run_stops(loop: LoneLoop) -> None:
    async def work() -> float:
        limiter, stopped = Limiter(), False
        limiter.hold(rpm=1, itpm=None, otpm=None)
        await limiter.admit(Need(1, 0, 0))
        waiting = asyncio.create_task(limiter.admit(Need(1, 0, 0), lambda: stopped))
        await asyncio.sleep(3)
        stopped = True
        await waiting
        return loop.time() - 1000.0

    assert run(loop, work) < 5


def test_waiters_are_served_in_their_order(loop: LoneLoop) -> None:
    async def work() -> list[int]:
        limiter, order = Limiter(), list[int]()
        limiter.hold(rpm=60, itpm=None, otpm=None)

        async def ask(number: int) -> None:
            # Small requests behind a large one do not overtake it again and again.
            await limiter.admit(Need(1, 0, 0))
            order.append(number)

        await asyncio.gather(*(ask(number) for number in range(10)))
        return order

    assert run(loop, work) == list(range(10))


def test_runs_of_a_process_share_the_limiter_of_an_endpoint_within_a_loop() -> None:
    async def limiters() -> tuple[Limiter, Limiter, Limiter]:
        return limiter_for("sandbox"), limiter_for("sandbox"), limiter_for("gateway")

    first, second, of_another_endpoint = asyncio.run(limiters())
    assert first is second
    assert of_another_endpoint is not first
    # A request that waits in a loop that has ended would never be released.
    assert asyncio.run(limiters())[0] is not first


def test_bucket_without_a_limit_never_waits() -> None:
    assert Bucket().wait_s(10**9, 5.0) == 0.0


def test_account_in_debt_waits_for_a_minute_at_most(loop: LoneLoop) -> None:
    bucket = Bucket()
    bucket.read(Limit(600, -(10**9)), sent_at=1.0, spent_then=0.0, now=1000.0)
    assert 0 < bucket.wait_s(1, 1000.0) < 61
