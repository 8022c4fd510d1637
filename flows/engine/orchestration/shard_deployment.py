"""Make the deployment by which the shards of a run are started.

It is that of the run that is spread, with the same code, work pool and job variables, but without a schedule, and
without a limit on how many run at once, which would cancel the shards while their run goes on.
"""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse

from db.words import SHARD_TAG, SHARDS
from flows.engine.orchestration.prefect_pages import read_all
from flows.errors import ConfigurationError


async def deployment_for_shards(client: PrefectClient, flow_run: FlowRun) -> UUID:
    """Make the deployment for a run's shards, or bring it up to date, and return its id.

    Raises ConfigurationError where the run's flow has no deployment, or one that no work pool serves.
    """
    own = await _deployment_of(client, flow_run)
    if own.work_pool_name is None:
        raise ConfigurationError(
            f"The deployment {own.name!r} has no work pool to spread a run over: it is served by one process. "
            "Deploy it to a work pool, or leave `shards` empty."
        )
    return await client.create_deployment(
        flow_id=own.flow_id,
        name=f"{own.name}{SHARDS}",
        version=own.version,
        description=f"The shards of {own.name!r}. Its runs start these by themselves, when `shards` says so.",
        tags=[SHARD_TAG],
        work_pool_name=own.work_pool_name,
        work_queue_name=own.work_queue_name,
        path=own.path,
        entrypoint=own.entrypoint,
        pull_steps=own.pull_steps,
        job_variables=own.job_variables,
        storage_document_id=own.storage_document_id,
        enforce_parameter_schema=False,
    )


async def _deployment_of(client: PrefectClient, flow_run: FlowRun) -> DeploymentResponse:
    if flow_run.deployment_id is not None:
        return await client.read_deployment(flow_run.deployment_id)
    flow = await client.read_flow(flow_run.flow_id)
    found = await read_all(client.read_deployments, flow_filter=FlowFilter(id=FlowFilterId(any_=[flow.id])))
    usable = sorted(
        (one for one in found if SHARD_TAG not in one.tags and one.work_pool_name), key=lambda one: one.name
    )
    if not usable:
        raise ConfigurationError(
            f"A run with shards needs a deployment of the flow {flow.name!r} on this Prefect server, whose work pool "
            "its workers serve: make it with `presswork deploy`, or leave --shards out."
        )
    return usable[0]
