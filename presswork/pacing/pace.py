"""Decide when a request of a run may be sent: one gate for each run.

It holds the number in flight below the concurrency and the cost below the cap (spending.py), asks the endpoint before
the first request whether it takes the key, passes each request through the process's limiter, and closes when the run
stops.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from decimal import Decimal

from db.clock import now
from db.readers.chains import Spent
from db.words import CONNECT
from presswork.claude.rate_limits import RateLimits
from presswork.errors import CallError, CostCapError, EndpointError, StoppingCallError, UntoldCostError, copy_of
from presswork.pacing.breaker import Breaker
from presswork.pacing.limiter import Admission, Limiter
from presswork.pacing.spending import Estimate, Spending
from presswork.pacing.warming import Warming
from presswork.prices import Usage, cost_of
from presswork.prompts.render import Prompt


@dataclass
class Place:
    """A place among the requests in flight; `likely` is what the request will probably cost."""

    pace: "Pace"
    prompt: Prompt
    admission: Admission
    likely: Decimal | None
    is_settled: bool = False

    def tell(
        self, usage: Usage | None, limits: RateLimits | None, error: CallError | None, *, model: str | None = None
    ) -> None:
        """Take note of how the request went, and of what it says of all the others.

        It brought an answer, which may tell no usage, or an error. `model` is the one that answered, where it is told:
        its price is what counts under the cap.
        """
        if self.is_settled:
            return
        self.is_settled = True
        pace, prompt, admission = self.pace, self.prompt, self.admission
        reason = pace.breaker(_step_of(prompt)).record(prompt.hash, error)
        if isinstance(error, StoppingCallError):
            reason = error
        elif error is None and usage is None and pace.spending.max_usd is not None:
            reason = UntoldCostError()
        else:
            pace.is_open = True
        if reason is not None:
            pace.stop(reason)
        used = usage
        if usage is None and error is None:
            # As far as the limits go, an answer that does not tell what it used has used what was expected.
            used = Usage(round(admission.need.input_tokens), output_tokens=round(admission.need.output_tokens))
        pace.limiter.settle(admission, used, limits, error)
        pace.warming.record(prompt.brief, usage, error, admission.sent_at)
        cost = cost_of(model or prompt.model, usage, now().date()) if usage is not None else None
        pace.spending.count(cost, self.likely, error)
        if usage is not None:
            pace.estimates[_step_of(prompt)].learn(prompt, usage, cost)


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
        earlier: Spent | None = None,
    ) -> None:
        self._places = asyncio.Semaphore(concurrency)
        # Those in flight, and a few that are being committed. Any more would only wait, and after a crash all that was
        # written ahead counts as perhaps billed.
        self._ahead = asyncio.Semaphore(concurrency + max(2, concurrency // 4))
        self.warming = Warming(concurrency)
        self.limiter = limiter
        self._verify = verify
        self.spending = Spending(max_cost, earlier)
        # By template: what the ledger knows of its answers, and what these answers told.
        self.estimates: defaultdict[str, Estimate] = defaultdict(Estimate)
        self._breakers: dict[str, Breaker] = {}
        self._opening = asyncio.Lock()
        self.is_open = False
        self.stopped: StoppingCallError | None = None

    def stop(self, reason: StoppingCallError) -> None:
        """Let no further request go; those who wait raise `reason`."""
        self.stopped = self.stopped or reason
        self.spending.wake()
        self.warming.release()
        for breaker in self._breakers.values():
            breaker.release()

    def breaker(self, step: str) -> Breaker:
        """Return what stops the run where the endpoint refuses a template's requests all alike."""
        if step not in self._breakers:
            self._breakers[step] = Breaker(step)
        return self._breakers[step]

    async def reaches_endpoint(self) -> bool:
        """Have the endpoint confirm the key, as before a first request; False where the run has stopped."""
        async with self._confirmed():
            return self.stopped is None

    @asynccontextmanager
    async def reserve(self, prompt: Prompt, max_tokens: int) -> AsyncIterator[Decimal | None]:
        """Keep a request's likely cost free under the cap while the context is open, waiting until it fits."""
        # Those that wait for the probe's end may hold all the room that it would wait for.
        is_probe = self.breaker(_step_of(prompt)).is_probe(prompt.hash)
        # Who waits for the prompt cache holds nothing.
        async with self.warming.turn(prompt.brief), nullcontext() if is_probe else self._ahead:
            likely: Decimal | None = None
            try:
                likely = await self.spending.reserve(
                    prompt.model,
                    lambda: self.estimates[_step_of(prompt)].likely_cost(prompt, max_tokens),
                    lambda: self.stopped is not None,
                )
            except (CostCapError, UntoldCostError) as reached:
                self.stop(reached)
            try:
                if self.stopped is not None:
                    raise copy_of(self.stopped)
                yield likely
            finally:
                self.spending.release(likely)

    @asynccontextmanager
    async def enter(self, prompt: Prompt, max_tokens: int, likely: Decimal | None) -> AsyncIterator[Place]:
        """Wait for a place; raise what stopped the run if it was stopped."""
        step = _step_of(prompt)
        async with self.breaker(step).place(prompt.hash, lambda: self._places), self._confirmed():
            need = self.estimates[step].need(prompt, max_tokens)
            admission = await self.limiter.admit(need, lambda: self.stopped is not None)
            if self.stopped is not None:
                self.limiter.settle(admission, None, None, None)
                raise copy_of(self.stopped)
            place = Place(self, prompt, admission, likely)
            try:
                yield place
            finally:
                if not place.is_settled:
                    # It was cut off, and nobody knows what became of it.
                    self.limiter.settle(admission, None, None, None)
                    self.spending.count(None, likely, None)

    @asynccontextmanager
    async def _confirmed(self) -> AsyncIterator[None]:
        """Have the endpoint confirm the key; where it can't say, hold the others back while one request is made."""
        if not self.is_open:
            async with self._opening:
                if not self.is_open and not await self._verified():
                    yield
                    return
        yield

    async def _verified(self) -> bool:
        if self.stopped is None:
            try:
                self.is_open = await self._verify()
            except StoppingCallError as error:
                self.stop(error)
            except EndpointError as error:
                # Each of the others would try to reach it in turn, and wait as long.
                self.stop(StoppingCallError(str(error), kind=CONNECT))
        return self.is_open or self.stopped is not None


def _step_of(prompt: Prompt) -> str:
    return prompt.brief.template.name
