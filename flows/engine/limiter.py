"""Hold a process's requests below the endpoint's limits a minute, before they are met.

There is one limiter for each endpoint in a process, shared by its runs. Three limits are kept apart, and a request
waits for the longest: what this installation set (buckets.py), what rate headers tell (buckets.py), and, where nothing
is told, what was found by what the endpoint accepts (finding.py).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

from flows.engine.buckets import MINUTE, Bucket, ToldBucket
from flows.engine.finding import Finder, Sent
from flows.errors import CallError, FinalCallError
from flows.steps.complete import RateLimits
from flows.steps.prices import Usage

RESERVE = 2.0
"""Requests left unused at the bottom of a bucket: what the order of arrival at the endpoint can differ by."""
START_IN_FLIGHT = 40
"""Requests in flight at most until the first answer has told the limits."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a request is expected to take of each limit."""

    requests: float
    input_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that was let go: what it took, and when."""

    need: Need
    sent_at: float
    spent: tuple[float, float, float]
    sent: Sent


@dataclass(frozen=True, slots=True)
class Report:
    requests_per_minute: float
    limit_per_minute: float | None
    rate_limited: int
    waited_s: float


class Limiter:
    """The limits of one endpoint, in this process."""

    def __init__(self) -> None:
        self._told = tuple(ToldBucket() for _ in range(3))
        self._own = tuple(Bucket() for _ in range(3))
        self._finder = Finder()
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._in_flight = 0
        self._answered = False
        self._started = time.monotonic()
        self._output_in_flight = 0.0
        self._recent: deque[float] = deque()
        self.waited_s = 0.0
        self.limited = 0

    async def admit(self, need: Need, stopped: Callable[[], bool] = lambda: False) -> Admission:
        async with self._turn:
            while self._in_flight >= START_IN_FLIGHT and not self._answered:
                self._changed.clear()
                await self._changed.wait()
            began = time.monotonic()
            while (pause := self._pause(need)) > 0 and not stopped():
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), min(pause, 1.0))
                except TimeoutError:
                    continue
            now = time.monotonic()
            self.waited_s += now - began
            self._in_flight += 1
            self._output_in_flight += need.output_tokens
            self._recent.append(now)
            self._forget(now)
            amounts = (need.requests, need.input_tokens, need.output_tokens)
            for own, told, amount in zip(self._own, self._told, amounts):
                own.take(amount)
                told.take(amount)
            a, b, c = self._told
            return Admission(need, now, (a.spent, b.spent, c.spent), self._finder.send(now))

    def settle(self, admission, usage, limits, error) -> None:
        now = time.monotonic()
        self._in_flight -= 1
        self._output_in_flight -= admission.need.output_tokens
        self._answered = True
        need = admission.need
        if usage is not None:
            counted = usage.input_tokens + usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens
            for b in (self._own, self._told):
                b[1].level -= counted - need.input_tokens
                b[2].level -= usage.output_tokens - need.output_tokens
        if error is not None and error.http_status == 429:
            self.limited += 1
            for b in (self._own, self._told):
                for x, amount in zip(b, (need.requests, need.input_tokens, need.output_tokens)):
                    x.give_back(amount)
            if self._recent:
                self._recent.pop()
            if limits is None:
                self._finder.refuse(admission.sent, now, error.retry_after_s or 0.0)
        elif usage is None and (error is None or error.http_status is None):
            self._finder.lose(admission.sent)
        elif error is not None and (error.http_status or 0) >= 500:
            self._finder.hold_growth(now)
        if limits is not None:
            self._tell(limits, admission, now)
        self._changed.set()

    def hold(self, *, rpm, itpm, otpm):
        for bucket, limit in zip(self._own, (rpm, itpm, otpm)):
            if limit is not None:
                bucket.hold(limit / MINUTE, time.monotonic())

    def report(self) -> Report:
        self._forget(time.monotonic())
        rate = min(self._own[0].rate, self._told[0].rate, self._finder.bucket.rate)
        limit = None if rate == math.inf else rate * MINUTE
        passed = min(MINUTE, max(time.monotonic() - self._started, 1e-3))
        return Report(
            requests_per_minute=round(len(self._recent) / passed * MINUTE, 1),
            limit_per_minute=round(limit, 1) if limit is not None else None,
            rate_limited=self.limited,
            waited_s=round(self.waited_s, 1),
        )

    def _pause(self, need: Need) -> float:
        now = time.monotonic()
        requests = self._told[0]
        reserve = RESERVE if requests.told and requests.capacity > 20 * RESERVE else 0.0
        amounts = (need.requests, need.input_tokens, need.output_tokens)
        return max(
            *(b.wait_s(a, 0.0, now) for b, a in zip(self._own, amounts)),
            *(b.wait_s(a, reserve if b is requests else 0.0, now) for b, a in zip(self._told, amounts)),
            self._finder.wait_s(now),
        )

    def _tell(self, limits, admission, now):
        requests, tokens_in, _ = admission.spent
        out = self._told[2]
        told = (
            (limits.requests, admission.sent_at, requests),
            (limits.input_tokens, admission.sent_at, tokens_in),
            (limits.output_tokens, now, out.spent - self._output_in_flight),
        )
        for bucket, (limit, counted_at, spent) in zip(self._told, told):
            if limit is not None and limit.limit > 0:
                bucket.tell(limit, counted_at, spent, now)
        if limits.requests is not None and limits.requests.limit > 0:
            self._finder = Finder()

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0] > MINUTE:
            self._recent.popleft()


_limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Limiter]] = WeakKeyDictionary()


def limiter_for(endpoint: str) -> Limiter:
    return _limiters.setdefault(asyncio.get_running_loop(), {}).setdefault(endpoint, Limiter())
