"""Hold a process's requests below the endpoint's limits a minute, before they are met.

There is one limiter for each endpoint in a process, shared by its runs. Three limits are kept apart, and a request
waits for the longest: the lowest that an open run has set, what rate headers tell, and, where no header tells of
requests, what was found by what the endpoint accepts (finding.py).
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from weakref import WeakKeyDictionary

from presswork.claude.rate_limits import RateLimits
from presswork.errors import CallError, FinalCallError
from presswork.pacing.buckets import MINUTE, UNITS, Bucket, Hold, LimitSource, Need, is_limit
from presswork.pacing.evidence import Sent
from presswork.pacing.finding import Finder
from presswork.prices import Usage

RESERVE = 2.0
"""Requests left unused at the bottom of a bucket that headers set: by this much the order of arrival may differ."""
START_IN_FLIGHT = 40
"""Requests in flight at most until the first answer has told the limits."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that was let go: what it took, and when.

    `spent` is what each bucket that headers set had spent by then; `found` is set where no header tells of requests.
    """

    need: Need
    sent_at: float
    spent: tuple[float, ...]
    found: tuple[Finder, Sent] | None


@dataclass(frozen=True, slots=True)
class LimiterReport:
    """What a limiter decided.

    Requests a minute reached, the lowest limit and where it comes from (None: none known), 429s met, seconds waited;
    `refused_anyway` is the share of 429s that no lower rate changes, `hold` what the next request waits for now.
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
        # Each with the place of its unit in a Need.
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
        self._started = time.monotonic()
        self._output_in_flight = 0.0
        self._recent: deque[float] = deque()
        self._waited_s = 0.0
        self._rate_limited = 0

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
                self._waited_s += time.monotonic() - began
            now = time.monotonic()
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
        """Take note of how a request went: its true usage, what the headers say, a refusal."""
        self._in_flight -= 1
        self._output_in_flight -= admission.need.output_tokens
        self._answered = True
        if usage is not None:
            # The true usage in the place of what was expected. What was read from the prompt cache is not counted.
            for _requests, tokens_in, tokens_out in (self._own, self._told):
                tokens_in.level -= usage.prompt_tokens - usage.cache_read_tokens - admission.need.input_tokens
                tokens_out.level -= usage.output_tokens - admission.need.output_tokens
        if error is not None and _is_rate_limited(error):
            self._rate_limited += 1
            # The endpoint has not counted it.
            for bucket, _origin, unit in self._buckets:
                bucket.give_back(admission.need[unit])
            if self._recent:
                self._recent.pop()
        if admission.found is not None:
            _tell_finder(*admission.found, usage, limits, error)
        if limits is not None:
            now = time.monotonic()
            requests, tokens_in, tokens_out = self._told
            requests.read(limits.requests, admission.sent_at, admission.spent[0], now)
            tokens_in.read(limits.input_tokens, admission.sent_at, admission.spent[1], now)
            # Output is counted when it is made: what is in flight still lies ahead.
            tokens_out.read(limits.output_tokens, now, tokens_out.spent - self._output_in_flight, now)
        self._choose_source(limits, is_answer=usage is not None)
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

    def report(self) -> LimiterReport:
        """Say what was decided."""
        now = time.monotonic()
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

    # Letting go

    async def _wait(self, need: Need, stopped: Callable[[], bool]) -> None:
        while (hold := max(self._holds(need), key=attrgetter("wait_s"), default=None)) and not stopped():
            self._hold = hold
            self._changed.clear()
            try:
                # An answer may tell of more room before the pause is over.
                await asyncio.wait_for(self._changed.wait(), min(hold.wait_s, 1.0))
            except TimeoutError:
                continue

    def _holds(self, need: Need) -> Iterator[Hold]:
        now = time.monotonic()
        for bucket, origin, unit in self._buckets:
            if wait_s := bucket.wait_s(need[unit], now):
                yield Hold(wait_s, origin, UNITS[unit], bucket.rate * MINUTE)
        if not self._headers_tell and (wait_s := self._finder.wait_s(now)):
            yield Hold(wait_s, "found", UNITS[0], self._finder.bucket.rate * MINUTE)

    # Settling

    def _choose_source(self, limits: RateLimits | None, *, is_answer: bool) -> None:
        """Go by headers for the rate of requests where they tell it, else by what is found."""
        tell = limits is not None and is_limit(limits.requests)
        if tell and not self._headers_tell:
            # What was found before holds nothing back any more.
            self._finder = Finder()
        # A refusal may come from something in between that tells nothing, an answer comes from the endpoint.
        if tell or is_answer:
            self._headers_tell = tell

    # Looking

    def _hold_to_lowest(self) -> None:
        now = time.monotonic()
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


def _tell_finder(
    finder: Finder, sent: Sent, usage: Usage | None, limits: RateLimits | None, error: CallError | None
) -> None:
    now = time.monotonic()
    if error is not None and _is_rate_limited(error):
        if limits is None:
            finder.refuse(sent, now, min(error.retry_after_s or 0.0, MINUTE))
    elif usage is None and (error is None or error.http_status is None):
        # Nobody knows whether it was refused.
        sent.lost = True
    elif error is not None and (error.http_status or 0) >= 500:
        finder.hold_growth(now)


def _is_rate_limited(error: CallError) -> bool:
    """Whether a rate limit refused it. A spend limit's 429 is another thing; a gateway's refusal may come as 200."""
    return (error.http_status == 429 or error.kind == "rate_limit_error") and not isinstance(error, FinalCallError)


# By the loop itself, not its id, which another may get once it is gone: waiters of a loop that has ended never wake.
_limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Limiter]] = WeakKeyDictionary()


def limiter_for(endpoint: str) -> Limiter:
    """Return this process's limiter for an endpoint, within the running event loop."""
    return _limiters.setdefault(asyncio.get_running_loop(), {}).setdefault(endpoint, Limiter())
