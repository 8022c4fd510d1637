"""Pace: one gate a run, which decides when a request may be sent.

It holds the number in flight below the concurrency and the cost below the cap (spending.py), asks the endpoint before
the first request whether it takes the key, passes each request through the process's limiter, and closes when the run
stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from decimal import Decimal

from db.ledger.clock import now
from flows.engine.pacing.alike import Alike
from flows.engine.pacing.estimates import Estimate
from flows.engine.pacing.limiter import Admission, Limiter
from flows.engine.pacing.spending import Spending
from flows.engine.pacing.warming import Warming
from flows.errors import CallError, CostCapError, EndpointError, StoppingCallError, UntoldCostError, copy_of
from flows.steps.claude.client import RateLimits
from flows.steps.prices import Usage, cost_of
from flows.steps.prompts.render import Prompt


class Place:
    """A place among the requests in flight; `likely` is what the request will probably cost."""

    def __init__(self, pace: Pace, prompt: Prompt, admission: Admission, likely: Decimal | None) -> None:
        self._pace = pace
        self._prompt = prompt
        self._admission: Admission | None = admission
        self._likely = likely

    def tell(
        self, usage: Usage | None, limits: RateLimits | None, error: CallError | None, *, model: str | None = None
    ) -> None:
        """Take note of how the request went: an answer, which may tell no usage, or an error.

        `model` is the one that answered, where it is told: its price is what counts under the cap.
        """
        if self._admission is not None:
            self._pace.hear(self._prompt, usage, error)
        self._end(usage, limits, error, answered=error is None, model=model)

    def leave(self) -> None:
        """Give the place back, also where the request was cut off and told nothing."""
        self._end(None, None, None, answered=False)

    def _end(
        self,
        usage: Usage | None,
        limits: RateLimits | None,
        error: CallError | None,
        *,
        answered: bool,
        model: str | None = None,
    ) -> None:
        if self._admission is None:
            return
        admission, self._admission = self._admission, None
        self._pace.settle(self._prompt, admission, self._likely, usage, limits, error, answered=answered, model=model)


class Pace:
    """The gate of one run: `concurrency` requests in flight, under the cost cap of `spending`.

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
        self.warming = Warming(concurrency)
        self._limiter = limiter
        self._verify = verify
        self.spending = Spending(max_cost)
        self._ahead = _room_ahead(concurrency)
        self._estimates: dict[str, Estimate] = {}
        self._opening = asyncio.Lock()
        self._is_open = False
        self.in_flight = 0
        self.stopped: StoppingCallError | None = None
        self.alike = Alike()

    def stop(self, reason: StoppingCallError) -> None:
        """Let no further request go; those who wait raise `reason`."""
        self.stopped = self.stopped or reason
        self.spending.wake()
        self.warming.release()
        self.alike.end()

    def know(self, step: str, estimate: Estimate) -> None:
        """Take over what the ledger knows of a template's answers."""
        self._estimates.setdefault(step, estimate)

    async def reaches_endpoint(self) -> bool:
        """Have the endpoint confirm the key, as before a first request; False where the run has stopped."""
        if not self._is_open:
            async with self._opening:
                if not self._is_open:
                    await self._verified()
        return self.stopped is None

    @asynccontextmanager
    async def reserve(self, prompt: Prompt, max_tokens: int) -> AsyncIterator[Decimal | None]:
        """Keep a request's likely cost free under the cap while the context is open, waiting until it fits."""
        # Those that wait for the trial's end may hold all the room that it would wait for.
        ahead = nullcontext() if self.alike.tries(prompt) else self._ahead
        # Who waits for the prompt cache holds nothing.
        async with self.warming.turn(prompt.brief), ahead:
            likely = await self._reserved(prompt, max_tokens)
            try:
                yield likely
            finally:
                self.spending.release(likely)

    async def _reserved(self, prompt: Prompt, max_tokens: int) -> Decimal | None:
        likely: Decimal | None = None
        if self.stopped is None:
            try:
                likely = await self.spending.reserve(
                    prompt.model,
                    lambda: self._estimate(prompt).likely_cost(prompt, max_tokens),
                    lambda: self.stopped is not None,
                )
            except (CostCapError, UntoldCostError) as reached:
                self.stop(reached)
        if self.stopped is not None:
            self.spending.release(likely)
            raise copy_of(self.stopped)
        return likely

    @asynccontextmanager
    async def enter(self, prompt: Prompt, max_tokens: int, likely: Decimal | None) -> AsyncIterator[Place]:
        """Wait for a place; raise what stopped the run if it was stopped."""
        async with self.alike.place(prompt, lambda: self._places):
            if not self._is_open:
                async with self._opening:
                    if not self._is_open and not await self._verified():
                        async with self._place(prompt, max_tokens, likely) as place:
                            yield place
                        return
            async with self._place(prompt, max_tokens, likely) as place:
                yield place

    @asynccontextmanager
    async def _place(self, prompt: Prompt, max_tokens: int, likely: Decimal | None) -> AsyncIterator[Place]:
        need = self._estimate(prompt).need(prompt, max_tokens)
        admission = await self._limiter.admit(need, lambda: self.stopped is not None)
        if self.stopped is not None:
            self._limiter.settle(admission, None, None, None)
            raise copy_of(self.stopped)
        place = Place(self, prompt, admission, likely)
        self.in_flight += 1
        try:
            yield place
        finally:
            self.in_flight -= 1
            place.leave()

    def hear(self, prompt: Prompt, usage: Usage | None, error: CallError | None) -> None:
        """Take note of what a request says of all the others: it is refused as they are, or its cost can't be known."""
        reason = self.alike.tell(prompt, error)
        if error is None:
            self._is_open = True
            if usage is None and self.spending.max_usd is not None:
                reason = UntoldCostError()
        if reason is not None:
            self.stop(reason)

    def settle(
        self,
        prompt: Prompt,
        admission: Admission,
        likely: Decimal | None,
        usage: Usage | None,
        limits: RateLimits | None,
        error: CallError | None,
        *,
        answered: bool = False,
        model: str | None = None,
    ) -> None:
        """Take note of how a request went; `model` is the one that answered, where it is told."""
        # An answer that does not tell what it used has used what was expected, as far as the limits go.
        expected = admission.need.as_usage() if answered and usage is None else None
        self._limiter.settle(admission, usage or expected, limits, error)
        if answered or error is not None:
            self.warming.tell(prompt.brief, usage, error, admission.sent_at)
        if isinstance(error, StoppingCallError):
            self.stop(error)
        elif usage is not None or error is not None:
            self._is_open = True
        cost = cost_of(model or prompt.model, usage, now().date()) if usage is not None else None
        self.spending.count(cost, likely, error)
        if usage is not None:
            self._estimate(prompt).learn(prompt, usage, cost)

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


def _room_ahead(concurrency: int) -> asyncio.Semaphore:
    """How many requests may be written ahead: those in flight, and a few that are being committed.

    Any more would only wait, and after a crash all that was written ahead counts as perhaps billed.
    """
    return asyncio.Semaphore(concurrency + max(2, concurrency // 4))
