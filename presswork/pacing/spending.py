"""Estimate what a request will use, and keep a run, the runs that it resumes and its helpers under one cost cap.

Input tokens are counted from the rendered prompt and corrected by earlier answers of the template. Output and cost come
from the template's answers so far: those of this run, or before its first one those in the ledger. Without any history
the most expensive case is assumed, the whole of max_tokens. The cost of an answer is known. A request that was perhaps
billed counts at its likely cost. The likely cost of requests in flight is reserved, so that all of it together stays
under the cap.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from db.clock import now
from db.readers.chains import Spent
from db.words import PERHAPS_BILLED
from presswork.errors import CallError, CostCapError, UntoldCostError
from presswork.pacing.buckets import Need
from presswork.prices import Usage, cost_of
from presswork.prompts.render import Caching, Prompt

OF_THE_CAP = 0.9
"""The share of a cost cap that the helpers may spend together, as each may misjudge the price of its last request."""
DECIMALS = Decimal("1e-10")
LEARNT = 0.1
"""The weight of a new answer in a running mean."""
LIKELY = Decimal("1.25")
"""A likely cost is a quarter more than the mean, as answers differ in length."""


@dataclass
class Estimate:
    """What requests of one template use; tokens are None until an answer, of this run or in the ledger, tells them.

    `input_tokens` is the mean of earlier answers. It is a lower bound for cost estimates, as a schema is not counted.
    """

    input_ratio: float = 1.0
    input_tokens: float | None = None
    output_tokens: float | None = None
    cost_usd: Decimal | None = None

    def need(self, prompt: Prompt, max_tokens: int) -> Need:
        """What a request will probably use of the endpoint's limits."""
        output = float(max_tokens) if self.output_tokens is None else min(self.output_tokens, float(max_tokens))
        return Need(1.0, prompt.estimated_tokens * self.input_ratio, output)

    def likely_cost(self, prompt: Prompt, max_tokens: int, added_tokens: int = 0) -> Decimal | None:
        """What a request will probably cost, to the ledger's decimals; None if the model's price is unknown.

        A repair sends `added_tokens` more: the answer that can't be used, and why.
        """
        cost = self.cost_usd
        if cost is None:
            output = max_tokens if self.output_tokens is None else round(min(self.output_tokens, max_tokens))
            counted = max(prompt.estimated_tokens, round(self.input_tokens or 0))
            # The first requests may write the prompt cache, which costs more than input.
            writes = counted if prompt.brief.caching in {Caching.UNSURE, Caching.ON} else 0
            used = Usage(counted - writes, cache_creation_5m_tokens=writes, output_tokens=output)
            cost = cost_of(prompt.model, used, now().date())
        more = cost_of(prompt.model, Usage(added_tokens), now().date()) if added_tokens else None
        cost = cost + more if cost is not None and more is not None else cost
        is_mean = self.output_tokens is not None or self.cost_usd is not None
        return None if cost is None else (cost * (LIKELY if is_mean else 1)).quantize(DECIMALS)

    def learn(self, prompt: Prompt, usage: Usage, cost: Decimal | None) -> None:
        """Correct the estimate by an answer's true usage."""
        ratio = (usage.prompt_tokens - usage.cache_read_tokens) / max(prompt.estimated_tokens, 1)
        self.input_ratio += LEARNT * (ratio - self.input_ratio)
        before = usage.output_tokens if self.output_tokens is None else self.output_tokens
        self.output_tokens = before + LEARNT * (usage.output_tokens - before)
        if cost is not None:
            self.cost_usd = cost if self.cost_usd is None else self.cost_usd + (cost - self.cost_usd) / 10


@dataclass(frozen=True, slots=True)
class Answers:
    """What one or several answers of one model used and cost; the cost is None if its price is unknown."""

    model: str | None
    count: int
    usage: Usage
    cost_usd: Decimal | None

    def highest(self, asked: str) -> Decimal | None:
        """Return what their tokens cost at the requested model's price, or at that of the model that answered.

        It is the higher one, because nobody knows which of them will answer the next request.
        """
        if self.model is None or self.model == asked:
            return self.cost_usd
        length = self.usage.prompt_tokens // max(self.count, 1)
        at_price_of_asked = cost_of(asked, self.usage, now().date(), prompt_tokens=length)
        return max((each for each in (self.cost_usd, at_price_of_asked) if each is not None), default=None)


def mean_of(answers: Sequence[Answers], asked: str) -> Estimate:
    """Estimate the next request of a model from answers that there are; they may be those of several models."""
    count = sum(each.count for each in answers)
    costs = [each.highest(asked) for each in answers]
    known = [cost for cost in costs if cost is not None]
    return Estimate(
        input_tokens=sum(each.usage.prompt_tokens for each in answers) / count,
        output_tokens=sum(each.usage.output_tokens for each in answers) / count,
        cost_usd=sum(known, Decimal(0)) / count if len(known) == len(costs) else None,
    )


class Spending:
    """What is spent under a cap of `max_usd` US dollars, and what is reserved for requests in flight.

    `earlier` is what linked runs, and other processes on this run, had spent when it opened; `helpers` is what its own
    helpers have spent since.
    """

    def __init__(self, max_usd: Decimal | None, earlier: Spent | None = None) -> None:
        self.max_usd = max_usd
        self.earlier = earlier or Spent()
        self.helpers = Spent()
        self.own = Spent()
        self.reserved_usd = Decimal(0)
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def spent(self) -> Spent:
        """All that counts under the cap."""
        return self.earlier + self.helpers + self.own

    def wake(self) -> None:
        """Wake waiting requests: more may fit now, or the run was stopped."""
        self._changed.set()

    async def reserve(
        self, model: str, likely: Callable[[], Decimal | None], stopped: Callable[[], bool]
    ) -> Decimal | None:
        """Wait until a request's likely cost fits under the cap, then reserve and return it.

        Returns None if the run was stopped meanwhile, or if there is no cap and no known price. Raises CostCapError if
        it does not fit although no request is in flight, UntoldCostError if no price is known.
        """
        if self.max_usd is None:
            return likely()
        async with self._turn:
            while not stopped():
                wanted = likely()
                if wanted is None:
                    raise UntoldCostError(
                        f"The cost cap can't be kept: no price of {model} is known. Run again without --max-cost (or "
                        "PRESSWORK_MAX_COST), or name a model with a known price in the template."
                    )
                if self.spent.total_usd + self.reserved_usd + wanted <= self.max_usd:
                    self.reserved_usd += wanted
                    return wanted
                if self.reserved_usd <= 0:
                    raise CostCapError(self._reached(self.max_usd, wanted), next_usd=wanted)
                self._changed.clear()
                await self._changed.wait()
        return None

    def release(self, likely: Decimal | None) -> None:
        """Release what `reserve` returned, once the request has ended and `count` was called."""
        if self.max_usd is not None and likely is not None:
            self.reserved_usd -= likely
            self.wake()

    def count(self, cost: Decimal | None, likely: Decimal | None, error: CallError | None) -> None:
        """Count a request that was sent and has ended: its cost, or its likely cost if that is unknown.

        This is the rule of db.readers.chains: a resumed run reads from the ledger what this one counts here.
        """
        if cost is not None:
            self.own += Spent(known_usd=cost)
        elif likely is not None and (error is None or error.kind in PERHAPS_BILLED):
            self.own += Spent(likely_usd=likely)

    def _reached(self, most: Decimal, wanted: Decimal) -> str:
        spent = self.spent
        shares = [
            (self.earlier.total_usd, "earlier, by this run or by runs that it resumes"),
            (self.helpers.total_usd, "by its shards"),
            (spent.likely_usd, "likely, for requests whose answers were lost"),
        ]
        parts = "".join(f", {_usd(amount)} of it {which}" for amount, which in shares if amount > 0)
        more = (
            "To resume, use --resume with a higher --max-cost. It is the total of all these runs."
            if self.earlier.total_usd > 0
            else "Raise --max-cost, then run again."
        )
        return (
            f"The cost cap of ${most.normalize():f} is reached: {_usd(spent.total_usd)} is spent{parts}. "
            f"The next request may cost {_usd(wanted)}. {more}"
        )


def share_of_cap(
    max_cost: float, *, spent: Spent, by_helpers: Spent, by_earlier: Spent, helpers: int, waiting: int
) -> float:
    """Return the US dollars that one of a run's `helpers` may spend when it starts; 0 or less means nothing is left.

    - `spent`: by all linked runs and all processes on this run.
    - `by_helpers`: the part of `spent` that the run's helpers have spent.
    - `by_earlier`: the part that this helper has spent before it crashed.
    - `waiting`: the number of helpers that have not ended.
    """
    before = float(spent.total_usd) - float(by_helpers.total_usd)
    share = (max_cost - before) * OF_THE_CAP / helpers - float(by_earlier.total_usd)
    return min(share, (max_cost - float(spent.total_usd)) / waiting)


def _usd(amount: Decimal) -> str:
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:,.4f}"
