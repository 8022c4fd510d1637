"""Let one request write a shared prefix into the prompt cache before many read it.

A cached prefix can be read once the answer that writes it has begun, so requests that are sent together all pay for
writing it. Here one request of a prefix goes first, then 2, 4, ... are in flight until an answer has read the cache;
then all go. A waiting request holds no place in flight, no part of the cost cap and none of the endpoint's limits.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

from db.machine import monotonic_s
from presswork.errors import CallError
from presswork.prices import Usage
from presswork.prompts.render import Brief, Caching

DOUBLE_AFTER_S = 20.0
"""If no answer arrives in this time, twice as many may be in flight: the first one has surely begun, or it hangs.

A request may take ten minutes until it times out, and must not delay a run for as long."""
TTL_S = {"5m": 300.0, "1h": 3600.0}
"""How long an entry can be read after it was last written or read."""


@dataclass(frozen=True, slots=True)
class Warmth:
    """How the requests of a process used the prompt cache.

    - `late`: requests that cached a prefix again before it could be read.
    - `missed`: requests that cached a prefix again although it could be read.
    - `silent`: answers that reported neither a write nor a read.
    - `too_short`: the templates whose prefix can't be cached.
    """

    late: int = 0
    missed: int = 0
    silent: int = 0
    too_short: tuple[str, ...] = ()


class Warming:
    """The cached prefixes of one run; at most `most` requests are in flight in any case."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._prefixes: dict[str, _Prefix] = {}
        self._too_short: set[str] = set()
        self._is_released = False

    def turn(self, brief: Brief) -> AbstractAsyncContextManager[None]:
        """Wait until a request with this prefix may go; it is in flight until the context ends."""
        if brief.caching is Caching.TOO_SHORT:
            self._too_short.add(brief.template.name)
        if brief.caching in {Caching.OFF, Caching.TOO_SHORT}:
            return nullcontext()
        if brief.prefix not in self._prefixes:
            # A prefix that is probably too short goes without waiting: to wait would cost each run a request.
            limit = math.inf if self._is_released or brief.caching is Caching.UNSURE else 1
            self._prefixes[brief.prefix] = _Prefix(TTL_S[brief.template.front.cache], self._most, limit)
        return self._prefixes[brief.prefix].turn()

    def record(self, brief: Brief, usage: Usage | None, error: CallError | None, sent_at: float) -> None:
        """Record how a request ended; `sent_at` is by monotonic_s(). A failed one shows nothing."""
        prefix = self._prefixes.get(brief.prefix)
        if prefix is not None and error is None and not self._is_released:
            prefix.record(usage, sent_at)

    def release(self) -> None:
        """Release all waiting requests after the run has stopped; each of them finds out by itself."""
        self._is_released = True
        for prefix in self._prefixes.values():
            prefix.set_limit(math.inf)

    def report(self) -> Warmth:
        """Return the counts so far."""
        judged = [prefix.judged() for prefix in self._prefixes.values()]
        return Warmth(
            late=sum(late for late, _missed in judged),
            missed=sum(missed for _late, missed in judged),
            silent=sum(prefix.silent for prefix in self._prefixes.values()),
            too_short=tuple(sorted(self._too_short)),
        )


class _Prefix:
    """One cached prefix: `limit` requests may be in flight until one has read it, any number after that."""

    def __init__(self, ttl_s: float, most: int, limit: float) -> None:
        self._ttl_s = ttl_s
        self._most = most
        self._in_flight = 0
        self._written = 0
        self._late, self._missed, self.silent = 0, 0, 0
        # When an entry was last written or read, when an answer first reported the cache, and when the first request
        # that read it was sent.
        self._alive_at = self._told_at = self._read_from = math.inf
        self._rewritten_at: list[float] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.set_limit(limit)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold a place in flight, given first come first served."""
        if self._limit == math.inf and monotonic_s() - self._alive_at > self._ttl_s:
            # The entry has expired: begin with one request again, so that the next one writes it.
            self._judge()
            self._written = 0
            self._alive_at = self._told_at = self._read_from = math.inf
            self.set_limit(1)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            await turn
            yield
        finally:
            if not turn.cancelled():
                self._in_flight -= 1
                self._admit()

    def set_limit(self, limit: float) -> None:
        """Allow this many in flight, or any number once the limit reaches the run's concurrency."""
        self._limit = limit if limit < self._most else math.inf
        self._admit()

    def record(self, usage: Usage | None, sent_at: float) -> None:
        """Record an answer."""
        read = usage.cache_read_tokens if usage else 0
        if usage is None or not (read or usage.cache_creation_5m_tokens or usage.cache_creation_1h_tokens):
            # The prefix is shorter than estimated, or a gateway does not pass on the cache counts.
            self.silent += 1
            self.set_limit(math.inf)
            return
        if read:
            self._read_from = min(self._read_from, sent_at)
            self.set_limit(math.inf)
        else:
            if sent_at >= self._told_at:
                self._rewritten_at.append(sent_at)
                if self._read_from < math.inf:
                    self._judge()
            self._written += 1
            if self._written >= self._limit:
                self._double()
        self._alive_at = monotonic_s()
        self._told_at = min(self._told_at, self._alive_at)

    def judged(self) -> tuple[int, int]:
        """The late and the missed requests, as Warmth counts them."""
        late = sum(at < self._read_from for at in self._rewritten_at)
        return self._late + late, self._missed + len(self._rewritten_at) - late

    def _double(self) -> None:
        self._written = 0
        self._stop_timer()
        self.set_limit(2 * self._limit)

    def _admit(self) -> None:
        while self._waiting and self._in_flight < self._limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._in_flight += 1
                turn.set_result(None)
        if not self._waiting:
            self._stop_timer()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DOUBLE_AFTER_S, self._double)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _judge(self) -> None:
        self._late, self._missed = self.judged()
        self._rewritten_at.clear()
