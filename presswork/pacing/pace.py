"""Decide when a request of a run may be sent: each run has one gate.

The gate keeps the requests in flight below the concurrency and the cost below the cap (spending.py). Before the first
request it checks that the endpoint accepts the key. It passes each request through the process's limiter, and closes
when the run stops.
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
from presswork.pacing.spending import Answers, Estimate, Spending
from presswork.pacing.warming import Warming
from presswork.prices import Usage, cost_of
from presswork.prompts.render import Prompt


@dataclass
class Place:
    """A place among the requests in flight; `likely` is the estimated cost of the request."""

    pace: "Pace"
    prompt: Prompt
    admission: Admission
    likely: Decimal | None
    is_settled: bool = False

    def tell(
        self, usage: Usage | None, limits: RateLimits | None, error: CallError | None, *, model: str | None = None
    ) -> None:
        """Record how the request ended, and what that means for the run's other requests.

        It ended with an answer, which may lack its usage, or with an error. `model` is the one that answered, if known:
        the cap counts its price.
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
            # An answer without usage counts against the limits as expected.
            used = Usage(round(admission.need.input_tokens), output_tokens=round(admission.need.output_tokens))
        pace.limiter.settle(admission, used, limits, error)
        pace.warming.record(prompt.brief, usage, error, admission.sent_at)
        cost = cost_of(model or prompt.model, usage, now().date()) if usage is not None else None
        pace.spending.count(cost, self.likely, error)
        if usage is not None:
            highest = Answers(model, 1, usage, cost).highest(prompt.model)
            pace.estimates[_step_of(prompt)].learn(prompt, usage, highest)


class Pace:
    """The gate of one run: at most `concurrency` requests in flight, under the cost cap of `spending`.

    `verify` returns whether the endpoint has confirmed the key. If it can't confirm, the first request goes alone, so
    that a rejected key costs one request instead of one for each place.
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
        # The requests in flight, and a few that are being committed. More would only wait, and after a crash every
        # attempt that was written ahead counts as perhaps billed.
        self._ahead = asyncio.Semaphore(concurrency + max(2, concurrency // 4))
        self.warming = Warming(concurrency)
        self.limiter = limiter
        self._verify = verify
        self.spending = Spending(max_cost, earlier)
        # By template: from the answers in the ledger, corrected by those of this run.
        self.estimates: defaultdict[str, Estimate] = defaultdict(Estimate)
        self._breakers: dict[str, Breaker] = {}
        self._opening = asyncio.Lock()
        self.is_open = False
        self.stopped: StoppingCallError | None = None

    def stop(self, reason: StoppingCallError) -> None:
        """Send no further request; those that wait raise `reason`."""
        self.stopped = self.stopped or reason
        self.spending.wake()
        self.warming.release()
        for breaker in self._breakers.values():
            breaker.release()

    def breaker(self, step: str) -> Breaker:
        """Return the breaker of a template, which stops the run if the endpoint rejects all its requests alike."""
        if step not in self._breakers:
            self._breakers[step] = Breaker(step)
        return self._breakers[step]

    async def reaches_endpoint(self) -> bool:
        """Have the endpoint confirm the key, as before a first request; False if the run has stopped."""
        async with self._confirmed():
            return self.stopped is None

    @asynccontextmanager
    async def reserve(self, prompt: Prompt, max_tokens: int, added_tokens: int = 0) -> AsyncIterator[Decimal | None]:
        """Reserve a request's likely cost under the cap while the context is open; wait until it fits."""
        # The requests that wait for the probe may hold all the room that the probe needs.
        is_probe = self.breaker(_step_of(prompt)).is_probe(prompt.hash)
        # A request that waits for the prompt cache holds nothing else.
        async with self.warming.turn(prompt.brief), nullcontext() if is_probe else self._ahead:
            likely: Decimal | None = None
            try:
                likely = await self.spending.reserve(
                    prompt.model,
                    lambda: self.estimates[_step_of(prompt)].likely_cost(prompt, max_tokens, added_tokens),
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
        """Wait for a place; if the run was stopped, raise the reason."""
        step = _step_of(prompt)
        confirmed = nullcontext() if self.is_open else self._confirmed()
        async with self.breaker(step).place(prompt.hash, lambda: self._places), confirmed:
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
                    # It was interrupted: it is unknown whether it was answered.
                    self.limiter.settle(admission, None, None, None)
                    self.spending.count(None, likely, None)

    @asynccontextmanager
    async def _confirmed(self) -> AsyncIterator[None]:
        """Have the endpoint confirm the key; if it can't, hold the other requests back while one is made."""
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
                # Otherwise each of the others would try to reach it in turn, and wait as long.
                self.stop(StoppingCallError(str(error), kind=CONNECT))
        return self.is_open or self.stopped is not None


def _step_of(prompt: Prompt) -> str:
    return prompt.brief.template.name
