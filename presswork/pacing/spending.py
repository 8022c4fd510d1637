"""Estimate what a request is likely to take; keep a run, the runs that it resumes and its helpers under one cost cap.

Input is counted from the rendered prompt and corrected by what answers of the same template used; output and cost are
those of the template's answers so far, in this run or, before there is one, in the ledger. Without any history the
most expensive case is assumed: the whole of max_tokens. What is spent is
known for answers, and likely for what was perhaps billed. What is in flight is reserved at its likely cost, so that all
of it together stays under the cap.
"""

import asyncio
from collections.abc import Callable
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
"""What of a cost cap the helpers may spend together; each may be wrong about the price of its last request."""

DECIMALS = Decimal("1e-10")
LEARNT = 0.1
"""The weight of a new answer in a running mean."""
LIKELY = Decimal("1.25")
"""A likely cost is a quarter more than the mean, as answers differ in length."""


@dataclass
class Estimate:
    """What requests of one template take, as far as is known; tokens are None before anything is.

    `input_tokens` are those of earlier answers: the least that a cost is estimated from, as a schema's are not counted.
    """

    input_ratio: float = 1.0
    input_tokens: float | None = None
    output_tokens: float | None = None
    cost_usd: Decimal | None = None

    def need(self, prompt: Prompt, max_tokens: int) -> Need:
        """What a request will probably take of the endpoint's limits."""
        output = float(max_tokens) if self.output_tokens is None else min(self.output_tokens, float(max_tokens))
        return Need(1.0, prompt.estimated_tokens * self.input_ratio, output)

    def likely_cost(self, prompt: Prompt, max_tokens: int) -> Decimal | None:
        """What a request will probably cost, to the ledger's decimals; None where the model's price is unknown."""
        cost = self.cost_usd
        if cost is None:
            output = max_tokens if self.output_tokens is None else round(min(self.output_tokens, max_tokens))
            counted = max(prompt.estimated_tokens, round(self.input_tokens or 0))
            # The first ones may write the prompt cache, at more than the price of input.
            writes = counted if prompt.brief.caching in {Caching.UNSURE, Caching.ON} else 0
            used = Usage(counted - writes, cache_creation_5m_tokens=writes, output_tokens=output)
            cost = cost_of(prompt.model, used, now().date())
        is_mean = self.output_tokens is not None or self.cost_usd is not None
        return None if cost is None else (cost * (LIKELY if is_mean else 1)).quantize(DECIMALS)

    def learn(self, prompt: Prompt, usage: Usage, cost: Decimal | None) -> None:
        """Take an answer's true usage into account."""
        ratio = (usage.prompt_tokens - usage.cache_read_tokens) / max(prompt.estimated_tokens, 1)
        self.input_ratio += LEARNT * (ratio - self.input_ratio)
        before = usage.output_tokens if self.output_tokens is None else self.output_tokens
        self.output_tokens = before + LEARNT * (usage.output_tokens - before)
        if cost is not None:
            self.cost_usd = cost if self.cost_usd is None else self.cost_usd + (cost - self.cost_usd) / 10


class Spending:
    """What is spent under a cap of `max_usd` US dollars, and what is reserved for requests that are under way.

    `earlier` is what linked runs had spent when this one opened, and others on this one; `helpers` what its own helpers
    have spent since.
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
        """Have those who wait look again at what fits, and at whether the run was stopped."""
        self._changed.set()

    async def reserve(
        self, model: str, likely: Callable[[], Decimal | None], stopped: Callable[[], bool]
    ) -> Decimal | None:
        """Wait until a request's likely cost fits under the cap, then reserve and return it.

        Returns None where the run was stopped meanwhile, or where there is no cap and no known price. Raises
        CostCapError where it does not fit although nothing is under way, UntoldCostError where no price is known.
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
                    raise CostCapError(self._reached(self.max_usd, wanted))
                self._changed.clear()
                await self._changed.wait()
        return None

    def release(self, likely: Decimal | None) -> None:
        """Give back what `reserve` returned: the request has ended, and `count` has been told."""
        if self.max_usd is not None and likely is not None:
            self.reserved_usd -= likely
            self.wake()

    def count(self, cost: Decimal | None, likely: Decimal | None, error: CallError | None) -> None:
        """Count a request that was sent and has ended: what it cost, or what it likely did where that is not known.

        The rule of db.readers.chains: a resumed run counts in the ledger what this one counts here.
        """
        if cost is not None:
            self.own += Spent(known_usd=cost)
        elif likely is not None and (error is None or error.kind in PERHAPS_BILLED):
            self.own += Spent(likely_usd=likely)

    def _reached(self, most: Decimal, wanted: Decimal) -> str:
        spent = self.spent
        shares = [
            (self.earlier.total_usd, "before this, by the run itself or by runs that it resumes"),
            (self.helpers.total_usd, "by its shards"),
            (spent.likely_usd, "likely, for requests whose answers were lost"),
        ]
        told = "".join(f", {_usd(amount)} of it {which}" for amount, which in shares if amount > 0)
        more = (
            "To go on, use --resume with a higher --max-cost, which is the total of all these runs."
            if self.earlier.total_usd > 0
            else "Raise --max-cost to go on."
        )
        return (
            f"The cost cap of ${most.normalize():f} is reached: {_usd(spent.total_usd)} is spent{told}. "
            f"The next request may cost {_usd(wanted)}. {more}"
        )


def share_of_cap(
    max_cost: float, *, spent: Spent, by_helpers: Spent, by_earlier: Spent, helpers: int, waiting: int
) -> float:
    """Return what one of a run's `helpers` may spend when it is started, in US dollars; 0 or less: nothing is left.

    `spent` is what all linked runs have spent and all who worked on this one, `by_helpers` what its helpers have of it,
    and `by_earlier` what the same helper has that crashed; `waiting` counts the helpers that have not ended.
    """
    before = float(spent.total_usd) - float(by_helpers.total_usd)
    share = (max_cost - before) * OF_THE_CAP / helpers - float(by_earlier.total_usd)
    return min(share, (max_cost - float(spent.total_usd)) / waiting)


def _usd(amount: Decimal) -> str:
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:,.4f}"
