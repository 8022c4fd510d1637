"""Pace: one gate a run, which decides when a request may be sent.

It holds the number in flight below the concurrency and the cost below the cap, asks the endpoint before the first
request whether it takes the key, passes each request through the process's limiter, and closes when the run stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal

from db.models import now
from flows.engine.alike import Alike
from flows.engine.estimates import Estimate
from flows.engine.limiter import Admission, Limiter
from flows.errors import CallError, CostCapError, EndpointError, StoppingCallError, UntoldCostError, anew
from flows.steps.complete import RateLimits
from flows.steps.prices import Usage, cost_of
from flows.steps.render import Prompt


class Place:
    """A place among the requests in flight; `likely` is the cost that is reckoned with until it is known."""

    def __init__(self, pace: Pace, prompt: Prompt, admission: Admission, likely: Decimal) -> None:
        self._pace = pace
        self._prompt = prompt
        self._admission: Admission | None = admission
        self.likely = likely

    def tell(self, usage: Usage | None, limits: RateLimits | None, error: CallError | None) -> None:
        """Take note of how the request went: an answer, which may tell no usage, or an error."""
        if self._admission is not None:
            self._pace.hear(self._prompt, usage, error)
        self._end(usage, limits, error, answered=error is None)

    def leave(self) -> None:
        """Give the place back, also where the request was cut off and told nothing."""
        self._end(None, None, None, answered=False)

    def _end(self, usage: Usage | None, limits: RateLimits | None, error: CallError | None, *, answered: bool) -> None:
        if self._admission is None:
            return
        admission, self._admission = self._admission, None
        self._pace.settle(self._prompt, admission, usage, limits, error, answered=answered)


class Pace:
    """The gate of one run: `concurrency` requests in flight, at most `max_cost` US dollars.

    `verify` says whether the endpoint has confirmed the key. Where it can't say, the first request goes alone, so
    that a refused key costs one request and not as many as there are places.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        limiter: Limiter,
        verify: Callable[[], Awaitable[bool]],
        max_cost: Decimal | None = None,
    ) -> None:
        self._places = asyncio.Semaphore(concurrency)
        self._limiter = limiter
        self._verify = verify
        self._max_cost = max_cost
        self._estimates: dict[str, Estimate] = {}
        self._opening = asyncio.Lock()
        self._is_open = False
        self._budget = asyncio.Lock()
        self._settled_cost = asyncio.Event()
        self.in_flight = 0
        self.spent_usd = Decimal(0)
        self.reserved_usd = Decimal(0)
        self.stopped: StoppingCallError | None = None
        self.alike = Alike()

    def stop(self, reason: StoppingCallError) -> None:
        """Let no further request go; those who wait raise `reason`."""
        self.stopped = self.stopped or reason
        self._settled_cost.set()
        self.alike.end()

    def know(self, step: str, estimate: Estimate) -> None:
        """Take over what the ledger knows of a template's answers."""
        self._estimates.setdefault(step, estimate)

    @asynccontextmanager
    async def enter(self, prompt: Prompt, max_tokens: int) -> AsyncIterator[Place]:
        """Wait for a place; raise what stopped the run if it was stopped."""
        async with self.alike.place(prompt, lambda: self._places):
            if not self._is_open:
                async with self._opening:
                    if not self._is_open and not await self._verified():
                        async with self._place(prompt, max_tokens) as place:
                            yield place
                        return
            async with self._place(prompt, max_tokens) as place:
                yield place

    @asynccontextmanager
    async def _place(self, prompt: Prompt, max_tokens: int) -> AsyncIterator[Place]:
        likely = await self._reserve(prompt, max_tokens)
        try:
            need = self._estimate(prompt).need(prompt, max_tokens)
            admission = await self._limiter.admit(need, lambda: self.stopped is not None)
            place = Place(self, prompt, admission, likely)
            self.in_flight += 1
            try:
                if self.stopped is not None:
                    raise anew(self.stopped)
                yield place
            finally:
                self.in_flight -= 1
                place.leave()
        finally:
            self.reserved_usd -= likely
            self._settled_cost.set()

    def hear(self, prompt: Prompt, usage: Usage | None, error: CallError | None) -> None:
        """Take note of what a request says of all the others: it is refused as they are, or its cost can't be known."""
        reason = self.alike.tell(prompt, error)
        if error is None:
            self._is_open = True
            if usage is None and self._max_cost is not None:
                reason = UntoldCostError()
        if reason is not None:
            self.stop(reason)

    def settle(
        self,
        prompt: Prompt,
        admission: Admission,
        usage: Usage | None,
        limits: RateLimits | None,
        error: CallError | None,
        *,
        answered: bool = False,
    ) -> None:
        """Take note of how a request went."""
        # An answer that does not tell what it used has used what was expected, as far as the limits go.
        expected = admission.need.as_usage() if answered and usage is None else None
        self._limiter.settle(admission, usage or expected, limits, error)
        if isinstance(error, StoppingCallError):
            self.stop(error)
        elif usage is not None or error is not None:
            self._is_open = True
        if usage is not None:
            day = now().date()
            cost = cost_of(prompt.model, usage, day)
            if cost is None:
                # A service tier without a price list: the cap reckons with the ordinary price.
                self.spent_usd += cost_of(prompt.model, replace(usage, service_tier=None), day) or 0
            else:
                self.spent_usd += cost
            self._estimate(prompt).learn(prompt, usage, cost)

    async def _reserve(self, prompt: Prompt, max_tokens: int) -> Decimal:
        """Keep a request's likely cost free under the cap, waiting for those in flight to tell theirs."""
        if self._max_cost is None:
            return Decimal(0)
        async with self._budget:
            while self.stopped is None:
                likely = self._estimate(prompt).likely_cost(prompt, max_tokens)
                if likely is None:
                    self.stop(
                        CostCapError(f"The price of {prompt.model} is not known, so that no cost cap can be kept.")
                    )
                    break
                if self.spent_usd + self.reserved_usd + likely <= self._max_cost:
                    self.reserved_usd += likely
                    return likely
                if self.reserved_usd <= 0:
                    self.stop(
                        CostCapError(
                            f"The cost cap of ${self._max_cost} is reached: ${self.spent_usd:.4f} is spent, and the "
                            f"next request may cost ${likely:.4f}. Raise --max-cost to go on."
                        )
                    )
                    break
                self._settled_cost.clear()
                await self._settled_cost.wait()
        assert self.stopped is not None
        raise anew(self.stopped)

    async def _verified(self) -> bool:
        if self.stopped is None:
            try:
                self._is_open = await self._verify()
            except StoppingCallError as error:
                self.stop(error)
            except EndpointError as error:
                # Each of the others would try to reach it in turn, and wait as long.
                self.stop(StoppingCallError(str(error), kind="connect"))
        return self._is_open or self.stopped is not None

    def _estimate(self, prompt: Prompt) -> Estimate:
        return self._estimates.setdefault(prompt.brief.template.name, Estimate())
