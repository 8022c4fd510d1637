"""Keep a run, the runs that it resumes and its shards under one cost cap.

What is spent is known for answers, and likely for what was perhaps billed. What is in flight is reserved at its likely
cost, so that all of it together stays under the cap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal

from db.readers.chains import Spent
from db.words import PERHAPS_BILLED
from flows.errors import CallError, CostCapError, UntoldCostError

OF_THE_CAP = 0.9
"""What of a cost cap the shards may spend together; each may be wrong about the price of its last request."""


class Spending:
    """What is spent under a cap of `max_usd` US dollars, and what is reserved for requests that are under way.

    `earlier` is what linked runs had spent when this one opened, `shards` what its own shards have spent since.
    """

    def __init__(self, max_usd: Decimal | None) -> None:
        self.max_usd = max_usd
        self.earlier = Spent()
        self.shards = Spent()
        self.own = Spent()
        self.reserved_usd = Decimal(0)
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def spent(self) -> Spent:
        """All that counts under the cap."""
        return self.earlier + self.shards + self.own

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
            (self.earlier.total_usd, "by earlier runs that this one resumes"),
            (self.shards.total_usd, "by its shards"),
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
    max_cost: float, *, spent: Spent, by_shards: Spent, by_attempts: Spent, parts: int, waiting: int
) -> float:
    """Return what the next attempt at one of a run's `parts` may spend, in US dollars; 0 or less: nothing is left.

    `spent` is what all linked runs have spent, `by_shards` what the shards of the run's own flow run have spent of it,
    and `by_attempts` what the earlier attempts at this part have; `waiting` counts the parts that have not ended.
    """
    # Earlier runs of the same flow run had the same shards, and what a shard spent counts for its own part.
    before = float(spent.total_usd) - float(by_shards.total_usd)
    share = (max_cost - before) * OF_THE_CAP / parts - float(by_attempts.total_usd)
    return min(share, (max_cost - float(spent.total_usd)) / waiting)


def _usd(amount: Decimal) -> str:
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:,.4f}"
