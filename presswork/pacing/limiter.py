"""Keep a process's requests below the endpoint's limits per minute, before the endpoint refuses any.

Each endpoint has one limiter in a process, shared by the process's runs. It keeps three limits apart, and a request
waits for the slowest: the lowest that an open run has set; the limits in rate headers; and, if no header limits
requests, the limit that was found by trial (finding.py).
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from weakref import WeakKeyDictionary

from db.machine import monotonic_s
from presswork.claude.rate_limits import RateLimits
from presswork.errors import CallError, FinalCallError
from presswork.pacing.buckets import MINUTE, UNITS, Bucket, Hold, LimitSource, Need, is_limit
from presswork.pacing.evidence import Sent
from presswork.pacing.finding import Finder
from presswork.prices import Usage

RESERVE = 2.0
"""Requests left unused in a bucket that headers set: requests may arrive in another order by this many."""
START_IN_FLIGHT = 40
"""The most requests in flight until the first answer has shown the limits."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that was admitted: what it took, and when.

    `spent` is what each bucket set by headers had spent by then; `found` is set if no header limits requests.
    """

    need: Need
    sent_at: float
    spent: tuple[float, ...]
    found: tuple[Finder, Sent] | None


@dataclass(frozen=True, slots=True)
class LimiterReport:
    """The state of a limiter: the rate reached, its lowest limit and where that comes from (None: no known limit).

    `rate_limited` counts 429s, `waited_s` is the time spent waiting. `refused_anyway` is the share of 429s that no
    lower rate changes, and `hold` is what the next request waits for now.
    """

    requests_per_minute: float
    limit_per_minute: float | None
    limit_from: LimitSource | None
    rate_limited: int
    waited_s: float
    refused_anyway: float
    hold: Hold | None


class Limiter:
    """The limits of one endpoint, in this process."""

    def __init__(self) -> None:
        self._own = [Bucket() for _unit in UNITS]
        self._told = [Bucket(margin=RESERVE), Bucket(), Bucket()]
        # Each with the index of its unit in a Need.
        self._buckets: list[tuple[Bucket, LimitSource, int]] = [
            *((bucket, "own", unit) for unit, bucket in enumerate(self._own)),
            *((bucket, "told", unit) for unit, bucket in enumerate(self._told)),
        ]
        self._finder = Finder()
        self._headers_tell = False
        self._set: dict[object, tuple[int | None, int | None, int | None]] = {}
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._hold: Hold | None = None
        self._in_flight = 0
        self._answered = False
        self._started = monotonic_s()
        self._output_in_flight = 0.0
        self._recent: deque[float] = deque()
        self._waited_s = 0.0
        self._rate_limited = 0

    async def admit(self, need: Need, stopped: Callable[[], bool] = lambda: False) -> Admission:
        """Wait, first come first served, until a request fits all limits, and take what it needs.

        The wait ends early when `stopped` returns True.
        """
        async with self._turn:
            while self._in_flight >= START_IN_FLIGHT and not self._answered:
                self._changed.clear()
                await self._changed.wait()
            began = monotonic_s()
            try:
                await self._wait(need, stopped)
            finally:
                self._hold = None
                self._waited_s += monotonic_s() - began
            now = monotonic_s()
            for bucket, _origin, unit in self._buckets:
                bucket.take(need[unit])
            self._in_flight += 1
            self._output_in_flight += need.output_tokens
            self._recent.append(now)
            self._forget(now)
            found = None if self._headers_tell else (self._finder, self._finder.send(now))
            return Admission(need, now, tuple(bucket.spent for bucket in self._told), found)

    def settle(
        self, admission: Admission, usage: Usage | None, limits: RateLimits | None, error: CallError | None
    ) -> None:
        """Record how a request ended: its true usage, the headers, a refusal."""
        self._in_flight -= 1
        self._output_in_flight -= admission.need.output_tokens
        self._answered = True
        if usage is not None:
            # Replace the expected usage by the true one. Tokens read from the prompt cache do not count.
            for _requests, tokens_in, tokens_out in (self._own, self._told):
                tokens_in.level -= usage.prompt_tokens - usage.cache_read_tokens - admission.need.input_tokens
                tokens_out.level -= usage.output_tokens - admission.need.output_tokens
        if error is not None and _is_rate_limited(error):
            self._rate_limited += 1
            # The endpoint did not count it.
            for bucket, _origin, unit in self._buckets:
                bucket.refund(admission.need[unit])
            if self._recent:
                self._recent.pop()
        if admission.found is not None:
            _inform_finder(*admission.found, usage, limits, error)
        if limits is not None:
            now = monotonic_s()
            requests, tokens_in, tokens_out = self._told
            requests.read(limits.requests, admission.sent_at, admission.spent[0], now)
            tokens_in.read(limits.input_tokens, admission.sent_at, admission.spent[1], now)
            # Output is counted when it is produced: what is in flight is still to come.
            tokens_out.read(limits.output_tokens, now, tokens_out.spent - self._output_in_flight, now)
        self._choose_source(limits, is_answer=usage is not None)
        self._changed.set()

    def hold(self, *, rpm: int | None, itpm: int | None, otpm: int | None) -> Callable[[], None]:
        """Apply a run's own limits per minute until the returned function is called; the lowest of all runs counts."""
        key = object()
        self._set[key] = (rpm, itpm, otpm)
        self._hold_to_lowest()

        def release() -> None:
            self._set.pop(key, None)
            self._hold_to_lowest()

        return release

    def report(self) -> LimiterReport:
        """Return the current state."""
        now = monotonic_s()
        self._forget(now)
        rate, origin = min(self._rates(now))
        is_limited = rate != math.inf
        passed = min(MINUTE, max(now - self._started, 1e-3))
        return LimiterReport(
            requests_per_minute=round(len(self._recent) / passed * MINUTE, 1),
            limit_per_minute=round(rate * MINUTE, 1) if is_limited else None,
            limit_from=origin if is_limited else None,
            rate_limited=self._rate_limited,
            waited_s=round(self._waited_s, 1),
            refused_anyway=round(self._finder.usual.share(now), 3),
            hold=self._hold,
        )

    # Admitting

    async def _wait(self, need: Need, stopped: Callable[[], bool]) -> None:
        while (hold := max(self._holds(need), key=attrgetter("wait_s"), default=None)) and not stopped():
            self._hold = hold
            self._changed.clear()
            try:
                # An answer may show more room before the pause is over.
                await asyncio.wait_for(self._changed.wait(), min(hold.wait_s, 1.0))
            except TimeoutError:
                continue

    def _holds(self, need: Need) -> Iterator[Hold]:
        now = monotonic_s()
        for bucket, origin, unit in self._buckets:
            if wait_s := bucket.wait_s(need[unit], now):
                yield Hold(wait_s, origin, UNITS[unit], bucket.rate * MINUTE)
        if not self._headers_tell and (wait_s := self._finder.wait_s(now)):
            yield Hold(wait_s, "found", UNITS[0], self._finder.bucket.rate * MINUTE)

    # Settling

    def _choose_source(self, limits: RateLimits | None, *, is_answer: bool) -> None:
        """Use rate headers for requests if the endpoint sends them, else the limit that was found."""
        tell = limits is not None and is_limit(limits.requests)
        if tell and not self._headers_tell:
            # The limit found before no longer applies.
            self._finder = Finder()
        # A refusal may come from a gateway that sends no headers; an answer comes from the endpoint.
        if tell or is_answer:
            self._headers_tell = tell

    # Looking

    def _hold_to_lowest(self) -> None:
        now = monotonic_s()
        for number, bucket in enumerate(self._own):
            limits = (limits[number] for limits in self._set.values())
            bucket.hold(min((limit for limit in limits if limit is not None), default=math.inf) / MINUTE, now)
        self._changed.set()

    def _rates(self, now: float) -> Iterator[tuple[float, LimitSource]]:
        yield self._own[0].rate, "own"
        yield self._told[0].rate, "told"
        if not self._headers_tell and self._finder.is_holding(now, within_s=MINUTE):
            yield self._finder.bucket.rate, "found"

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0] > MINUTE:
            self._recent.popleft()


def _inform_finder(
    finder: Finder, sent: Sent, usage: Usage | None, limits: RateLimits | None, error: CallError | None
) -> None:
    now = monotonic_s()
    if error is not None and _is_rate_limited(error):
        if limits is None:
            finder.refuse(sent, now, min(error.retry_after_s or 0.0, MINUTE))
    elif usage is None and (error is None or error.http_status is None):
        # It is unknown whether it was refused.
        sent.lost = True
    elif error is not None and (error.http_status or 0) >= 500:
        finder.hold_growth(now)


def _is_rate_limited(error: CallError) -> bool:
    """Whether a rate limit refused it. A 429 for a spend limit is different; a gateway may send a refusal as 200."""
    return (error.http_status == 429 or error.kind == "rate_limit_error") and not isinstance(error, FinalCallError)


# Keyed by the loop, not its id, which a later loop may get: waiters of a loop that has ended never wake.
_limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Limiter]] = WeakKeyDictionary()


def limiter_for(endpoint: str) -> Limiter:
    """Return this process's limiter for an endpoint, within the running event loop."""
    return _limiters.setdefault(asyncio.get_running_loop(), {}).setdefault(endpoint, Limiter())
