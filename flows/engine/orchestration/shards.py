"""The shards of a run: its host starts them, and the run takes over what they spent and what they found out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from db.sources.statements import Query
from flows.engine.options import RunOptions
from flows.engine.orchestration.host import Host, ShardedRun
from flows.engine.pacing.estimates import Estimate
from flows.engine.pacing.pace import Pace
from flows.engine.resources.run_ledger import RunLedger
from flows.engine.resources.stopping import Stopper
from flows.settings import Settings


class Shards:
    """Spreads one run, once: `options.shards` says over how many. `verify` has the endpoint confirm the key."""

    def __init__(
        self,
        host: Host,
        settings: Settings,
        options: RunOptions,
        *,
        ledger: RunLedger,
        pace: Pace,
        stopper: Stopper,
        verify: Callable[[], Awaitable[bool]],
    ) -> None:
        self._host = host
        self._settings = settings
        self._options = options
        self._ledger = ledger
        self._pace = pace
        self._stopper = stopper
        self._verify = verify
        self.wanted = (options.shards or 1) > 1

    async def spread(self, step: str, query: Query, *, nth: int, records: int) -> None:
        """Have shards do a step, and return when they have ended or stand still."""
        self.wanted = False
        await self._verify()
        await self._host.spread(
            ShardedRun(
                id=self._ledger.run_id,
                settings=self._settings,
                options=self._options,
                ledger=self._ledger.engine,
                stopper=self._stopper,
                max_cost=self._options.max_cost or self._settings.max_cost,
                query=query,
                nth=nth,
                records=records,
            )
        )
        await self._ledger.find_shards()
        # The cap is the job's: what the shards spent is no longer there to be spent here.
        spending = self._pace.spending
        spending.shards = await self._ledger.spent() - spending.earlier
        known = await self._ledger.used(step)
        if known.requests and known.cost_usd:
            # Of what is left of a cap, a guess from one answer could spend too much.
            each = Estimate(
                output_tokens=known.output_tokens / known.requests, cost_usd=known.cost_usd / known.requests
            )
            self._pace.know(step, each)
