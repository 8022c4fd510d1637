"""Keep one limit a minute in a bucket that refills continuously, as the endpoint's own does.

A bucket holds to a rate that this installation has set, that was found, or that rate headers tell.
"""

import math
import time
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeGuard

from presswork.claude.rate_limits import Limit

MINUTE = 60.0
UNITS = ("requests", "input tokens", "output tokens")
WATCHED_S = 1.0
"""Answers this far apart tell what others take; closer ones tell more of noise."""
OTHERS_LAST_S = 5.0
"""What others took is forgotten in about this time, unless it is seen again."""
LEAST = 0.1
"""The share of a limit that is always counted on, whatever others seem to take."""

LimitSource = Literal["own", "told", "found"]
"""Where a limit comes from: a setting, rate headers, or what the endpoint accepts."""


class Need(NamedTuple):
    """What a request is expected to take of each limit, in the order of UNITS."""

    requests: float
    input_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class Hold:
    """What a request has to wait for: how long, and for which limit."""

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
            "found": f"the {limit} that the endpoint was found to accept",
        }[self.origin]


@dataclass
class Bucket:
    """One limit: `level` may be used now, `rate` flows in each second up to `capacity`; `reserve` is left unused.

    Where rate headers tell it, `margin` is its reserve if the limit is large enough for one, and `spent` counts all
    that was ever taken, so that an answer's header can be told from what was sent after it. What others of the same
    account take is seen by what is missing.
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
    _at: float = field(default_factory=lambda: time.monotonic())  # noqa: PLW0108 - looked up each time: tests bring a clock

    @property
    def inflow(self) -> float:
        """What flows in for us each second: less what others take."""
        return max(self.rate - self.others, self.rate * LEAST)

    def refill(self, now: float) -> None:
        """Let flow in what has come since."""
        passed, self._at = now - self._at, now
        if self.rate != math.inf:
            self.level = min(self.capacity, self.level + passed * self.inflow)
        self.others *= math.exp(-passed / OTHERS_LAST_S)

    def wait_s(self, amount: float, now: float) -> float:
        """How long until the amount may be taken, 0 for now."""
        if self.rate == math.inf:
            return 0.0
        self.refill(now)
        # More than the bucket ever holds must pass when it is full.
        short = min(amount + self.reserve, self.capacity) - self.level
        return 0.0 if short <= 1e-9 else short / self.inflow

    def take(self, amount: float) -> None:
        """Take the amount."""
        self.level -= amount
        self.spent += amount

    def give_back(self, amount: float) -> None:
        """Give back what was taken and not used."""
        self.level = min(self.capacity, self.level + amount)

    def hold(self, rate: float, now: float) -> None:
        """Hold to a rate that headers did not tell, with a second of it at once at most; inf holds to nothing."""
        self.refill(now)
        self.rate, self.capacity = rate, max(1.0, rate)
        self.level = math.inf if rate == math.inf else min(self.level, self.capacity)

    def read(self, header: Limit | None, sent_at: float, spent_then: float, now: float) -> None:
        """Set the bucket by what an answer's header says was left when its request had been counted."""
        if not is_limit(header) or (self._seen is not None and sent_at <= self._seen[0]):
            return
        self.refill(now)
        self.rate, self.capacity = header.limit / MINUTE, float(header.limit)
        self.reserve = self.margin if self.capacity > 20 * self.margin else 0.0
        # Output is counted when it is made, so an account can be in debt, but never by more than a minute's worth.
        remaining = max(float(header.remaining), -self.capacity)
        self._watch_others(remaining, sent_at, spent_then)
        # Whether the header tells of the request's coming in or of its answer's going out is not said. So what flowed
        # in between is not counted, and what was sent since is: at worst a little is left unused, once.
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
        # A header tells of the moment when the request came in, or when its answer went out: take what suspects less.
        own = max(spent_then - spent_before, self.spent - spent_at_answer)
        # What flowed in, less what we took, is what should be there; what is missing, others took. A bucket that was
        # nearly full has spilled over, and says nothing of others.
        missing = 0.0 if before > 0.8 * self._fullest else before + passed * self.rate - own - remaining
        taken = min(max(missing, 0.0) / passed, self.rate)
        self.others += 0.5 * (taken - self.others)
        self._seen = (sent_at, remaining, spent_then, self.spent)


def is_limit(header: Limit | None) -> TypeGuard[Limit]:
    """Whether a header tells a limit: one of 0 in an answer can't be meant; if it is, the endpoint refuses."""
    return header is not None and header.limit > 0


def a_minute(rate: float) -> str:
    """Show a number a minute, with a decimal where it is small."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:,.1f}".removesuffix(".0")
