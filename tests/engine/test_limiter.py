"""The limiter, against the sandbox's own limits on a clock of the test's: minutes pass in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from flows.engine import limiter as module
from flows.engine.limiter import Bucket, Limiter, Need
from flows.errors import CallError, PassingCallError
from flows.sandbox.limits import Limits
from flows.sandbox.refusals import Refusal
from flows.sandbox.switches import Switches
from flows.steps.complete import read_limits
from flows.steps.prices import Usage

T = TypeVar("T")


class _Skipping(selectors.DefaultSelector):
    """Waits for nothing: what the loop would sleep, its clock jumps."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """An event loop in which time passes only where all wait."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    made = Loop()
    monkeypatch.setattr("flows.engine.limiter.time.monotonic", made.time)
    yield made
    made.close()


@dataclass
class Account:
    """An endpoint with limits, as the sandbox has them; counts what it let in."""

    loop: Loop
    switches: Switches
    tells: bool = True
    latency_s: float = 0.35
    input_tokens: int = 200
    output_tokens: int = 100
    admitted: int = 0
    refused: int = 0
    bursts: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limits = Limits(self.switches, self.loop.time)

    async def ask(self, limiter: Limiter, need: Need | None = None) -> bool:
        """One request through a limiter; was it let in?"""
        admission = await limiter.admit(need or Need(1, self.input_tokens, self.output_tokens))
        self.bursts.append(self.loop.time())
        usage, error = None, None
        try:
            self.limits.admit(self.input_tokens)
        except Refusal as refusal:
            self.refused += 1
            error = PassingCallError(kind="rate_limit_error", http_status=refusal.status)
            await asyncio.sleep(0.01)
        else:
            self.admitted += 1
            await asyncio.sleep(self.latency_s)
            self.limits.charge(self.input_tokens, self.output_tokens)
            usage = Usage(input_tokens=self.input_tokens, output_tokens=self.output_tokens)
        told = read_limits(self.limits.headers()) if self.tells else None
        limiter.settle(admission, usage, told, error)
        return error is None

    async def ask_all(self, limiter: Limiter, count: int, *, at_once: int = 100, pause_s: float = 1.0) -> float:
        """Ask for so many, each until it is let in; how long that took."""
        began, left = self.loop.time(), iter(range(count))

        async def work() -> None:
            for _number in left:
                while not await self.ask(limiter):  # noqa: ASYNC110 - a caller that tries again
                    await asyncio.sleep(pause_s)

        await asyncio.gather(*(work() for _worker in range(at_once)))
        return self.loop.time() - began


def run(loop: Loop, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return loop.run_until_complete(work())


def tokens(*, input_tokens: int = 0, output_tokens: int = 0) -> Usage:
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens)


# Told by headers


@pytest.mark.parametrize("processes", [1, 2])
def test_limit_that_headers_tell_is_used_up_and_hardly_passed(loop: Loop, processes: int) -> None:
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
def test_token_limit_that_binds_is_used_up(loop: Loop, limit: str) -> None:
    account = Account(loop, Switches(**{limit: 100_000}))
    took = run(loop, lambda: account.ask_all(Limiter(), 2000))
    used = 2000 * (account.input_tokens if limit == "itpm" else account.output_tokens)
    assert used / (100_000 + took * 100_000 / 60) > 0.93
    assert account.refused <= 2000 * 0.02


def test_few_go_before_the_first_answer_has_told_the_limits(loop: Loop) -> None:
    account = Account(loop, Switches(rpm=600), latency_s=5.0)
    run(loop, lambda: account.ask_all(Limiter(), 200, at_once=200))
    assert sum(at < 1004.9 for at in account.bursts) == module.START_IN_FLIGHT


# Set


def test_limit_that_is_set_spreads_requests_evenly(loop: Loop) -> None:
    account = Account(loop, Switches(), tells=False)
    limiter = Limiter()
    limiter.hold(rpm=120, itpm=None, otpm=None)
    took = run(loop, lambda: account.ask_all(limiter, 240))
    assert took == pytest.approx(120, rel=0.03)
    for second in range(int(took)):
        assert sum(second <= at - 1000.0 < second + 1 for at in account.bursts) <= 4


def test_lower_limit_of_the_installation_holds_against_higher_headers(loop: Loop) -> None:
    account = Account(loop, Switches(rpm=4000))
    limiter = Limiter()
    limiter.hold(rpm=300, itpm=None, otpm=None)
    assert run(loop, lambda: account.ask_all(limiter, 300)) > 55


def test_lower_headers_hold_against_a_higher_limit_of_the_installation(loop: Loop) -> None:
    account = Account(loop, Switches(rpm=300, burst_seconds=1))
    limiter = Limiter()
    limiter.hold(rpm=4000, itpm=None, otpm=None)
    assert run(loop, lambda: account.ask_all(limiter, 300)) > 50
    assert account.refused < 60


# Found


def refuse(limiter: Limiter, loop: Loop, count: int = 1, status: int = 429) -> None:
    async def ask() -> None:
        for _number in range(count):
            admission = await limiter.admit(Need(1, 0, 0))
            limiter.settle(admission, None, None, CallError(http_status=status))

    run(loop, ask)


def limit_of(limiter: Limiter) -> float | None:
    return limiter.report().limit_per_minute


def go_well(limiter: Limiter, loop: Loop, seconds: int) -> None:
    async def ask() -> None:
        for _number in range(seconds):
            admission = await limiter.admit(Need(1, 10, 10))
            limiter.settle(admission, tokens(), None, None)
            await asyncio.sleep(1.01)

    run(loop, ask)


def test_untold_rate_is_cut_once_an_episode_and_grows_while_it_goes_well(loop: Loop) -> None:
    account, limiter = Account(loop, Switches(), tells=False), Limiter()
    run(loop, lambda: account.ask_all(limiter, 600, at_once=20))
    assert limit_of(limiter) is None
    refuse(limiter, loop)
    first = limit_of(limiter)
    assert first is not None
    refuse(limiter, loop, count=3)
    assert limit_of(limiter) == first
    go_well(limiter, loop, 6)
    grown = limit_of(limiter)
    assert grown is not None
    assert grown > first
    refuse(limiter, loop)
    cut = limit_of(limiter)
    assert cut is not None
    assert cut < grown
    assert limiter.report().rate_limited == 5


def test_trouble_of_the_server_cuts_nothing_and_only_holds_growth(loop: Loop) -> None:
    account, limiter = Account(loop, Switches(), tells=False), Limiter()
    run(loop, lambda: account.ask_all(limiter, 600, at_once=20))
    refuse(limiter, loop, status=529)
    assert limit_of(limiter) is None
    refuse(limiter, loop)
    rate = limit_of(limiter)
    refuse(limiter, loop, status=529)
    go_well(limiter, loop, 3)
    assert limit_of(limiter) == rate
    go_well(limiter, loop, 5)
    assert (limit_of(limiter) or 0) > (rate or 0)
    assert limiter.report().rate_limited == 1


def test_rate_that_no_header_tells_is_found(loop: Loop) -> None:
    account = Account(loop, Switches(rpm=600, burst_seconds=5), tells=False)
    took = run(loop, lambda: account.ask_all(Limiter(), 1500))
    assert account.admitted == 1500
    assert 1500 / (50 + took * 10) > 0.6
    # A hundred that try again each second, until the rate is found; it was five for each that was let in.
    assert account.refused < 2000


# Reserve and settle


def test_expected_tokens_are_reserved_and_the_true_ones_take_their_place(loop: Loop) -> None:
    async def work() -> list[float]:
        limiter = Limiter()
        limiter.hold(rpm=None, itpm=None, otpm=60_000)
        moments = []
        # A thousand a second may be used: the first is let go, and is billed a tenth of what was reserved.
        for used in (100, 1000, 10):
            admission = await limiter.admit(Need(1, 0, 1000))
            moments.append(loop.time() - 1000.0)
            limiter.settle(admission, tokens(output_tokens=used), None, None)
        return moments

    assert run(loop, work) == pytest.approx([0.0, 0.1, 1.1], abs=0.01)


def test_request_that_needs_more_than_the_limit_holds_still_goes(loop: Loop) -> None:
    async def work() -> float:
        limiter = Limiter()
        limiter.hold(rpm=None, itpm=600, otpm=None)
        for _number in range(2):
            limiter.settle(await limiter.admit(Need(1, 5000, 0)), tokens(input_tokens=30), None, None)
        return loop.time() - 1000.0

    assert run(loop, work) < 120


def test_one_that_waits_is_let_go_when_the_run_stops(loop: Loop) -> None:
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


def test_waiters_are_served_in_their_order(loop: Loop) -> None:
    async def work() -> list[int]:
        limiter, order = Limiter(), list[int]()
        limiter.hold(rpm=60, itpm=None, otpm=None)

        async def ask(number: int) -> None:
            # A large one is not overtaken by small ones behind it for ever.
            await limiter.admit(Need(1, 0, 0))
            order.append(number)

        await asyncio.gather(*(ask(number) for number in range(10)))
        return order

    assert run(loop, work) == list(range(10))


def test_bucket_without_a_limit_never_waits() -> None:
    assert Bucket().wait_s(10**9, 2, 5.0) == 0.0
