"""Keep a run's lease alive, and find out what the run still owns if its lease has expired.

The heartbeat renews the lease. If it was not confirmed for half its length, nothing is sent until it is: by the time of
an answer, another run may hold the claim. If the lease was lost (a laptop slept, the ledger was unavailable), the run
takes it back. Then it looks up and claims again all prompts that it has not sent.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Engine

from db.clock import now
from db.ledger import claims, leases, lifecycle, ranges
from db.ledger.refused_rows import RefusedRow
from db.ledger.rows import StepRow, WriteBatch
from db.ledger.writing import write
from db.machine import boot_time_s
from db.session import begin_write
from db.words import CRASHED, LIVE, MAIN, NOT_SENT
from presswork.engine.resources.stopping import in_background
from presswork.engine.resources.writer import Writer
from presswork.errors import FinalCallError

RETRY_S = 2.0
"""Seconds until a failed heartbeat is retried."""

T = TypeVar("T")


class ClaimLostError(FinalCallError):
    """The claim of this prompt was lost: another run may be requesting it, or may have answered it."""


class HeldLease:
    """One lease on a run. Methods marked so are called in the writer's thread, the others on the event loop.

    `superseded_by` describes the process that continues the run's work instead, if there is one.
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
        self._steps_done: list[StepRow] = []

    async def ready(self, prompt_hash: str) -> None:
        """Wait until the lease allows a request.

        Raises ClaimLostError if the prompt must be looked up and claimed again first.
        """
        while boot_time_s() - self._confirmed_at > leases.LEASE_S / 2:
            self._confirmed.clear()
            self._wanted.set()
            await self._confirmed.wait()
        if self.superseded_by is not None:
            # Wake the heartbeat, which stops the run.
            self._wanted.set()
        if self.superseded_by is not None or prompt_hash in self._lost:
            raise ClaimLostError(kind=NOT_SENT)

    def released(self, prompt_hash: str) -> None:
        """Forget a claim, which ends with its prompt's outcome."""
        self._claimed.discard(prompt_hash)
        self._lost.discard(prompt_hash)

    def kept(self, writer: Writer, stop: Callable[[str], None]) -> AbstractAsyncContextManager[None]:
        """Renew the lease while the context is open; calls `stop` if a newer process continues the run's work."""
        return in_background(self._beat(writer, stop), "presswork-heartbeat")

    async def _beat(self, writer: Writer, stop: Callable[[str], None]) -> None:
        pause = leases.HEARTBEAT_S
        while True:
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), pause)
            try:
                await writer.call_once(self.confirm)
            except Exception:  # noqa: BLE001 - any error is retried: every request waits for the heartbeat
                # The writer reports an unavailable ledger.
                await asyncio.sleep(min(RETRY_S, leases.HEARTBEAT_S))
                pause = 0.0
            else:
                pause = leases.HEARTBEAT_S
            self._confirmed.set()
            if self.superseded_by is not None:
                stop(self.superseded_by)
                return

    # In the writer's thread

    @property
    def is_helper(self) -> bool:
        """Whether this is a helper's lease, not the run's own."""
        return self._lease.worker != MAIN

    def close(self, status: str) -> None:
        """Release the lease and its claims when the run or the helper has ended (in the writer's thread)."""
        if self.is_helper:
            self._end(lambda lease: lifecycle.leave_run(self._ledger, lease))
        else:
            self._end(
                lambda lease: lifecycle.close_run(self._ledger, lease, status, now(), steps_done=self._steps_done)
            )

    def suspend(self, reason: str, due: datetime) -> None:
        """Release the lease and its claims until a process resumes the run (in the writer's thread)."""
        self._end(lambda lease: lifecycle.suspend_run(self._ledger, lease, reason, due, steps_done=self._steps_done))

    def settle_lost(self) -> None:
        """Settle the open attempts as cut off, as the rows that say how they ended are lost (in the writer's thread).

        They may have been sent and billed. The end of the lease would settle them as never sent.
        """
        with begin_write(self._ledger) as connection:
            leases.settle_open(connection, self._lease, CRASHED)

    def _end(self, end: Callable[[leases.Lease], None]) -> None:
        # Check only once whether the run is still ours to end. A retry after a lost reply to the commit would find no
        # lease.
        self.confirm()
        self._ended = True
        if self.superseded_by is None:
            end(self._lease)

    def take(self, hashes: Iterable[str]) -> set[str]:
        """Claim prompts; returns those that this run now holds (in the writer's thread).

        It holds none if another process continues its work.
        """
        wanted = tuple(hashes)
        owned = self.led(lambda lease: claims.take(self._ledger, lease.id, wanted)) or set()
        self._claimed |= owned
        self._lost -= owned
        return owned

    def take_range(self, step: str, size: int) -> list[str]:
        """Take free records of a divided step (in the writer's thread); none if another process has the work now."""
        return self.led(lambda lease: ranges.take_range(self._ledger, lease, step, size)) or []

    def led(self, work: Callable[[leases.Lease], T]) -> T | None:
        """Call what needs this lease, which is taken back if it was lost (in the writer's thread).

        Returns None without a call if another process has the work now.
        """
        while self.superseded_by is None:
            try:
                return work(self._lease)
            except leases.LeaseLostError:
                self._return()
        return None

    def begin_step(self, row: StepRow) -> None:
        """Write that a step begins, unless another process has the work now (in the writer's thread)."""
        self.led(lambda lease: lifecycle.begin_step(self._ledger, lease.run_id, row, lease=lease))

    def end_step(self, row: StepRow) -> None:
        """Write that a step is done, and remember it for the end of the run (in the writer's thread).

        Does neither if another process has the work now.
        """
        self.led(lambda lease: lifecycle.end_step(self._ledger, lease.run_id, row, lease=lease))
        if self.superseded_by is None:
            self._steps_done.append(row)

    def finish_range(self, step: str, keys: Sequence[str]) -> None:
        """Remove records with outcomes from a divided step (in the writer's thread)."""
        ranges.finish_range(self._ledger, self._lease, step, keys)

    def write(self, batch: WriteBatch, refused: list[RefusedRow]) -> None:
        """Commit a batch; if the lease was lost, take it back first (in the writer's thread)."""
        try:
            write(self._ledger, batch, None if self._ended else self._lease, refused=refused)
        except leases.LeaseLostError:
            self._return()
            if self.superseded_by is not None:
                _keep_paid(batch)
            write(self._ledger, batch, refused=refused)

    def confirm(self) -> None:
        """Renew the lease, or take it back if it was lost (in the writer's thread)."""
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
        # The run that took them over may have answered them and ended: look up each one again before its request.
        self._lost |= self._claimed
        owned: set[str] = set()
        # If it is lost again by now, its next use takes it back, or finds who superseded it.
        with contextlib.suppress(leases.LeaseLostError):
            owned = claims.take(self._ledger, self.id, tuple(self._claimed))
        # Claims released meanwhile stay released.
        self._claimed &= owned


def _keep_paid(batch: WriteBatch) -> None:
    """Leave in a batch what was paid for, if a newer process continues: that one finds and confirms all the rest.

    What is opened is never sent, and no lease is left with which it would be settled.
    """
    batch.confirmed.clear()
    # A helper that is started again has the same lease: the claims are the newer process's by now.
    batch.released.clear()
    batch.generations[:] = [row for row in batch.generations if row.origin == LIVE]
    kept = {row.id for row in batch.generations}
    batch.parents[:] = [row for row in batch.parents if row.generation_id in kept]
    batch.end_unsent(now())
