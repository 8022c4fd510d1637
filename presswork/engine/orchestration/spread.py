"""Split a run over workers. Its helpers are flow runs of the same flow, each with a lease on the run.

The run divides its first step, starts its helpers, and waits until each has ended. Then it does the step itself: it
skips the records that they did, and requests the others. So no record depends on a helper. If one crashes, its records
are free again and it is started again. If one fails, or no worker starts it, the run does its records. People see the
helpers as the run's shards. This module knows no Prefect: prefect_helpers.py starts helpers there.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field, replace

from anyio import CancelScope
from sqlalchemy.exc import SQLAlchemyError

from db.database_errors import DatabaseError
from db.ledger.leases import end_lapsed
from db.machine import monotonic_s
from db.readers.chains import spent_by_leases
from db.readers.runs import leases_with_requests, workers_of
from db.sources.clauses import tokens_of
from db.sources.statements import Query
from presswork.engine.orchestration.helper_runs import (
    SUBMITTING,
    HelperRuns,
    HelperState,
    HelperStateType,
    HelpersUnavailableError,
    NoHelpersDeploymentError,
)
from presswork.engine.orchestration.host import SpreadRun
from presswork.errors import ConfigurationError
from presswork.options import Helper, RunOptions
from presswork.pacing.spending import share_of_cap
from presswork.report.progress import Log

POLL_S = 2.0
GONE_FOR_S = 10.0
"""A helper counts as crashed when its lease is missing this long, because Prefect learns of a normal end later."""
_OTHER_EACH_TIME = frozenset({"random", "rand", "newid", "uuid", "gen_random_uuid", "uuid_generate_v4", "sys_guid"})
HELPERS_CANCELLED_WITHIN_S = 5.0
"""A stopped run waits no longer for its helpers' server: its worker kills it soon after, even if it is not closed."""
SUBMITTED_WITHIN_S = 120.0
"""How long a worker may take to start a helper: if the worker crashes meanwhile, the helper stays in this state."""


def _require_repeatable(query: Query) -> None:
    """Raise ConfigurationError if a select calls a function that gives other rows each time."""
    tokens = tokens_of(query.sql)
    for name, opening, closing in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if name.text.lower() in _OTHER_EACH_TIME and (opening.text, closing.text) == ("(", ")"):
            raise ConfigurationError(
                f"{query.name}: the run can't be split into shards: each shard executes the select, and {name.text}() "
                "gives other records each time. Leave `shards` empty, or select without this function."
            )


async def spread(run: SpreadRun, opening: AbstractAsyncContextManager[HelperRuns], log: Log) -> None:
    """Let helpers do a run's divided step; returns when they have ended or make no progress. A stop cancels them.

    `opening` opens the helpers' server. Raises its errors, and ConfigurationError if each helper would select other
    records.
    """
    _require_repeatable(run.selected.query)
    count = min(run.options.shards or 1, run.records)
    async with opening as flow_runs:
        spreading = _Spreading(run, flow_runs, log, [_StartedHelper(number) for number in range(1, count + 1)])
        log.info("The run is split over %d helpers, about %d records each.", count, run.records // count)
        try:
            with run.stopper.pursuing():
                await spreading.carry_out()
        except BaseException:
            # At Prefect's `timeout_seconds` anyio cancels each await again, so no cancel would reach the server.
            with CancelScope(shield=True):
                await spreading.cancel("The run of this helper was stopped.")
            raise


@dataclass
class _StartedHelper:
    """A helper as its run sees it: the ids of all its flow runs (`attempts`), and of the active one, if any.

    A flow run's id is its lease's id too. `begun`: the active one has taken its lease. `gone_at`: when it was missing.
    `seen_at`: when its state was first seen. Times are this machine's, because the server's clock may differ.
    """

    number: int
    flow_run: str | None = None
    attempts: list[str] = field(default_factory=list)
    started_here: int = 0
    state: HelperState | None = None
    seen_at: float = 0.0
    begun: bool = False
    gone_at: float | None = None
    ended: bool = False


@dataclass
class _Spreading:
    """A run that waits for its helpers."""

    run: SpreadRun
    flow_runs: HelperRuns
    log: Log
    helpers: list[_StartedHelper]

    async def carry_out(self) -> None:
        """Wait until each helper has ended; those without progress for too long are cancelled."""
        moved_at = monotonic_s()
        while self._open:
            # Prefect's server or the ledger may be unavailable for a while: the helpers wait for them as this run does.
            with suppress(HelpersUnavailableError, SQLAlchemyError, DatabaseError):
                if await self._look():
                    moved_at = monotonic_s()
            if monotonic_s() - moved_at > self.run.settings.shard_patience_s:
                message = "No worker runs %d helpers. They are cancelled, and this run does their records itself."
                self.log.warning(message, len(self._open))
                await self.cancel("No worker runs this helper. Its run does the records itself.")
                return
            if self._open:
                await asyncio.sleep(POLL_S)

    async def cancel(self, why: str) -> None:
        """Cancel the helpers that have not ended, all at once."""
        started = [(helper.number, helper.flow_run) for helper in self._open if helper.flow_run is not None]
        for helper in self._open:
            helper.ended = True
        await asyncio.gather(*(self._cancel(number, flow_run, why) for number, flow_run in started))

    async def _cancel(self, number: int, flow_run: str, why: str) -> None:
        try:
            async with asyncio.timeout(HELPERS_CANCELLED_WITHIN_S):
                await self.flow_runs.cancel(flow_run, why)
        except (HelpersUnavailableError, TimeoutError):
            self.log.warning("Could not cancel helper %d.", number)

    @property
    def _open(self) -> list[_StartedHelper]:
        return [helper for helper in self.helpers if not helper.ended]

    async def _look(self) -> bool:
        """Read the helpers' states and start those that wait; returns whether there is progress."""
        waiting = [helper for helper in self._open if helper.flow_run is None]
        for helper in waiting:
            await self._start(helper)
        moved = bool(waiting)
        started = [helper.flow_run for helper in self._open if helper.flow_run is not None]
        found = dict(await self.flow_runs.states(started))
        self._end_deleted(found)
        moved = self._note(found) or moved
        moved = await self._end_lost(found) or moved
        for helper in self._open:
            state = found.get(str(helper.flow_run))
            if state is not None and state.is_final:
                await self._end(helper, state)
        return moved

    def _note(self, found: Mapping[str, HelperState]) -> bool:
        """Keep the helpers' states; returns whether one is running or its state has another type than before."""
        moved = False
        for helper in self._open:
            state = found.get(str(helper.flow_run))
            if state is None:
                continue
            moved = moved or state.is_running or helper.state is None or state.type != helper.state.type
            if state != helper.state:
                helper.state, helper.seen_at = state, monotonic_s()
        return moved

    def _end_deleted(self, found: Mapping[str, HelperState]) -> None:
        """End the helpers whose flow runs are gone; with a deployment, Prefect deletes those that no worker has."""
        for helper in self._open:
            if helper.flow_run is not None and helper.flow_run not in found:
                helper.ended = True
                self.log.warning(
                    "Helper %d was deleted in Prefect. This run does its other records itself.", helper.number
                )

    async def _start(self, helper: _StartedHelper) -> None:
        """Start a helper, or find the flow run that an earlier process of this run started for it."""
        while helper.flow_run is None and not helper.ended:
            attempt = len(helper.attempts) + 1
            options = await self._options(helper)
            if options is None:
                helper.ended = True
                return
            try:
                flow_run, state = await self.flow_runs.start(options, attempt)
            except NoHelpersDeploymentError:
                helper.ended = True
                self.log.warning(
                    "Helper %d can't be started: the deployment of the run's shards was deleted in Prefect. This run "
                    "does its other records itself.",
                    helper.number,
                )
                return
            helper.attempts.append(flow_run)
            # If it ended before the run was resumed, it is started again.
            if not state.is_final or state.is_completed:
                helper.flow_run = flow_run
                helper.started_here += 1

    async def _options(self, helper: _StartedHelper) -> RunOptions | None:
        """Return a helper's options, which are the run's with a part of its cap; None if nothing of the cap is left."""
        left, ledger = None, self.run.ledger
        if self.run.settings.max_cost is not None:
            attempts = [attempt for each in self.helpers for attempt in each.attempts]
            left = share_of_cap(
                self.run.settings.max_cost,
                spent=await ledger.spent(),
                by_helpers=await asyncio.to_thread(spent_by_leases, ledger.engine, ledger.run_id, attempts),
                by_earlier=await asyncio.to_thread(spent_by_leases, ledger.engine, ledger.run_id, helper.attempts),
                helpers=len(self.helpers),
                waiting=len(self._open),
            )
            if left <= 0:
                return None
        which = Helper(
            run=ledger.run_id,
            select=self.run.selected.query.name,
            nth=self.run.selected.nth,
            number=helper.number,
            of=len(self.helpers),
        )
        own = {"shards": None, "resumes": None, "max_cost": left, "helper": which}
        return self.run.options.model_copy(update=own)

    async def _end(self, helper: _StartedHelper, state: HelperState) -> None:
        if state.type is HelperStateType.CRASHED and helper.started_here < self.run.settings.shard_attempts:
            self.log.warning("Helper %d crashed and is started again.", helper.number)
            helper.flow_run = helper.state = helper.gone_at = None
            helper.begun = False
            await self._start(helper)
            return
        helper.ended = True
        if not state.is_completed:
            message = "Helper %d ended as %s. This run does its other records itself."
            self.log.warning(message, helper.number, state.name.lower())

    async def _end_lost(self, found: dict[str, HelperState]) -> bool:
        """Report helpers to Prefect as crashed if it still shows them as running; returns whether there are any."""
        ledger = self.run.ledger
        # This frees their records for the other helpers.
        await asyncio.to_thread(end_lapsed, ledger.engine, except_lease=ledger.lease_id)
        at_work = {lease.id for lease in await asyncio.to_thread(workers_of, ledger.engine, ledger.run_id)}
        running = [helper for helper in self._open if (state := found.get(str(helper.flow_run))) and state.is_running]
        unseen = [str(helper.flow_run) for helper in running if not helper.begun]
        begun = await asyncio.to_thread(leases_with_requests, ledger.engine, ledger.run_id, unseen) if unseen else set()
        for helper in running:
            helper.begun |= helper.flow_run in begun | at_work
            if helper.flow_run in at_work:
                helper.gone_at = None
            elif helper.gone_at is None:
                helper.gone_at = monotonic_s()
        lost = False
        for helper in self._open:
            if (state := found.get(str(helper.flow_run))) and self._is_lost(helper, state):
                await self.flow_runs.report_crashed(str(helper.flow_run))
                found[str(helper.flow_run)] = replace(state, type=HelperStateType.CRASHED, name="Crashed")
                lost = True
        return lost

    def _is_lost(self, helper: _StartedHelper, state: HelperState) -> bool:
        """Return whether a helper has crashed: its lease is missing, or it has made no progress for too long."""
        if state.is_running and helper.begun:
            return helper.gone_at is not None and monotonic_s() - helper.gone_at > GONE_FOR_S
        for_s = monotonic_s() - helper.seen_at
        if state.is_pending and state.name == SUBMITTING:
            return for_s > SUBMITTED_WITHIN_S
        return (state.is_pending or state.is_running) and for_s > self.run.settings.shard_patience_s
