"""Read from a Prefect server its active runs, next scheduled runs, latest failures and workers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from presswork.report.prefect.prefect_pages import read_all, read_deployments

RUNNING_STATES = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING, StateType.PAUSED]
FAILED_STATES = [StateType.FAILED, StateType.CRASHED]
FAILED_SHOWN = 5  # runs that failed


@dataclass(frozen=True)
class ShownRun:
    """A flow run: `at` is when it is due, started or ended; `deployment` is empty for a run started by hand."""

    id: str
    name: str
    deployment: str
    state: str
    at: datetime | None
    message: str | None = None


@dataclass(frozen=True)
class ShownWorker:
    """A worker, as the server knows it; `heard` is its last heartbeat."""

    name: str
    online: bool
    heard: datetime | None


@dataclass(frozen=True)
class Overview:
    """What the server knows. `next` has the next run of each deployment; `waiting` has runs that are due."""

    pool_paused: bool
    workers: Sequence[ShownWorker]
    deployments: int
    running: Sequence[ShownRun]
    waiting: Sequence[ShownRun]
    next: Sequence[ShownRun]
    failed: Sequence[ShownRun]


async def read_overview(pool: str, now: datetime) -> Overview:
    """Read the overview from the server in Prefect's settings."""
    async with get_client() as client:
        deployments = {one.id: name for name, one in (await read_deployments(client)).items()}
        running = await _read_all(client, RUNNING_STATES)
        scheduled = await _read_all(client, [StateType.SCHEDULED])
        failed = await client.read_flow_runs(
            flow_run_filter=_of_states(FAILED_STATES), sort=FlowRunSort.END_TIME_DESC, limit=FAILED_SHOWN
        )
        paused, workers = await _workers(client, pool)
    waiting = [run for run in scheduled if (run.expected_start_time or now) <= now]
    coming = [run for run in scheduled if (run.expected_start_time or now) > now]
    first: dict[UUID | None, FlowRun] = {}
    for run in sorted(coming, key=lambda run: run.next_scheduled_start_time or now):
        first.setdefault(run.deployment_id, run)
    return Overview(
        pool_paused=paused,
        workers=workers,
        deployments=len(deployments),
        running=sorted((_show(run, deployments, run.start_time) for run in running), key=_moment, reverse=True),
        waiting=sorted((_show(run, deployments, run.expected_start_time) for run in waiting), key=_moment),
        next=[_show(run, deployments, run.next_scheduled_start_time) for run in first.values()],
        failed=[_show(run, deployments, run.end_time) for run in failed],
    )


async def has_heard_of(pool: str, worker: str, since: datetime) -> bool:
    """Whether a worker of this name has sent a heartbeat since then."""
    async with get_client() as client:
        workers = await read_all(client.read_workers_for_work_pool, pool)
    heard = (found.last_heartbeat_time for found in workers if found.name == worker)
    return any(when is not None and when >= since for when in heard)


async def _read_all(client: PrefectClient, states: list[StateType]) -> list[FlowRun]:
    # Sorted by id, which does not change: by time, runs that are due together could move between two pages.
    return await read_all(client.read_flow_runs, flow_run_filter=_of_states(states), sort=FlowRunSort.ID_DESC)


def _of_states(states: list[StateType]) -> FlowRunFilter:
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)))


async def _workers(client: PrefectClient, pool: str) -> tuple[bool, list[ShownWorker]]:
    try:
        found = await client.read_work_pool(pool)
    except ObjectNotFound:
        return False, []
    workers = await read_all(client.read_workers_for_work_pool, pool)
    seen = [ShownWorker(one.name, one.status == "ONLINE", _plain(one.last_heartbeat_time)) for one in workers]
    return found.is_paused, seen


def _show(run: FlowRun, deployments: dict[UUID, str], at: datetime | None) -> ShownRun:
    deployment = deployments.get(run.deployment_id, "") if run.deployment_id else ""
    message = run.state.message if run.state else None
    return ShownRun(str(run.id), run.name, deployment, run.state_name or "", _plain(at), message)


def _moment(run: ShownRun) -> datetime:
    # One that is about to start has no time yet.
    return run.at or datetime.max.replace(tzinfo=UTC)


def _plain(moment: datetime | None) -> datetime | None:
    # Our JSON writer does not know Prefect's subclass of datetime.
    return None if moment is None else datetime.fromtimestamp(moment.timestamp(), UTC)
