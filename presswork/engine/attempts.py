"""Journal of one item's attempts: each is written before its request and settled after it."""

import asyncio
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from db.clock import new_id, now
from db.ledger.refused_rows import storable
from db.ledger.rows import OpenedRow, SettledRow, not_sent
from db.words import REFUSED_BY_LEDGER, UNSENT
from presswork.answers.pursuing import Opened, Settled
from presswork.claude.answers import Answer
from presswork.engine.context import StepContext
from presswork.engine.generations import add_prompt
from presswork.engine.materials.items import Item
from presswork.engine.resources.lease import ClaimLostError
from presswork.engine.resources.stopping import Pursuit
from presswork.errors import FinalCallError
from presswork.prices import Usage

_USED = tuple(field.name for field in fields(Usage))
_TOKENS = tuple(name for name in _USED if name.endswith("_tokens"))


class ItemJournal:
    """Keeps the attempts of one item in the ledger; implements presswork.answers.pursuing.Journal.

    `pursuit` is busy while a request is in flight.
    """

    def __init__(self, context: StepContext, item: Item, pursuit: Pursuit) -> None:
        self._context = context
        self._item = item
        self._pursuit = pursuit
        self.claim_lost = False

    async def ready(self) -> None:
        """Wait for the run's lease; raises ClaimLostError if this run no longer holds the prompt's claim."""
        try:
            await self._context.ledger.ready(self._item.prompt.hash)
        except ClaimLostError:
            self.claim_lost = True
            raise

    async def ask(self, body: Mapping[str, Any]) -> Answer:
        """Send a request to the run's endpoint."""
        self._pursuit.busy = True
        try:
            return await self._context.endpoint.ask(body)
        finally:
            self._pursuit.busy = False

    async def open(self, opened: Opened) -> str:
        """Write an attempt and return its id when it is committed, so that a crash leaves a trace of it."""
        writer = self._context.writer
        row = storable(
            OpenedRow(
                id=new_id(),
                run_id=self._context.ledger.run_id,
                prompt_hash=self._item.prompt.hash,
                generation_id=self._item.generation_id,
                ordinal=opened.ordinal,
                kind=opened.kind,
                request_changes=opened.changes,
                started_at=now(),
                likely_cost_usd=opened.likely_cost_usd,
                lease_id=self._context.ledger.lease_id,
            )
        )
        add_prompt(writer, self._item.prompt)
        writer.open_attempt(row)
        try:
            await writer.committed()
        except asyncio.CancelledError:
            # The row is or will be in the ledger. If the run can't close, it would look as if it was in flight.
            writer.settle_attempt(not_sent(row.id, now()))
            raise
        if not writer.has_attempt(row.id):
            raise FinalCallError(
                "Nothing was sent: the ledger refused the attempt's row. See the run's log for the reason.",
                kind=REFUSED_BY_LEDGER,
            )
        return row.id

    def settle(self, attempt_id: str, settled: Settled) -> None:
        """Write how an attempt ended; the next commit includes it."""
        row = _settled_row(attempt_id, settled)
        progress = self._context.progress
        self._context.writer.settle_attempt(row)
        progress.requests += settled.error_type not in UNSENT
        if row.cost_usd is not None:
            progress.cost_usd += row.cost_usd


def _settled_row(attempt_id: str, settled: Settled) -> SettledRow:
    """Make the only update of an attempt. Its text must be storable: an endpoint may send any characters."""
    answer, error = settled.answer, settled.error
    told: dict[str, Any] = {} if error is None else {"http_status": error.http_status, "request_id": error.request_id}
    if answer is not None:
        told = {
            "http_status": 200,
            "request_id": answer.request_id,
            "message_id": answer.message_id,
            "model": answer.model,
            "stop_reason": answer.stop_reason,
            "output_text": answer.text,
        }
        if answer.usage is not None:
            # The fields of Usage have the names of the columns.
            told |= {name: getattr(answer.usage, name) for name in _USED}
    row = SettledRow(
        attempt_id=attempt_id,
        ended_at=settled.ended_at,
        latency_ms=settled.latency_ms,
        error_type=settled.error_type,
        validation_errors=[{"where": fault.where, "what": fault.what} for fault in settled.faults] or None,
        cost_usd=settled.cost_usd,
        price_version=settled.price_version,
        **told,
    )
    kept = storable(row)
    unknown = kept is not row and any(getattr(kept, name) != getattr(row, name) for name in _TOKENS)
    # An impossible token count has no price.
    return replace(kept, cost_usd=None, price_version=None) if unknown else kept
