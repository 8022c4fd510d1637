"""Pace: one gate a run, which decides when a request may be sent.

It holds the number in flight below the concurrency, spreads requests where a limit a minute is set, asks the endpoint
before the first one whether it takes the key, and closes when the run stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from flows.errors import CallError, StoppingCallError
from flows.steps.complete import RateLimits
from flows.steps.prices import Usage
from flows.steps.render import Prompt


class Place:
    """A place among the requests in flight."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    def tell(self, usage: Usage | None, limits: RateLimits | None, error: CallError | None) -> None:
        """Take note of how the request went."""
        if isinstance(error, StoppingCallError):
            self._pace.stop(error)
        else:
            self._pace.answered()


class Pace:
    """The gate of one run: `concurrency` requests in flight, `rpm` a minute at most.

    `verify` says whether the endpoint has confirmed the key. Where it can't say, the first request goes alone, so
    that a refused key costs one request and not as many as there are places.
    """

    def __init__(self, *, concurrency: int, rpm: int | None, verify: Callable[[], Awaitable[bool]]) -> None:
        self._places = asyncio.Semaphore(concurrency)
        self._interval_s = 60 / rpm if rpm else 0.0
        self._next_at = 0.0
        self._verify = verify
        self._opening = asyncio.Lock()
        self._is_open = False
        self.stopped: StoppingCallError | None = None

    def stop(self, reason: StoppingCallError) -> None:
        """Let no further request go; those who wait raise `reason`."""
        self.stopped = self.stopped or reason

    def answered(self) -> None:
        """Note that the endpoint has taken a request: the others may go."""
        self._is_open = True

    @asynccontextmanager
    async def enter(self, prompt: Prompt, max_tokens: int) -> AsyncIterator[Place]:
        """Wait for a place; raise what stopped the run if it was stopped."""
        async with self._places:
            if not self._is_open:
                async with self._opening:
                    if not self._is_open and not await self._verified():
                        yield await self._place()
                        return
            yield await self._place()

    async def _verified(self) -> bool:
        if self.stopped is None:
            try:
                self._is_open = await self._verify()
            except StoppingCallError as error:
                self.stop(error)
        return self._is_open or self.stopped is not None

    async def _place(self) -> Place:
        if self._interval_s and self.stopped is None:
            now = asyncio.get_running_loop().time()
            at = max(now, self._next_at)
            self._next_at = at + self._interval_s
            await asyncio.sleep(at - now)
        if self.stopped is not None:
            raise self.stopped
        return Place(self)
