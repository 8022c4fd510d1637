"""Outlook: what runs on a Prefect server, what is scheduled next, and what failed last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

RUNNING = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING, StateType.PAUSED]
FAILED = [StateType.FAILED, StateType.CRASHED]
LOOKED_AT = 200  # flow runs: Prefect's pages, and days of a schedule
SHOWN = 5


@dataclass(frozen=True)
class Shown:
    """A flow run: `at` is when it is to start, started or ended; `deployment` is empty for a run by hand."""

    id: str
    name: str
    deployment: str
    state: str
    at: datetime | None
    message: str | None = None


@dataclass(frozen=True)
class Seen:
    """A worker, as the server has heard of it."""

    name: str
    online: bool
    heard: datetime | None


@dataclass(frozen=True)
class Outlook:
    """What is going on. `next` has the next run of each deployment; `waiting` those whose time has come."""

    pool_paused: bool
    workers: Sequence[Seen]
    deployments: int
    running: Sequence[Shown]
    waiting: Sequence[Shown]
    next: Sequence[Shown]
    failed: Sequence[Shown]


async def look(pool: str, now: datetime) -> Outlook:
    """Look at the server that Prefect is set up for."""
    async with get_client() as client:
        deployments = await _deployments(client)
        running = await _read(client, RUNNING, FlowRunSort.START_TIME_DESC)
        scheduled = await _read(client, [StateType.SCHEDULED], FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC)
        failed = await _read(client, FAILED, FlowRunSort.END_TIME_DESC, SHOWN)
        paused, workers = await _workers(client, pool)
    waiting = [run for run in scheduled if (run.expected_start_time or now) <= now]
    first: dict[UUID | None, FlowRun] = {}
    for run in scheduled:
        if run not in waiting:
            first.setdefault(run.deployment_id, run)
    return Outlook(
        pool_paused=paused,
        workers=workers,
        deployments=len(deployments),
        running=[_show(run, deployments, run.start_time) for run in running],
        waiting=[_show(run, deployments, run.expected_start_time) for run in waiting],
        next=[_show(run, deployments, run.next_scheduled_start_time) for run in first.values()],
        failed=[_show(run, deployments, run.end_time) for run in failed],
    )


async def _read(
    client: PrefectClient, states: list[StateType], sort: FlowRunSort, limit: int = LOOKED_AT
) -> list[FlowRun]:
    of_states = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)))
    return await client.read_flow_runs(flow_run_filter=of_states, sort=sort, limit=limit)


async def _deployments(client: PrefectClient) -> dict[UUID, str]:
    found = await client.read_deployments(limit=LOOKED_AT)
    ids = list({deployment.flow_id for deployment in found})
    flows = await client.read_flows(flow_filter=FlowFilter(id=FlowFilterId(any_=ids)), limit=LOOKED_AT) if ids else []
    names = {flow.id: flow.name for flow in flows}
    return {deployment.id: f"{names.get(deployment.flow_id, '?')}/{deployment.name}" for deployment in found}


async def _workers(client: PrefectClient, pool: str) -> tuple[bool, list[Seen]]:
    try:
        found = await client.read_work_pool(pool)
    except ObjectNotFound:
        return False, []
    workers = await client.read_workers_for_work_pool(pool)
    seen = [Seen(worker.name, worker.status == "ONLINE", _plain(worker.last_heartbeat_time)) for worker in workers]
    return found.is_paused, seen


def _show(run: FlowRun, deployments: dict[UUID, str], at: datetime | None) -> Shown:
    deployment = deployments.get(run.deployment_id, "") if run.deployment_id else ""
    message = run.state.message if run.state else None
    return Shown(str(run.id), run.name, deployment, run.state_name or "", _plain(at), message)


def _plain(moment: datetime | None) -> datetime | None:
    # Prefect's own kind of datetime is none that JSON's writers know.
    return None if moment is None else datetime.fromtimestamp(moment.timestamp(), UTC)
