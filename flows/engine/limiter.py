"""The limiter: holds a process's requests below the endpoint's limits a minute, before they are met.

One for each endpoint in a process, shared by its runs. Each limit is a bucket that refills continuously, as the
endpoint's own does. Where answers carry rate headers, the bucket is set by them: what they say was left, less what
we have sent since, plus what has flowed in since, less what others of the same account have been seen to take. A
limit of the installation's own spreads requests evenly. Where nothing is told, the rate is found: cut once an
episode of 429, grown while it goes well, held at 5xx.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from flows.errors import CallError
from flows.steps.complete import Limit, RateLimits
from flows.steps.prices import Usage

MINUTE = 60.0
RESERVE = 2.0
"""Requests left unused at the bottom of a bucket: what the order of arrival at the endpoint can differ by."""
WATCHED_S = 1.0
"""Answers this far apart tell what others take; closer ones tell more of noise."""
OTHERS_LAST_S = 5.0
"""What others took is forgotten in about this time, unless it is seen again."""
LEAST = 0.1
"""The share of a limit that is always reckoned with, whatever others seem to take."""
CUT, GROWTH, EPISODE_S = 0.7, 1.05, 5.0
"""How an untold rate is found: times CUT at the first 429 of an episode, times GROWTH a second of going well."""
START_IN_FLIGHT = 40
"""Requests in flight at most until the first answer has told the limits."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a request is expected to take of each limit."""

    requests: float
    input_tokens: float
    output_tokens: float

    def as_usage(self) -> Usage:
        """The same as the usage of an answer that took just that."""
        return Usage(round(self.input_tokens), output_tokens=round(self.output_tokens))


@dataclass
class Bucket:
    """One limit: `level` may be used now, `rate` flows in each second up to `capacity`.

    `spent` counts all that was ever taken, so that an answer's header can be told from what was sent after it.
    """

    rate: float = math.inf
    capacity: float = math.inf
    level: float = math.inf
    spent: float = 0.0
    others: float = 0.0
    told: bool = False
    _at: float = field(default_factory=lambda: time.monotonic())  # noqa: PLW0108 - looked up each time: tests bring a clock
    _seen: tuple[float, float, float, float] | None = None
    _fullest: float = 0.0

    @property
    def inflow(self) -> float:
        """What flows in for us each second."""
        return max(self.rate - self.others, self.rate * LEAST)

    def refill(self, now: float) -> None:
        """Let flow in what has come since."""
        if self.rate != math.inf:
            passed = now - self._at
            self.level = min(self.capacity, self.level + passed * self.inflow)
            self.others *= math.exp(-passed / OTHERS_LAST_S)
        self._at = now

    def wait_s(self, amount: float, reserve: float, now: float) -> float:
        """How long until the amount may be taken, 0 for now."""
        if self.rate == math.inf:
            return 0.0
        self.refill(now)
        # More than the bucket ever holds must pass when it is full.
        short = min(amount + reserve, self.capacity) - self.level
        return 0.0 if short <= 1e-9 else short / self.inflow

    def take(self, amount: float) -> None:
        """Take the amount."""
        self.level -= amount
        self.spent += amount

    def hold(self, rate: float, capacity: float) -> None:
        """Hold to a rate that was not told by headers; the level is kept within it."""
        self.rate, self.capacity = rate, capacity
        self.level = min(self.level, capacity)

    def tell(self, limit: Limit, sent_at: float, spent_then: float, now: float) -> None:
        """Set the bucket by what an answer's header says was left when its request had been counted."""
        if self._seen is not None and sent_at <= self._seen[0]:
            return
        self.refill(now)
        self.rate, self.capacity, self.told = limit.limit / MINUTE, float(limit.limit), True
        self._watch_others(float(limit.remaining), sent_at, spent_then)
        # Whether the header tells of the request's coming in or of its answer's going out is not said. So what flowed
        # in between is not counted, and what was sent since is: at worst a little is left unused, once.
        self.level = min(self.capacity, float(limit.remaining)) - (self.spent - spent_then)

    def _watch_others(self, remaining: float, sent_at: float, spent_then: float) -> None:
        self._fullest = max(self._fullest, remaining)
        if self._seen is None:
            self._seen = (sent_at, remaining, spent_then, self.spent)
            return
        since, before, spent_before, spent_at_answer = self._seen
        passed = sent_at - since
        if passed < WATCHED_S:
            return
        # A header tells of the moment when the request came in, or when its answer went out: take what suspects less.
        own = max(spent_then - spent_before, self.spent - spent_at_answer)
        # What flowed in, less what we took, is what should be there; what is missing, others took. A bucket that was
        # nearly full has spilled over, and says nothing of others.
        missing = 0.0 if before > 0.8 * self._fullest else before + passed * self.rate - own - remaining
        taken = min(max(missing, 0.0) / passed, self.rate)
        self.others += 0.5 * (taken - self.others)
        self._seen = (sent_at, remaining, spent_then, self.spent)


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that was let go: what it took, and when."""

    need: Need
    sent_at: float
    spent: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Report:
    """What a limiter decided: requests a minute reached, the limit (None: none known), 429s met, seconds waited."""

    requests_per_minute: float
    limit_per_minute: float | None
    rate_limited: int
    waited_s: float


class Limiter:
    """The limits of one endpoint, in this process."""

    def __init__(self) -> None:
        self._requests = Bucket()
        self._input = Bucket()
        self._output = Bucket()
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._in_flight = 0
        self._answered = False
        self._started = time.monotonic()
        self._episode_until = 0.0
        self._grown_at = 0.0
        self._output_in_flight = 0.0
        self._recent: deque[float] = deque()
        self.waited_s = 0.0
        self.limited = 0

    async def admit(self, need: Need, stopped: Callable[[], bool] = lambda: False) -> Admission:
        """Wait, first come first served, until a request fits all limits, and take what it needs.

        Where `stopped` says that the run has stopped, it waits no longer.
        """
        async with self._turn:
            while self._in_flight >= START_IN_FLIGHT and not self._answered:
                self._changed.clear()
                await self._changed.wait()
            began = time.monotonic()
            while (pause := self._pause(need)) > 0 and not stopped():
                self._changed.clear()
                try:
                    # An answer may tell of more room before the pause is over.
                    await asyncio.wait_for(self._changed.wait(), min(pause, 1.0))
                except TimeoutError:
                    continue
            now = time.monotonic()
            self.waited_s += now - began
            self._requests.take(need.requests)
            self._input.take(need.input_tokens)
            self._output.take(need.output_tokens)
            self._in_flight += 1
            self._output_in_flight += need.output_tokens
            self._recent.append(now)
            self._forget(now)
            return Admission(need, now, (self._requests.spent, self._input.spent, self._output.spent))

    def settle(
        self, admission: Admission, usage: Usage | None, limits: RateLimits | None, error: CallError | None
    ) -> None:
        """Take note of how a request went: its true usage, what the headers say, a refusal."""
        now = time.monotonic()
        self._in_flight -= 1
        self._output_in_flight -= admission.need.output_tokens
        self._answered = True
        if usage is not None:
            # The true usage takes the place of what was expected.
            counted = usage.input_tokens + usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens
            self._input.level -= counted - admission.need.input_tokens
            self._output.level -= usage.output_tokens - admission.need.output_tokens
        if error is not None and error.http_status == 429:
            self._refused(told=limits is not None, admission=admission, now=now)
        if limits is not None:
            self._tell(limits, admission, now)
        if error is not None and (error.http_status or 0) >= 500:
            self._grown_at = now + EPISODE_S
        elif usage is not None:
            self._grow(now)
        self._changed.set()

    def hold(self, *, rpm: int | None, itpm: int | None, otpm: int | None) -> None:
        """Hold to the installation's own limits a minute; headers may tell of lower ones only."""
        for bucket, limit in ((self._requests, rpm), (self._input, itpm), (self._output, otpm)):
            if limit is not None:
                bucket.hold(limit / MINUTE, max(1.0, limit / MINUTE))

    def report(self) -> Report:
        """Say what was decided."""
        self._forget(time.monotonic())
        limit = None if self._requests.rate == math.inf else self._requests.rate * MINUTE
        passed = min(MINUTE, max(time.monotonic() - self._started, 1e-3))
        return Report(
            requests_per_minute=round(len(self._recent) / passed * MINUTE, 1),
            limit_per_minute=round(limit, 1) if limit is not None else None,
            rate_limited=self.limited,
            waited_s=round(self.waited_s, 1),
        )

    def _pause(self, need: Need) -> float:
        now = time.monotonic()
        reserve = RESERVE if self._requests.told and self._requests.capacity > 20 * RESERVE else 0.0
        return max(
            self._requests.wait_s(need.requests, reserve, now),
            self._input.wait_s(need.input_tokens, 0.0, now),
            self._output.wait_s(need.output_tokens, 0.0, now),
        )

    def _tell(self, limits: RateLimits, admission: Admission, now: float) -> None:
        requests, tokens_in, _tokens_out = admission.spent
        told = (
            (self._requests, limits.requests, admission.sent_at, requests),
            (self._input, limits.input_tokens, admission.sent_at, tokens_in),
            # Output is counted when it is made: what is in flight still lies ahead.
            (self._output, limits.output_tokens, now, self._output.spent - self._output_in_flight),
        )
        for bucket, limit, counted_at, spent in told:
            held = bucket.rate != math.inf and not bucket.told
            if limit is None or (held and limit.limit / MINUTE >= bucket.rate and not self._episode_until):
                continue
            bucket.tell(limit, counted_at, spent, now)

    def _refused(self, *, told: bool, admission: Admission, now: float) -> None:
        self.limited += 1
        # What was refused was not counted.
        self._requests.level += admission.need.requests
        self._input.level += admission.need.input_tokens
        self._output.level += admission.need.output_tokens
        if self._recent:
            self._recent.pop()
        # As long as requests are refused, it does not go well.
        self._grown_at = now
        if told or now < self._episode_until:
            return
        self._episode_until = now + EPISODE_S
        self._forget(now)
        seen = len(self._recent) / min(MINUTE, max(now - self._started, 1.0))
        rate = max(min(self._requests.rate, seen) * CUT, 1 / MINUTE)
        # A bucket without a limit has not looked at the clock: what "flowed in" before the refusal counts for nothing.
        self._requests.refill(now)
        self._requests.hold(rate, max(1.0, rate))
        self._requests.level = 0.0

    def _grow(self, now: float) -> None:
        found = self._requests
        if found.told or found.rate == math.inf or not self._episode_until or now - self._grown_at < 1.0:
            return
        self._grown_at = now
        found.hold(found.rate * GROWTH, max(1.0, found.rate * GROWTH))

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0] > MINUTE:
            self._recent.popleft()


# By the loop itself, not its id, which another may get once it is gone: waiters of a loop that has ended never wake.
_limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Limiter]] = WeakKeyDictionary()


def limiter_for(endpoint: str) -> Limiter:
    """Return this process's limiter for an endpoint, within the running event loop."""
    return _limiters.setdefault(asyncio.get_running_loop(), {}).setdefault(endpoint, Limiter())
