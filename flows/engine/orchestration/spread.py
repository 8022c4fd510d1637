"""Spread a run over workers, in shards. Each shard is a run of the same flow on a part of the records' keys.

The run cuts, starts its shards as runs of a deployment, sees that each is brought to its end, and then goes over the
whole itself: what the shards answered it finds in the ledger, what they left it asks for. So nothing depends on a
shard: one that crashes is started again, one that fails or that no worker takes up is left to the run.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect import get_client, get_run_logger
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State
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
from db.words import CRASHED
from flows.engine.options import RunOptions, Shard
from flows.engine.orchestration.host import ShardedRun
from flows.engine.orchestration.shard_deployment import deployment_for_shards
from flows.engine.pacing.spending import share_of_cap
from flows.errors import ConfigurationError

POLL_S = 2.0
LOOK_AT_LEASES_S = 10.0
_OTHER_EACH_TIME = frozenset({"random", "rand", "newid", "uuid", "gen_random_uuid", "uuid_generate_v4", "sys_guid"})
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
    _require_repeatable(run.query)
    async with get_client() as client:
        spreading = await _prepared(run, client)
        get_run_logger().info(
            "Spread over %d shards of about %d records.", len(spreading.parts), run.records // len(spreading.parts)
        )
        try:
            with run.stopper.pursuing():
                await spreading.carry_out()
        except BaseException:
            await spreading.cancel("The run that was spread has been stopped.")
            raise


@dataclass
class _StartedShard:
    """A shard as its run sees it: the flow run that is its attempt now, and those `earlier` that came to nothing."""

    number: int
    flow_run: str | None = None
    earlier: list[str] = field(default_factory=list)
    started_here: int = 0
    state: State[Any] | None = None
    ended: bool = False

    def give_up_attempt(self) -> None:
        """Make room for another attempt."""
        if self.flow_run is not None:
            self.earlier.append(self.flow_run)
        self.flow_run = self.state = None


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
            try:
                if await self._look():
                    moved_at = time.monotonic()
            except (HTTPError, SQLAlchemyError, DatabaseError):
                # Prefect's server or the ledger is away for a while: the shards wait for them as this run does.
                pass
            if time.monotonic() - moved_at > self.run.settings.shard_patience_s:
                get_run_logger().warning(
                    "%d shards stand still: no worker takes them up. This run goes on with their records itself.",
                    len(self._open),
                )
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
        moved = False
        for part in self._open:
            if part.flow_run is None:
                await self._start(part)
                moved = True
        found = await self._states()
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

    async def _states(self) -> dict[str, State[Any]]:
        ids = [UUID(part.flow_run) for part in self._open if part.flow_run is not None]
        found = await self.client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)), limit=200)
        return {str(flow_run.id): flow_run.state for flow_run in found if flow_run.state is not None}

    async def _start(self, part: _StartedShard) -> None:
        """Start a shard, or find the attempt at it that an earlier run of the same flow run has started."""
        while part.flow_run is None and not part.ended:
            attempt = len(part.earlier) + 1
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
            part.flow_run, state = str(flow_run.id), flow_run.state
            if state is not None and state.is_final() and not state.is_completed():
                # It ended in an earlier run: here the shard starts again.
                part.give_up_attempt()
            else:
                part.started_here += 1

    async def _options(self, part: _StartedShard) -> dict[str, Any] | None:
        """A shard's options: those of the run, for its part of the records and of the cap; None: nothing is left."""
        left = await self._share_of_cap(part)
        if left is not None and left <= 0:
            return None
        shard = Shard(
            parent=self.run.id,
            select=self.run.query.name,
            nth=self.run.nth,
            number=part.number,
            of=len(self.parts),
            records=self.run.records,
            limit=self.run.query.limit,
        )
        own = {"shards": None, "limit": None, "resumes": None, "max_cost": left, "shard": shard}
        return self.run.options.model_copy(update=own).model_dump(mode="json")

    async def _share_of_cap(self, part: _StartedShard) -> float | None:
        if self.run.settings.max_cost is None:
            return None
        ledger = self.run.ledger
        return share_of_cap(
            self.run.settings.max_cost,
            spent=await asyncio.to_thread(spent_by_chain, ledger, self.run.id),
            by_shards=await asyncio.to_thread(spent_by_shards, ledger, str(self.flow_run.id)),
            by_attempts=await asyncio.to_thread(spent_by_flow_runs, ledger, part.earlier),
            parts=len(self.parts),
            waiting=len(self._open),
        )

    async def _end(self, part: _StartedShard, state: State[Any]) -> None:
        if state.is_crashed() and part.started_here < self.run.settings.shard_attempts:
            get_run_logger().warning("Shard %d crashed: it is started again.", part.number)
            part.give_up_attempt()
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
        await asyncio.to_thread(partial(end_lapsed, self.run.ledger, but=self.run.id))
        known = await asyncio.to_thread(statuses_of_flow_runs, self.run.ledger, list(found))
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


async def _prepared(run: ShardedRun, client: PrefectClient) -> _ShardRuns:
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    parameters = context.parameters or {}
    named = [name for name, value in parameters.items() if isinstance(value, RunOptions)]
    if not named:
        raise ConfigurationError("A run with shards needs its flow to have a parameter of the type RunOptions.")
    return _ShardRuns(
        run=run,
        client=client,
        deployment=await deployment_for_shards(client, context.flow_run),
        parameters=TypeAdapter(dict[str, Any]).dump_python(dict(parameters), mode="json"),
        options_name=named[0],
        flow_run=context.flow_run,
        parts=[_StartedShard(number) for number in range(1, min(run.options.shards or 1, run.records) + 1)],
    )
