"""Spread a run over workers, in shards. Each shard is a run of the same flow on a part of the records' keys.

The run cuts, starts its shards as runs of a deployment, sees that each is brought to its end, and then goes over the
whole itself: what the shards answered it finds in the ledger, what they left it asks for. So nothing depends on a
shard: one that crashes is started again, one that fails or that no worker takes up is left to the run.
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
from db.readers.chains import spent_by_chain, spent_by_flow_runs, spent_by_shards
from db.readers.runs import statuses_of_flow_runs
from db.sources.clauses import tokens_of
from db.sources.statements import Query
from db.words import CRASHED, SHARD_TAG, SHARDS
from flows.engine.options import RunOptions, Shard
from flows.engine.orchestration.host import ShardedRun
from flows.engine.orchestration.prefect_pages import read_all
from flows.engine.pacing.spending import share_of_cap
from flows.errors import ConfigurationError

POLL_S = 2.0
LOOK_AT_LEASES_S = 10.0
_OTHER_EACH_TIME = frozenset({"random", "rand", "newid", "uuid", "gen_random_uuid", "uuid_generate_v4", "sys_guid"})
_OF_DEPLOYMENT = (
    "flow_id version work_pool_name work_queue_name path entrypoint pull_steps job_variables storage_document_id"
).split()
"""What the deployment of a run's shards has from the run's own."""
SUBMITTED_WITHIN_S = 120.0
"""How long a worker may take to hand a shard to its infrastructure: one that crashes meanwhile leaves it so."""


def _require_repeatable(query: Query) -> None:
    """Raise ConfigurationError where a select says itself that it gives other rows each time it runs."""
    tokens = tokens_of(query.sql)
    for name, opening, closing in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if name.text.lower() in _OTHER_EACH_TIME and (opening.text, closing.text) == ("(", ")"):
            raise ConfigurationError(
                f"{query.name}: the run can't be spread: each shard executes the select, and {name.text}() gives "
                "other records each time. Leave `shards` empty, or select by something that stays."
            )


async def spread(run: ShardedRun) -> None:
    """Have shards do a run's first step, and return when they have ended or stand still; a stop cancels them.

    Raises ConfigurationError where there is no deployment to start them by, or where each would select other records.
    """
    if run.records < 2:
        return
    _require_repeatable(run.selected.query)
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    parameters = context.parameters or {}
    named = [name for name, value in parameters.items() if isinstance(value, RunOptions)]
    if not named:
        raise ConfigurationError("A run with shards needs its flow to have a parameter of the type RunOptions.")
    count = min(run.options.shards or 1, run.records)
    async with get_client() as client:
        spreading = _ShardRuns(
            run=run,
            client=client,
            deployment=await _deployment_for_shards(client, context.flow_run),
            parameters=TypeAdapter(dict[str, Any]).dump_python(dict(parameters), mode="json"),
            options_name=named[0],
            flow_run=context.flow_run,
            parts=[_StartedShard(number) for number in range(1, count + 1)],
        )
        get_run_logger().info("Spread over %d shards of about %d records.", count, run.records // count)
        try:
            with run.stopper.pursuing():
                await spreading.carry_out()
        except BaseException:
            await spreading.cancel("The run that was spread has been stopped.")
            raise


@dataclass
class _StartedShard:
    """A shard as its run sees it: all `attempts` at it, as flow runs, and that which is at work, if any."""

    number: int
    flow_run: str | None = None
    attempts: list[str] = field(default_factory=list)
    started_here: int = 0
    state: State[Any] | None = None
    ended: bool = False


@dataclass
class _ShardRuns:
    """The shards of one run at work."""

    run: ShardedRun
    client: PrefectClient
    deployment: UUID
    parameters: dict[str, Any]
    options_name: str
    flow_run: FlowRun
    parts: list[_StartedShard]
    leases_at: float = 0.0

    async def carry_out(self) -> None:
        """Bring each shard to its end; what stands still for too long is given up."""
        moved_at = time.monotonic()
        while self._open:
            # Prefect's server or the ledger may be away for a while: the shards wait for them as this run does.
            with suppress(HTTPError, SQLAlchemyError, DatabaseError):
                if await self._look():
                    moved_at = time.monotonic()
            if time.monotonic() - moved_at > self.run.settings.shard_patience_s:
                said = "%d shards stand still: no worker takes them up. This run goes on with their records itself."
                get_run_logger().warning(said, len(self._open))
                await self.cancel("No worker took this shard up: the run that was spread does its part itself.")
                return
            if self._open:
                await asyncio.sleep(POLL_S)

    async def cancel(self, why: str) -> None:
        """Cancel the shards that have not ended."""
        for part in self._open:
            part.ended = True
            if part.flow_run is not None:
                try:
                    await self.client.set_flow_run_state(UUID(part.flow_run), Cancelling(message=why))
                except (HTTPError, ObjectNotFound):
                    get_run_logger().warning("Shard %d could not be cancelled.", part.number)

    @property
    def _open(self) -> list[_StartedShard]:
        return [part for part in self.parts if not part.ended]

    async def _look(self) -> bool:
        """Take note of what has become of the shards, and start what is to be started; whether anything moves."""
        waiting = [part for part in self._open if part.flow_run is None]
        for part in waiting:
            await self._start(part)
        moved = bool(waiting)
        ids = [UUID(part.flow_run) for part in self._open if part.flow_run is not None]
        runs = await self.client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)), limit=200)
        found = {str(flow_run.id): flow_run.state for flow_run in runs if flow_run.state is not None}
        await self._end_lost(found)
        for part in self._open:
            state = found.get(str(part.flow_run))
            if state is None:
                continue
            moved = moved or state.is_running() or part.state is None or state.type != part.state.type
            part.state = state
            if state.is_final():
                await self._end(part, state)
        return moved

    async def _start(self, part: _StartedShard) -> None:
        """Start a shard, or find the attempt at it that an earlier run of the same flow run has started."""
        while part.flow_run is None and not part.ended:
            attempt = len(part.attempts) + 1
            options = await self._options(part)
            if options is None:
                part.ended = True
                return
            name = f"{self.flow_run.name}, shard {part.number} of {len(self.parts)}"
            flow_run = await arun_deployment(
                self.deployment,
                client=self.client,
                parameters={**self.parameters, self.options_name: options},
                flow_run_name=f"{name}, attempt {attempt}" if attempt > 1 else name,
                timeout=0,
                # By the flow run, not by the run: the one that follows after a crash finds what this one started.
                idempotency_key=f"{self.flow_run.id}/{len(self.parts)}/{part.number}/{attempt}",
                job_variables=self.flow_run.job_variables or None,
            )
            part.attempts.append(str(flow_run.id))
            state = flow_run.state
            # One that ended in an earlier run starts again here.
            if state is None or not state.is_final() or state.is_completed():
                part.flow_run = str(flow_run.id)
                part.started_here += 1

    async def _options(self, part: _StartedShard) -> dict[str, Any] | None:
        """A shard's options: those of the run, for its part of the records and of the cap; None: nothing is left."""
        left = None
        if self.run.settings.max_cost is not None:
            left = share_of_cap(
                self.run.settings.max_cost,
                spent=await asyncio.to_thread(spent_by_chain, self.run.ledger.engine, self.run.ledger.run_id),
                by_shards=await asyncio.to_thread(spent_by_shards, self.run.ledger.engine, str(self.flow_run.id)),
                by_attempts=await asyncio.to_thread(spent_by_flow_runs, self.run.ledger.engine, part.attempts),
                parts=len(self.parts),
                waiting=len(self._open),
            )
            if left <= 0:
                return None
        shard = Shard(
            parent=self.run.ledger.run_id,
            select=self.run.selected.query.name,
            nth=self.run.selected.nth,
            number=part.number,
            of=len(self.parts),
            records=self.run.records,
            limit=self.run.selected.query.limit,
        )
        own = {"shards": None, "limit": None, "resumes": None, "max_cost": left, "shard": shard}
        return self.run.options.model_copy(update=own).model_dump(mode="json")

    async def _end(self, part: _StartedShard, state: State[Any]) -> None:
        if state.is_crashed() and part.started_here < self.run.settings.shard_attempts:
            get_run_logger().warning("Shard %d crashed: it is started again.", part.number)
            part.flow_run = part.state = None
            await self._start(part)
            return
        part.ended = True
        if not state.is_completed():
            said = "Shard %d ended as %s: this run goes on with its records itself."
            get_run_logger().warning(said, part.number, (state.name or "").lower())

    async def _end_lost(self, found: dict[str, State[Any]]) -> None:
        """Tell Prefect of shards that run by its account, and whose process or worker has crashed."""
        if time.monotonic() - self.leases_at < LOOK_AT_LEASES_S:
            return
        self.leases_at = time.monotonic()
        await asyncio.to_thread(end_lapsed, self.run.ledger.engine, but=self.run.ledger.run_id)
        known = await asyncio.to_thread(statuses_of_flow_runs, self.run.ledger.engine, list(found))
        for flow_run, state in found.items():
            if self._is_lost(state, known.get(flow_run)):
                crashed: State[Any] = Crashed(message="The shard's process or worker has died.")
                await self.client.set_flow_run_state(UUID(flow_run), crashed, force=True)
                found[flow_run] = crashed

    def _is_lost(self, state: State[Any], in_ledger: str | None) -> bool:
        """Whether a shard has crashed by the ledger's leases, or by how long it has come no further."""
        if state.is_running() and in_ledger is not None:
            return in_ledger == CRASHED
        since = time.time() - state.timestamp.timestamp()
        if state.is_pending() and state.name == "Submitting":
            return since > SUBMITTED_WITHIN_S
        return (state.is_pending() or state.is_running()) and since > self.run.settings.shard_patience_s


async def _deployment_for_shards(client: PrefectClient, flow_run: FlowRun) -> UUID:
    """Make the deployment for a run's shards, or bring it up to date, and return its id.

    It is like the run's own, but without a schedule, and without a limit on how many run at once, which would cancel
    the shards while their run goes on. ConfigurationError where the flow has none, or one that no work pool serves.
    """
    own = await _deployment_of(client, flow_run)
    if own.work_pool_name is None:
        raise ConfigurationError(
            f"The deployment {own.name!r} has no work pool to spread a run over: it is served by one process. "
            "Deploy it to a work pool, or leave `shards` empty."
        )
    return await client.create_deployment(
        name=f"{own.name}{SHARDS}",
        description=f"The shards of {own.name!r}. Its runs start these by themselves, when `shards` says so.",
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
            f"A run with shards needs a deployment of the flow {flow.name!r} on this Prefect server, whose work pool "
            "its workers serve: make it with `presswork deploy`, or leave --shards out."
        )
    return min(usable, key=lambda one: one.name)
