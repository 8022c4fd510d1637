"""The journal: one item's attempts, written ahead of each request and settled after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from db.ledger.clock import now
from db.words import NOT_SENT, REFUSED_BY_LEDGER, UNSENT
from flows.engine.generations import add_prompt, opened_row, settled_row
from flows.engine.plan import Item
from flows.engine.resources.lease import ClaimLostError
from flows.engine.resources.stopping import Pursuit
from flows.errors import FinalCallError, LedgerAwayError, StoppedError
from flows.steps.answers.pursuing import Opened, Settled
from flows.steps.claude.answers import Answer

if TYPE_CHECKING:
    from flows.engine.run import Run


class ItemJournal:
    """Keeps the attempts of one item in its run's ledger; implements flows.steps.answers.pursuing.Journal."""

    def __init__(self, run: Run, item: Item) -> None:
        self._run = run
        self._item = item
        self.pursuit = Pursuit()
        self.claim_lost = False

    async def ready(self) -> None:
        """Wait for the run's lease; ClaimLostError where the prompt is no longer this run's to ask."""
        try:
            await self._run.lease.ready(self._item.prompt.hash)
        except ClaimLostError:
            self.claim_lost = True
            raise

    async def ask(self, body: Mapping[str, Any]) -> Answer:
        """Send a request to the run's endpoint."""
        self.pursuit.busy = True
        try:
            return await self._run.endpoint.client.ask(body, self._run.endpoint.name)
        finally:
            self.pursuit.busy = False

    async def open(self, opened: Opened) -> str:
        """Write an attempt and return its id when it is committed: a crash must leave a trace of it."""
        row, writer = opened_row(self._run.id, self._item, opened), self._run.writer
        add_prompt(writer, self._item.prompt)
        writer.open_attempt(row)
        try:
            await writer.committed()
        except (LedgerAwayError, StoppedError):
            # It waits in a spill file and is never sent: without an end it would pass for one that was, and crashed.
            self.settle(row.id, Settled(now(), 0, error_type=NOT_SENT))
            raise
        if not writer.has_attempt(row.id):
            raise FinalCallError(
                "Nothing was sent: the ledger refused the row of the request. The run's log says why.",
                kind=REFUSED_BY_LEDGER,
            )
        return row.id

    def settle(self, attempt_id: str, settled: Settled) -> None:
        """Write how it ended; committed with what comes next."""
        row = settled_row(attempt_id, settled)
        self._run.writer.settle_attempt(row)
        progress = self._run.progress
        progress.requests += settled.error_type not in UNSENT
        if row.cost_usd is not None:
            progress.cost_usd += row.cost_usd
