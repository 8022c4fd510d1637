"""Limit rates as the API does: buckets that refill continuously, and headers that report their state."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

from sandbox.error_shapes import Refusal
from sandbox.switches import Switches

# The headers' value if no limit is set: more than any client can use.
UNLIMITED = 4_000_000_000


class TokenBucket:
    """Tokens that refill at `limit` a minute. Without a limit the bucket is always full."""

    limit: int | None = None
    _per_second = 0.0
    _capacity = _level = 1.0
    _at = 0.0

    def __init__(self, limit: int | None, burst_seconds: float, now: float) -> None:
        """Start full. The capacity is what refills within burst_seconds, at least 1."""
        self.change(limit, burst_seconds, now)

    def change(self, limit: int | None, burst_seconds: float, now: float) -> None:
        """Change the limit. The remaining tokens stay, up to the new capacity."""
        left = math.inf
        if self.limit is not None:
            self._refill(now)
            left = self._level
        self.limit = limit
        self._per_second = (limit or 0) / 60
        self._capacity = max(1.0, self._per_second * burst_seconds)
        self._level, self._at = min(left, self._capacity), now

    def _refill(self, now: float) -> None:
        self._level = min(self._capacity, self._level + (now - self._at) * self._per_second)
        self._at = now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until the amount is available. For more than the capacity, until the bucket is full."""
        if self.limit is None:
            return 0
        self._refill(now)
        return max(0.0, (min(amount, self._capacity) - self._level) / self._per_second)

    def take(self, amount: float) -> None:
        """Take the amount. The level may become negative, since output is known only afterwards."""
        if self.limit is not None:
            self._level -= amount

    def remaining(self) -> int:
        """The remaining whole tokens."""
        return UNLIMITED if self.limit is None else max(0, int(self._level))

    def seconds_to_full(self) -> float:
        """Seconds until the bucket is full if nothing more is taken."""
        return 0 if self.limit is None else (self._capacity - self._level) / self._per_second


class Limits:
    """The account's three limits: requests, input tokens (cache reads excluded) and output tokens a minute."""

    def __init__(self, switches: Switches, clock: Callable[[], float]) -> None:
        """Start with full buckets; the clock gives seconds since the epoch."""
        self._clock = clock
        now, burst = clock(), switches.burst_seconds
        self._buckets = {
            "requests": TokenBucket(switches.rpm, burst, now),
            "input-tokens": TokenBucket(switches.itpm, burst, now),
            "output-tokens": TokenBucket(switches.otpm, burst, now),
        }
        self._limited = any(bucket.limit is not None for bucket in self._buckets.values())

    def change(self, switches: Switches) -> None:
        """Apply the limits of other switches."""
        now = self._clock()
        limits = {"requests": switches.rpm, "input-tokens": switches.itpm, "output-tokens": switches.otpm}
        for name, limit in limits.items():
            self._buckets[name].change(limit, switches.burst_seconds, now)
        self._limited = any(limit is not None for limit in limits.values())

    def admit(self, input_tokens: int) -> None:
        """Count a request, or raise Refusal (429) with the seconds to wait in `retry-after`."""
        if not self._limited:
            return
        now = self._clock()
        needs = {"requests": 1, "input-tokens": input_tokens, "output-tokens": 1}
        waits = {name: bucket.wait(needs[name], now) for name, bucket in self._buckets.items()}
        name, wait = max(waits.items(), key=lambda item: item[1])
        if wait > 0:
            raise self._refusal(name, wait)
        self._buckets["requests"].take(1)

    def charge(self, input_tokens: int, output_tokens: int) -> None:
        """Take the tokens of an answer that was generated."""
        self._buckets["input-tokens"].take(input_tokens)
        self._buckets["output-tokens"].take(output_tokens)

    def headers(self) -> dict[str, str]:
        """The anthropic-ratelimit-* headers; `tokens` is input and output together."""
        now = self._clock()
        if not self._limited:
            return _unlimited_headers(int(now))
        headers: dict[str, str] = {}
        for name, bucket in self._buckets.items():
            limit = UNLIMITED if bucket.limit is None else bucket.limit
            headers |= _triple(name, limit, bucket.remaining(), now + bucket.seconds_to_full())
        both = [self._buckets["input-tokens"], self._buckets["output-tokens"]]
        limit = sum(UNLIMITED if bucket.limit is None else bucket.limit for bucket in both)
        full = now + max(bucket.seconds_to_full() for bucket in both)
        return headers | _triple("tokens", limit, sum(bucket.remaining() for bucket in both), full)

    def _refusal(self, name: str, wait: float) -> Refusal:
        limit, unit = self._buckets[name].limit, name.replace("-", " ")
        return Refusal(
            429,
            "rate_limit_error",
            f"This request would exceed your organization's rate limit of {limit:,} {unit} per minute.",
            headers={"retry-after": str(math.ceil(wait)), "x-should-retry": "true"},
        )


def _triple(name: str, limit: int, remaining: int, reset: float) -> dict[str, str]:
    prefix = f"anthropic-ratelimit-{name}-"
    return {
        prefix + "limit": str(limit),
        prefix + "remaining": str(remaining),
        prefix + "reset": _rfc3339(math.ceil(reset)),
    }


@lru_cache(maxsize=256)
def _rfc3339(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@lru_cache(maxsize=2)
def _unlimited_headers(second: int) -> dict[str, str]:
    names = ("requests", "input-tokens", "output-tokens", "tokens")
    return {key: text for name in names for key, text in _triple(name, UNLIMITED, UNLIMITED, second).items()}
