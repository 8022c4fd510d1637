"""Hold a process's requests below the endpoint's limits a minute, before they are met.

There is one limiter for each endpoint in a process, shared by its runs. Three limits are kept apart, and a request
waits for the longest: the lowest that an open run has set, what rate headers tell, and, where no header tells of
requests, what was found by what the endpoint accepts (finding.py).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

from flows.engine.pacing.buckets import MINUTE, Bucket, ToldBucket, a_minute
from flows.engine.pacing.evidence import Sent
from flows.engine.pacing.finding import Finder
from flows.errors import CallError, FinalCallError
from flows.steps.claude.rate_limits import RateLimits
from flows.steps.prices import Usage

RESERVE = 2.0
"""Requests left unused at the bottom of a told bucket: what the order of arrival at the endpoint can differ by."""
START_IN_FLIGHT = 40
"""Requests in flight at most until the first answer has told the limits."""
UNITS = ("requests", "input tokens", "output tokens")

Origin = Literal["own", "told", "found"]


@dataclass(frozen=True, slots=True)
class Need:
    """What a request is expected to take of each limit."""

    requests: float
    input_tokens: float
    output_tokens: float

    @property
    def amounts(self) -> tuple[float, float, float]:
        """The three, in the order of UNITS."""
        return self.requests, self.input_tokens, self.output_tokens

    def as_usage(self) -> Usage:
        """The same as the usage of an answer that took just that."""
        return Usage(round(self.input_tokens), output_tokens=round(self.output_tokens))


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that was let go: what it took, and when; `finder` and `sent` where no header tells of requests."""

    need: Need
    sent_at: float
    spent: tuple[float, float, float]
    finder: Finder | None
    sent: Sent | None


@dataclass(frozen=True, slots=True)
class Hold:
    """What a request has to wait for: how long, and for which limit."""

    wait_s: float
    origin: Origin
    unit: str
    per_minute: float

    def words(self) -> str:
        """Name the limit."""
        unit = self.unit.removesuffix("s") if self.per_minute == 1 else self.unit
        limit = f"{a_minute(self.per_minute)} {unit} a minute"
        return {
            "own": f"your own limit of {limit}",
            "told": f"the endpoint's limit of {limit}",
            "found": f"the {limit} that the endpoint was found to accept",
        }[self.origin]


@dataclass(frozen=True, slots=True)
class Report:
    """What a limiter decided.

    Requests a minute reached, the lowest limit and where it comes from (None: none known), 429s met, seconds waited;
    `refused_anyway` is the share of 429s that no lower rate changes, `hold` what the next request waits for now.
    """

    requests_per_minute: float
    limit_per_minute: float | None
    limit_from: Origin | None
    rate_limited: int
    waited_s: float
    refused_anyway: float
    hold: Hold | None


class Limiter:
    """The limits of one endpoint, in this process."""

    def __init__(self) -> None:
        self._own = (Bucket(), Bucket(), Bucket())
        self._told = (ToldBucket(), ToldBucket(), ToldBucket())
        self._finder = Finder()
        self._headers_tell = False
        self._set: dict[object, tuple[int | None, int | None, int | None]] = {}
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._hold: Hold | None = None
        self._in_flight = 0
        self._answered = False
        self._started = time.monotonic()
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
            try:
                await self._wait(need, stopped)
            finally:
                self._hold = None
                self.waited_s += time.monotonic() - began
            return self._let_go(need, time.monotonic())

    def settle(
        self, admission: Admission, usage: Usage | None, limits: RateLimits | None, error: CallError | None
    ) -> None:
        """Take note of how a request went: its true usage, what the headers say, a refusal."""
        now = time.monotonic()
        self._in_flight -= 1
        self._output_in_flight -= admission.need.output_tokens
        self._answered = True
        if usage is not None:
            self._correct(admission.need, usage)
        if error is not None and _is_refusal(error):
            self._give_back(admission.need)
        self._tell_finder(admission, usage, limits, error, now)
        if limits is not None:
            self._tell(limits, admission, now)
        self._hear(limits, is_answer=usage is not None)
        self._changed.set()

    def hold(self, *, rpm: int | None, itpm: int | None, otpm: int | None) -> Callable[[], None]:
        """Hold to a run's own limits a minute until what is returned is called; of several runs the lowest counts."""
        key = object()
        self._set[key] = (rpm, itpm, otpm)
        self._hold_to_lowest()

        def release() -> None:
            self._set.pop(key, None)
            self._hold_to_lowest()

        return release

    def report(self) -> Report:
        """Say what was decided."""
        now = time.monotonic()
        self._forget(now)
        rate, origin = min(self._rates(), default=(math.inf, None))
        passed = min(MINUTE, max(now - self._started, 1e-3))
        return Report(
            requests_per_minute=round(len(self._recent) / passed * MINUTE, 1),
            limit_per_minute=round(rate * MINUTE, 1) if origin else None,
            limit_from=origin,
            rate_limited=self.limited,
            waited_s=round(self.waited_s, 1),
            refused_anyway=round(self._finder.usual.share(now), 3),
            hold=self._hold,
        )

    # Letting go

    async def _wait(self, need: Need, stopped: Callable[[], bool]) -> None:
        while (hold := self._longest(need)) is not None and not stopped():
            self._hold = hold
            self._changed.clear()
            try:
                # An answer may tell of more room before the pause is over.
                await asyncio.wait_for(self._changed.wait(), min(hold.wait_s, 1.0))
            except TimeoutError:
                continue

    def _longest(self, need: Need) -> Hold | None:
        return max(self._holds(need, time.monotonic()), key=lambda hold: hold.wait_s, default=None)

    def _holds(self, need: Need, now: float) -> Iterator[Hold]:
        requests = self._told[0]
        reserve = RESERVE if requests.capacity > 20 * RESERVE else 0.0
        for unit, amount, own, told in zip(UNITS, need.amounts, self._own, self._told, strict=True):
            if wait_s := own.wait_s(amount, 0.0, now):
                yield Hold(wait_s, "own", unit, own.rate * MINUTE)
            if wait_s := told.wait_s(amount, reserve if told is requests else 0.0, now):
                yield Hold(wait_s, "told", unit, told.rate * MINUTE)
        if not self._headers_tell and (wait_s := self._finder.wait_s(now)):
            yield Hold(wait_s, "found", UNITS[0], self._finder.bucket.rate * MINUTE)

    def _let_go(self, need: Need, now: float) -> Admission:
        for amount, own, told in zip(need.amounts, self._own, self._told, strict=True):
            own.take(amount)
            told.take(amount)
        self._in_flight += 1
        self._output_in_flight += need.output_tokens
        self._recent.append(now)
        self._forget(now)
        requests, tokens_in, tokens_out = self._told
        finder = None if self._headers_tell else self._finder
        sent = None if finder is None else finder.send(now)
        return Admission(need, now, (requests.spent, tokens_in.spent, tokens_out.spent), finder, sent)

    # Settling

    def _correct(self, need: Need, usage: Usage) -> None:
        """Put the true usage in the place of what was expected."""
        counted = usage.input_tokens + usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens
        for _requests, tokens_in, tokens_out in (self._own, self._told):
            tokens_in.level -= counted - need.input_tokens
            tokens_out.level -= usage.output_tokens - need.output_tokens

    def _give_back(self, need: Need) -> None:
        """What was refused was not counted."""
        self.limited += 1
        for amount, own, told in zip(need.amounts, self._own, self._told, strict=True):
            own.give_back(amount)
            told.give_back(amount)
        if self._recent:
            self._recent.pop()

    def _tell_finder(
        self, admission: Admission, usage: Usage | None, limits: RateLimits | None, error: CallError | None, now: float
    ) -> None:
        finder, sent = admission.finder, admission.sent
        if finder is None or sent is None:
            return
        if error is not None and _is_refusal(error):
            if limits is None:
                finder.refuse(sent, now, min(error.retry_after_s or 0.0, MINUTE))
        elif usage is None and (error is None or error.http_status is None):
            finder.lose(sent)
        elif error is not None and (error.http_status or 0) >= 500:
            finder.hold_growth(now)

    def _tell(self, limits: RateLimits, admission: Admission, now: float) -> None:
        requests, tokens_in, _tokens_out = admission.spent
        bucket = self._told[2]
        told = (
            (limits.requests, admission.sent_at, requests),
            (limits.input_tokens, admission.sent_at, tokens_in),
            # Output is counted when it is made: what is in flight still lies ahead.
            (limits.output_tokens, now, bucket.spent - self._output_in_flight),
        )
        for bucket, (limit, counted_at, spent) in zip(self._told, told, strict=True):
            # A limit of 0 in an answer can't be meant; if it is, the endpoint refuses.
            if limit is not None and limit.limit > 0:
                bucket.tell(limit, counted_at, spent, now)

    def _hear(self, limits: RateLimits | None, *, is_answer: bool) -> None:
        tells = limits is not None and limits.requests is not None and limits.requests.limit > 0
        if tells and not self._headers_tell:
            # What was found before holds nothing back any more.
            self._finder = Finder()
        # A refusal may come from something in between that tells nothing, an answer comes from the endpoint.
        if tells or is_answer:
            self._headers_tell = tells

    # Looking

    def _hold_to_lowest(self) -> None:
        now = time.monotonic()
        for number, bucket in enumerate(self._own):
            limits = (limits[number] for limits in self._set.values())
            bucket.hold(min((limit for limit in limits if limit is not None), default=math.inf) / MINUTE, now)
        self._changed.set()

    def _rates(self) -> Iterator[tuple[float, Origin]]:
        rates: list[tuple[float, Origin]] = [(self._own[0].rate, "own"), (self._told[0].rate, "told")]
        if not self._headers_tell and self._finder.is_holding(time.monotonic(), within_s=MINUTE):
            rates.append((self._finder.bucket.rate, "found"))
        return (found for found in rates if found[0] != math.inf)

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0] > MINUTE:
            self._recent.popleft()


def _is_refusal(error: CallError) -> bool:
    """Whether a rate limit refused it. A spend limit's 429 is another thing; a gateway's refusal may come as 200."""
    return (error.http_status == 429 or error.kind == "rate_limit_error") and not isinstance(error, FinalCallError)


# By the loop itself, not its id, which another may get once it is gone: waiters of a loop that has ended never wake.
_limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Limiter]] = WeakKeyDictionary()


def limiter_for(endpoint: str) -> Limiter:
    """Return this process's limiter for an endpoint, within the running event loop."""
    return _limiters.setdefault(asyncio.get_running_loop(), {}).setdefault(endpoint, Limiter())
