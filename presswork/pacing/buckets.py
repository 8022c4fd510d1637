"""Keep one limit per minute in a bucket that refills continuously, like the endpoint's own.

The rate of a bucket comes from a setting of this installation, from rate headers, or from what the endpoint accepts.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeGuard

from db.machine import monotonic_s
from presswork.claude.rate_limits import Limit

MINUTE = 60.0
UNITS = ("requests", "input tokens", "output tokens")
WATCHED_S = 1.0
"""Only answers at least this far apart show what others use; closer ones show mostly noise."""
OTHERS_LAST_S = 5.0
"""The measured use by others decays over about this time, unless it is seen again."""
LEAST = 0.1
"""This share of a limit is always used, even if others seem to use all of it."""

LimitSource = Literal["own", "told", "found"]
"""Where a limit comes from: a setting, rate headers, or what the endpoint accepts."""


class Need(NamedTuple):
    """How much of each limit a request is expected to use, in the order of UNITS."""

    requests: float
    input_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a request has to wait: for how long, and for which limit."""

    wait_s: float
    origin: LimitSource
    unit: str
    per_minute: float

    def words(self) -> str:
        """Name the limit."""
        unit = self.unit.removesuffix("s") if self.per_minute == 1 else self.unit
        limit = f"{a_minute(self.per_minute)} {unit} a minute"
        return {
            "own": f"your own limit of {limit}",
            "told": f"the endpoint's limit of {limit}",
            "found": f"the measured limit of {limit}",
        }[self.origin]


@dataclass
class Bucket:
    """One limit: `level` may be used now, `rate` flows in per second up to `capacity`; `reserve` stays unused.

    - `margin`: for a limit from rate headers, the reserve if the limit is large enough.
    - `spent`: all that was ever taken, to subtract the requests that were sent after the one that a header answers.
    - `others`: the estimated use per second by other clients of the same account.
    """

    rate: float = math.inf
    capacity: float = math.inf
    level: float = math.inf
    reserve: float = 0.0
    margin: float = 0.0
    spent: float = 0.0
    others: float = 0.0
    _seen: tuple[float, float, float, float] | None = None
    _fullest: float = 0.0
    _at: float = field(default_factory=monotonic_s)

    @property
    def inflow(self) -> float:
        """The inflow per second for this process, without the use by others."""
        return max(self.rate - self.others, self.rate * LEAST)

    def refill(self, now: float) -> None:
        """Add what has flowed in since the last call."""
        passed, self._at = now - self._at, now
        if self.rate != math.inf:
            self.level = min(self.capacity, self.level + passed * self.inflow)
        self.others *= math.exp(-passed / OTHERS_LAST_S)

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until the amount may be taken; 0 means now."""
        if self.rate == math.inf:
            return 0.0
        self.refill(now)
        # An amount larger than the bucket may pass when the bucket is full.
        short = min(amount + self.reserve, self.capacity) - self.level
        return 0.0 if short <= 1e-9 else short / self.inflow

    def take(self, amount: float) -> None:
        """Take the amount."""
        self.level -= amount
        self.spent += amount

    def refund(self, amount: float) -> None:
        """Return an amount that was taken but not used."""
        self.level = min(self.capacity, self.level + amount)

    def hold(self, rate: float, now: float) -> None:
        """Set a rate that does not come from headers, with a burst of at most one second; inf removes the limit."""
        self.refill(now)
        self.rate, self.capacity = rate, max(1.0, rate)
        self.level = math.inf if rate == math.inf else min(self.level, self.capacity)

    def read(self, header: Limit | None, sent_at: float, spent_then: float, now: float) -> None:
        """Set the bucket from an answer's header: what was left after its request had been counted."""
        if not is_limit(header) or (self._seen is not None and sent_at <= self._seen[0]):
            return
        self.refill(now)
        self.rate, self.capacity = header.limit / MINUTE, float(header.limit)
        self.reserve = self.margin if self.capacity > 20 * self.margin else 0.0
        # Output is counted when it is produced, so an account can be in debt, but never by more than a minute's worth.
        remaining = max(float(header.remaining), -self.capacity)
        self._watch_others(remaining, sent_at, spent_then)
        # The API does not say whether the header describes the moment when the request arrived or when its answer left.
        # So ignore what flowed in between the two, and subtract all requests since: at worst a little stays unused.
        self.level = min(self.capacity, remaining) - (self.spent - spent_then)

    def _watch_others(self, remaining: float, sent_at: float, spent_then: float) -> None:
        self._fullest = max(self._fullest, remaining)
        if self._seen is None:
            self._seen = (sent_at, remaining, spent_then, self.spent)
            return
        since, before, spent_before, spent_at_answer = self._seen
        passed = sent_at - since
        if passed < WATCHED_S:
            return
        # The header describes the request's arrival or its answer's departure: take the one that blames others less.
        own = max(spent_then - spent_before, self.spent - spent_at_answer)
        # What flowed in, minus what we took, should be there; others took the missing part. A bucket that was nearly
        # full has overflowed, and shows nothing about others.
        missing = 0.0 if before > 0.8 * self._fullest else before + passed * self.rate - own - remaining
        taken = min(max(missing, 0.0) / passed, self.rate)
        self.others += 0.5 * (taken - self.others)
        self._seen = (sent_at, remaining, spent_then, self.spent)


def is_limit(header: Limit | None) -> TypeGuard[Limit]:
    """Whether a header holds a limit. A 0 is ignored: an endpoint that means it rejects the requests anyway."""
    return header is not None and header.limit > 0


def a_minute(rate: float) -> str:
    """Write a number per minute, with a decimal if it is small."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:,.1f}".removesuffix(".0")
