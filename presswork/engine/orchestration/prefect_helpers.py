"""Start a run's helpers as flow runs of a deployment in Prefect, and read and end them.

They have a deployment of their own: like the run's, but without a schedule and without a concurrency limit, which would
cancel the helpers while their run is active. spread.py decides what happens to which helper.
"""

import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterId, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.context import FlowRunContext
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed, Scheduled
from pydantic import TypeAdapter

from db.words import SHARD_TAG, SHARDS
from presswork.engine.orchestration.helper_runs import (
    HelperRuns,
    HelperState,
    HelperStateType,
    HelpersUnavailableError,
    NoHelpersDeploymentError,
)
from presswork.errors import ConfigurationError
from presswork.options import RunOptions
from presswork.report.prefect.prefect_pages import read_all

_log = logging.getLogger("prefect.presswork")
_OF_DEPLOYMENT = (
    "flow_id version work_pool_name work_queue_name path entrypoint pull_steps job_variables storage_document_id"
).split()
"""The fields that the helpers' deployment copies from the run's own deployment."""


@asynccontextmanager
async def open_helper_runs(context: FlowRunContext) -> AsyncIterator[HelperRuns]:
    """Let the flow run in `context` start helpers while the context manager is open.

    Raises ConfigurationError if its flow takes no RunOptions, has no deployment, or has one without a work pool.
    """
    flow_run = context.flow_run
    assert flow_run is not None
    parameters = context.parameters or {}
    named = [name for name, value in parameters.items() if isinstance(value, RunOptions)]
    if not named:
        raise ConfigurationError("A run with shards needs a flow with a parameter of the type RunOptions. Add one.")
    async with get_client() as client:
        yield PrefectHelperRuns(
            client=client,
            flow_run=flow_run,
            deployment=await _deployment_for_helpers(client, flow_run),
            parameters=TypeAdapter(dict[str, Any]).dump_python(dict(parameters), mode="json"),
            options_name=named[0],
        )


@dataclass(frozen=True)
class PrefectHelperRuns:
    """Implements presswork.engine.orchestration.helper_runs.HelperRuns for one flow run.

    `options_name` is the parameter that takes the options of a helper; the other `parameters` are those of the run.
    """

    client: PrefectClient
    flow_run: FlowRun
    deployment: UUID
    parameters: Mapping[str, Any]
    options_name: str

    async def start(self, options: RunOptions, attempt: int) -> tuple[str, HelperState]:
        """Start a helper, or find the flow run of this attempt; returns its id and state.

        Raises NoHelpersDeploymentError if somebody has deleted the helpers' deployment.
        """
        helper = options.helper
        assert helper is not None
        name = f"{self.flow_run.name}, {helper}"
        with _translated(ObjectNotFound, into=NoHelpersDeploymentError), _translated(HTTPError):
            flow_run = await arun_deployment(
                self.deployment,
                client=self.client,
                parameters={**self.parameters, self.options_name: options.model_dump(mode="json")},
                flow_run_name=f"{name}, attempt {attempt}" if attempt > 1 else name,
                timeout=0,
                idempotency_key=f"{self.flow_run.id}/{helper.of}/{helper.number}/{attempt}",
                job_variables=self.flow_run.job_variables or None,
            )
        return str(flow_run.id), _plain(flow_run.state or Scheduled())

    async def states(self, flow_runs: Sequence[str]) -> dict[str, HelperState]:
        """Return the states of these flow runs by id, without those that no longer exist."""
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run) for flow_run in flow_runs]))
        with _translated(HTTPError):
            found = await self.client.read_flow_runs(flow_run_filter=wanted, limit=200)
        return {str(flow_run.id): _plain(flow_run.state) for flow_run in found if flow_run.state is not None}

    async def report_crashed(self, flow_run: str) -> None:
        """Set a flow run to crashed whose process has ended without a final state."""
        crashed: State[Any] = Crashed(message="The helper's process or worker has crashed.")
        with _translated(HTTPError, ObjectNotFound):
            await self.client.set_flow_run_state(UUID(flow_run), crashed, force=True)

    async def cancel(self, flow_run: str, why: str) -> None:
        """Cancel a flow run; its worker ends its process."""
        with _translated(HTTPError, ObjectNotFound):
            await self.client.set_flow_run_state(UUID(flow_run), Cancelling(message=why))


@contextmanager
def _translated(*errors: type[Exception], into: type[Exception] = HelpersUnavailableError) -> Iterator[None]:
    try:
        yield
    except errors as error:
        raise into from error


def _plain(state: State[Any]) -> HelperState:
    return HelperState(HelperStateType(state.type.value.lower()), state.name or "", state.timestamp.timestamp())


async def _deployment_for_helpers(client: PrefectClient, flow_run: FlowRun) -> UUID:
    """Create or update the deployment for a run's helpers, and return its id.

    Raises ConfigurationError if the flow has no deployment, or one without a work pool.
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
        # Somebody may have deleted it since the run began.
        with suppress(ObjectNotFound):
            return await client.read_deployment(flow_run.deployment_id)
    flow = await client.read_flow(flow_run.flow_id)
    found = await read_all(client.read_deployments, flow_filter=FlowFilter(id=FlowFilterId(any_=[flow.id])))
    usable = [one for one in found if SHARD_TAG not in one.tags and one.work_pool_name]
    if not usable:
        raise ConfigurationError(
            f"A run with shards needs a deployment of the flow {flow.name!r} with a work pool on this Prefect server. "
            "Create it with `presswork deploy`, or leave out --shards."
        )
    chosen = min(usable, key=lambda one: one.name)
    if flow_run.deployment_id is not None:
        # It may have other code or another work pool, which nobody could tell otherwise.
        message = (
            "The run's deployment was deleted in Prefect. The run uses the deployment %r of its flow for its shards."
        )
        _log.warning(message, chosen.name)
    return chosen
