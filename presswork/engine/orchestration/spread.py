"""Split a run over workers. Its helpers are flow runs of the same flow, each with a lease on the run.

The run divides its first step, starts its helpers as runs of a deployment, and waits until each has ended. Then it does
the step itself: it skips the records that they did, and requests the others. So no record depends on a helper. If one
crashes, its records are free again and it is started again. If one fails, or no worker starts it, the run does its
records. People see the helpers as the run's shards.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect import get_run_logger
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterId, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.context import FlowRunContext
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed
from pydantic import TypeAdapter
from sqlalchemy.exc import SQLAlchemyError

from db.database_errors import DatabaseError
from db.ledger.leases import end_lapsed
from db.readers.chains import spent_by_leases
from db.readers.runs import leases_with_requests, workers_of
from db.sources.clauses import tokens_of
from db.sources.statements import Query
from db.words import SHARD_TAG, SHARDS
from presswork.engine.orchestration.host import SpreadRun
from presswork.errors import ConfigurationError
from presswork.options import Helper, RunOptions
from presswork.pacing.spending import share_of_cap
from presswork.report.prefect.prefect_pages import read_all

POLL_S = 2.0
GONE_FOR_S = 10.0
"""A helper counts as crashed when its lease is missing this long, because Prefect learns of a normal end later."""
_OTHER_EACH_TIME = frozenset({"random", "rand", "newid", "uuid", "gen_random_uuid", "uuid_generate_v4", "sys_guid"})
_OF_DEPLOYMENT = (
    "flow_id version work_pool_name work_queue_name path entrypoint pull_steps job_variables storage_document_id"
).split()
"""The fields that the helpers' deployment copies from the run's own deployment."""
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


async def spread(run: SpreadRun) -> None:
    """Let helpers do a run's divided step; returns when they have ended or make no progress. A stop cancels them.

    Raises ConfigurationError if there is no deployment to start them, or if each would select other records.
    """
    _require_repeatable(run.selected.query)
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    parameters = context.parameters or {}
    named = [name for name, value in parameters.items() if isinstance(value, RunOptions)]
    if not named:
        raise ConfigurationError("A run with shards needs a flow with a parameter of the type RunOptions. Add one.")
    count = min(run.options.shards or 1, run.records)
    async with get_client() as client:
        spreading = _HelperRuns(
            run=run,
            client=client,
            deployment=await _deployment_for_helpers(client, context.flow_run),
            parameters=TypeAdapter(dict[str, Any]).dump_python(dict(parameters), mode="json"),
            options_name=named[0],
            flow_run=context.flow_run,
            helpers=[_StartedHelper(number) for number in range(1, count + 1)],
        )
        get_run_logger().info("The run is split over %d helpers, about %d records each.", count, run.records // count)
        try:
            with run.stopper.pursuing():
                await spreading.carry_out()
        except BaseException:
            await spreading.cancel("The run of this helper was stopped.")
            raise


@dataclass
class _StartedHelper:
    """A helper as its run sees it: the ids of all its flow runs (`attempts`), and of the active one, if any.

    A flow run's id is its lease's id too. `begun`: the active one has taken its lease. `gone_at`: when it was missing.
    """

    number: int
    flow_run: str | None = None
    attempts: list[str] = field(default_factory=list)
    started_here: int = 0
    state: State[Any] | None = None
    begun: bool = False
    gone_at: float | None = None
    ended: bool = False


@dataclass
class _HelperRuns:
    """The helpers of one run."""

    run: SpreadRun
    client: PrefectClient
    deployment: UUID
    parameters: dict[str, Any]
    options_name: str
    flow_run: FlowRun
    helpers: list[_StartedHelper]

    async def carry_out(self) -> None:
        """Wait until each helper has ended; those without progress for too long are cancelled."""
        moved_at = time.monotonic()
        while self._open:
            # Prefect's server or the ledger may be unavailable for a while: the helpers wait for them as this run does.
            with suppress(HTTPError, SQLAlchemyError, DatabaseError):
                if await self._look():
                    moved_at = time.monotonic()
            if time.monotonic() - moved_at > self.run.settings.shard_patience_s:
                message = "No worker runs %d helpers. They are cancelled, and this run does their records itself."
                get_run_logger().warning(message, len(self._open))
                await self.cancel("No worker runs this helper. Its run does the records itself.")
                return
            if self._open:
                await asyncio.sleep(POLL_S)

    async def cancel(self, why: str) -> None:
        """Cancel the helpers that have not ended."""
        for helper in self._open:
            helper.ended = True
            if helper.flow_run is not None:
                try:
                    await self.client.set_flow_run_state(UUID(helper.flow_run), Cancelling(message=why))
                except (HTTPError, ObjectNotFound):
                    get_run_logger().warning("Could not cancel helper %d.", helper.number)

    @property
    def _open(self) -> list[_StartedHelper]:
        return [helper for helper in self.helpers if not helper.ended]

    async def _look(self) -> bool:
        """Read the helpers' states and start those that wait; returns whether there is progress."""
        waiting = [helper for helper in self._open if helper.flow_run is None]
        for helper in waiting:
            await self._start(helper)
        moved = bool(waiting)
        ids = [UUID(helper.flow_run) for helper in self._open if helper.flow_run is not None]
        runs = await self.client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)), limit=200)
        found = {str(flow_run.id): flow_run.state for flow_run in runs if flow_run.state is not None}
        await self._end_lost(found)
        for helper in self._open:
            state = found.get(str(helper.flow_run))
            if state is None:
                continue
            moved = moved or state.is_running() or helper.state is None or state.type != helper.state.type
            helper.state = state
            if state.is_final():
                await self._end(helper, state)
        return moved

    async def _start(self, helper: _StartedHelper) -> None:
        """Start a helper, or find the flow run that an earlier process of this run started for it."""
        while helper.flow_run is None and not helper.ended:
            attempt = len(helper.attempts) + 1
            options = await self._options(helper)
            if options is None:
                helper.ended = True
                return
            name = f"{self.flow_run.name}, helper {helper.number} of {len(self.helpers)}"
            flow_run = await arun_deployment(
                self.deployment,
                client=self.client,
                parameters={**self.parameters, self.options_name: options},
                flow_run_name=f"{name}, attempt {attempt}" if attempt > 1 else name,
                timeout=0,
                # So a process that resumes the run after a crash finds what this one started.
                idempotency_key=f"{self.flow_run.id}/{len(self.helpers)}/{helper.number}/{attempt}",
                job_variables=self.flow_run.job_variables or None,
            )
            helper.attempts.append(str(flow_run.id))
            state = flow_run.state
            # If it ended before the run was resumed, it is started again.
            if state is None or not state.is_final() or state.is_completed():
                helper.flow_run = str(flow_run.id)
                helper.started_here += 1

    async def _options(self, helper: _StartedHelper) -> dict[str, Any] | None:
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
        return self.run.options.model_copy(update=own).model_dump(mode="json")

    async def _end(self, helper: _StartedHelper, state: State[Any]) -> None:
        if state.is_crashed() and helper.started_here < self.run.settings.shard_attempts:
            get_run_logger().warning("Helper %d crashed and is started again.", helper.number)
            helper.flow_run = helper.state = helper.gone_at = None
            helper.begun = False
            await self._start(helper)
            return
        helper.ended = True
        if not state.is_completed():
            message = "Helper %d ended as %s. This run does its other records itself."
            get_run_logger().warning(message, helper.number, (state.name or "").lower())

    async def _end_lost(self, found: dict[str, State[Any]]) -> None:
        """Report helpers to Prefect as crashed if it still shows them as running."""
        ledger = self.run.ledger
        # This frees their records for the other helpers.
        await asyncio.to_thread(end_lapsed, ledger.engine, except_lease=ledger.lease_id)
        at_work = {lease.id for lease in await asyncio.to_thread(workers_of, ledger.engine, ledger.run_id)}
        running = [helper for helper in self._open if (state := found.get(str(helper.flow_run))) and state.is_running()]
        unseen = [str(helper.flow_run) for helper in running if not helper.begun]
        begun = await asyncio.to_thread(leases_with_requests, ledger.engine, ledger.run_id, unseen) if unseen else set()
        for helper in running:
            helper.begun |= helper.flow_run in begun | at_work
            helper.gone_at = None if helper.flow_run in at_work else helper.gone_at or time.monotonic()
        for helper in self._open:
            if (state := found.get(str(helper.flow_run))) and self._is_lost(helper, state):
                crashed: State[Any] = Crashed(message="The helper's process or worker has crashed.")
                await self.client.set_flow_run_state(UUID(helper.flow_run), crashed, force=True)
                found[str(helper.flow_run)] = crashed

    def _is_lost(self, helper: _StartedHelper, state: State[Any]) -> bool:
        """Return whether a helper has crashed: its lease is missing, or it has made no progress for too long."""
        if state.is_running() and helper.begun:
            return helper.gone_at is not None and time.monotonic() - helper.gone_at > GONE_FOR_S
        since = time.time() - state.timestamp.timestamp()
        if state.is_pending() and state.name == "Submitting":
            return since > SUBMITTED_WITHIN_S
        return (state.is_pending() or state.is_running()) and since > self.run.settings.shard_patience_s


async def _deployment_for_helpers(client: PrefectClient, flow_run: FlowRun) -> UUID:
    """Create or update the deployment for a run's helpers, and return its id.

    It is like the run's own, but has no schedule and no concurrency limit, which would cancel the helpers while their
    run is active. Raises ConfigurationError if the flow has no deployment, or one without a work pool.
    """
    own = await _deployment_of(client, flow_run)
    if own.work_pool_name is None:
        raise ConfigurationError(
            f"The run can't be split into shards: its deployment {own.name!r} has no work pool, only one process that "
            "serves it. Deploy it to a work pool, or leave `shards` empty."
        )
    return await client.create_deployment(
        name=f"{own.name}{SHARDS}",
        description=f"The shards of {own.name!r}. Its runs start them if `shards` is set; do not start them yourself.",
        tags=[SHARD_TAG],
        enforce_parameter_schema=False,
        **{name: getattr(own, name) for name in _OF_DEPLOYMENT},
    )


async def _deployment_of(client: PrefectClient, flow_run: FlowRun) -> DeploymentResponse:
    if flow_run.deployment_id is not None:
        return await client.read_deployment(flow_run.deployment_id)
    flow = await client.read_flow(flow_run.flow_id)
    found = await read_all(client.read_deployments, flow_filter=FlowFilter(id=FlowFilterId(any_=[flow.id])))
    usable = [one for one in found if SHARD_TAG not in one.tags and one.work_pool_name]
    if not usable:
        raise ConfigurationError(
            f"A run with shards needs a deployment of the flow {flow.name!r} with a work pool on this Prefect server. "
            "Create it with `presswork deploy`, or leave out --shards."
        )
    return min(usable, key=lambda one: one.name)
