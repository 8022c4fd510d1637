"""Keep a run's lease, and find out what it still owns when it was away for longer than that.

The heartbeat renews the lease. Where none was confirmed for half a lease, nothing is sent until one is: others may
take what this run claims by the time that an answer comes. Where the lease was lost (a laptop slept, the ledger was
unavailable), the run takes it back, and looks up and claims again all that it has not sent.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime

from sqlalchemy import Engine

from db.clock import now
from db.identity import boot_time_s
from db.ledger import claims, leases, lifecycle, ranges
from db.ledger.refused_rows import RefusedRow
from db.ledger.rows import WriteBatch
from db.ledger.writing import write
from db.words import MAIN, NOT_SENT
from presswork.engine.resources.stopping import in_background
from presswork.engine.resources.writer import Writer
from presswork.errors import FinalCallError

RETRY_S = 2.0
"""How soon a heartbeat that failed is tried again."""


class ClaimLostError(FinalCallError):
    """The claim of this prompt was lost: another run may be asking for it, or have answered it."""


class HeldLease:
    """One lease on a run. What is called in the writer's thread says so; the rest belongs to the event loop.

    `superseded_by` says who else goes on with its work, if anybody does.
    """

    def __init__(self, ledger: Engine, lease: leases.Lease) -> None:
        self.id = lease.id
        self._ledger = ledger
        self._lease = lease
        self._confirmed_at = boot_time_s()
        self._confirmed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._claimed: set[str] = set()
        self._lost: set[str] = set()
        self.superseded_by: str | None = None
        self.was_lost = False
        self._ended = False

    async def ready(self, prompt_hash: str) -> None:
        """Wait until a request may be sent as far as the lease goes.

        Raises ClaimLostError where the prompt must be looked up and claimed again first.
        """
        while boot_time_s() - self._confirmed_at > leases.LEASE_S / 2:
            self._confirmed.clear()
            self._wanted.set()
            await self._confirmed.wait()
        if self.superseded_by is not None:
            # The heartbeat, which stops the run, need not wait for its next turn.
            self._wanted.set()
        if self.superseded_by is not None or prompt_hash in self._lost:
            raise ClaimLostError(kind=NOT_SENT)

    def released(self, prompt_hash: str) -> None:
        """Forget a claim that ends with its prompt's outcome."""
        self._claimed.discard(prompt_hash)
        self._lost.discard(prompt_hash)

    def kept(self, writer: Writer, stop: Callable[[str], None]) -> AbstractAsyncContextManager[None]:
        """Renew the lease while the context is open; `stop` hears of a newer process that goes on with its work."""
        return in_background(self._beat(writer, stop), "presswork-heartbeat")

    async def _beat(self, writer: Writer, stop: Callable[[str], None]) -> None:
        pause = leases.HEARTBEAT_S
        while True:
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), pause)
            try:
                await writer.call_once(self.confirm)
            except Exception:  # noqa: BLE001 - a heart that stops would hold back every request of the run
                # A ledger that is unavailable for a while is the writer's business.
                await asyncio.sleep(min(RETRY_S, leases.HEARTBEAT_S))
            self._confirmed.set()
            if self.superseded_by is not None:
                stop(self.superseded_by)
                return

    # In the writer's thread

    @property
    def is_helper(self) -> bool:
        """Whether it is one that helps with the run, not the one that leads it."""
        return self._lease.worker != MAIN

    def close(self, status: str) -> None:
        """Give the lease and its claims back: the run has ended so, or its helper has (in the writer's thread)."""
        if self.is_helper:
            self._end(lambda lease: lifecycle.leave_run(self._ledger, lease))
        else:
            self._end(lambda lease: lifecycle.close_run(self._ledger, lease, status, now()))

    def suspend(self, reason: str, due: datetime) -> None:
        """Give the lease and its claims back: the run waits for whoever takes it up (in the writer's thread)."""
        self._end(lambda lease: lifecycle.suspend_run(self._ledger, lease, reason, due))

    def _end(self, end: Callable[[leases.Lease], None]) -> None:
        # Whether the run is still its own to end is found out once: where the answer of a commit was lost, ending it
        # again finds no lease.
        self.confirm()
        self._ended = True
        if self.superseded_by is None:
            end(self._lease)

    def take(self, hashes: Iterable[str]) -> set[str]:
        """Claim prompts; return those that are now this run's (in the writer's thread)."""
        owned = claims.take(self._ledger, self.id, hashes)
        self._claimed |= owned
        self._lost -= owned
        return owned

    def take_range(self, step: str, size: int) -> list[str]:
        """Take free records of a divided step (in the writer's thread); none where the work is another's by now."""
        while self.superseded_by is None:
            try:
                return ranges.take_range(self._ledger, self._lease, step, size)
            except leases.LeaseLostError:
                self._return()
        return []

    def finish_range(self, step: str, keys: Sequence[str]) -> None:
        """Take records off a divided step that have their outcomes (in the writer's thread)."""
        ranges.finish_range(self._ledger, self._lease, step, keys)

    def write(self, batch: WriteBatch, refused: list[RefusedRow]) -> None:
        """Commit a batch if the lease holds; else take it back first (in the writer's thread)."""
        try:
            write(self._ledger, batch, None if self._ended else self._lease, refused=refused)
        except leases.LeaseLostError:
            self._return()
            # What it holds is paid for, and kept even where a newer process goes on, which confirms what stands itself.
            if self.superseded_by is not None:
                batch.confirmed.clear()
            write(self._ledger, batch, refused=refused)

    def confirm(self) -> None:
        """Renew the lease, or take it back where it was lost (in the writer's thread)."""
        if self._ended:
            return
        sent = boot_time_s()
        try:
            leases.renew(self._ledger, self._lease)
        except leases.LeaseLostError:
            self._return()
        self._confirmed_at = sent

    def _return(self) -> None:
        self.was_lost = True
        try:
            self._lease = leases.take_back(self._ledger, self._lease)
        except leases.SupersededError as error:
            self.superseded_by = str(error)
            return
        # Whoever took them over may have answered them and gone: each is looked up again before it is asked.
        self._lost |= self._claimed
        owned = claims.take(self._ledger, self.id, tuple(self._claimed))
        # What was released meanwhile is not claimed again.
        self._claimed &= owned
