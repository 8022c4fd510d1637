"""Find out what started a run, for its row in the ledger, and check that its deployment fits this worker.

If the worker has other code, the form may not fit it, and the run's log warns. If the worker has another ledger, it
would pay again for all content in the deployment's ledger, so the run stops before the first request.
"""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy
from prefect import get_client, get_run_logger
from prefect.client.schemas.responses import DeploymentResponse
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from pydantic import TypeAdapter

from db.words import COMMAND, DEPLOYMENT, SCHEDULE
from presswork.engine.orchestration.host import RunOrigin
from presswork.engine.orchestration.running_code import code_version
from presswork.errors import ConfigurationError
from presswork.prompts.flow_source import read_function
from presswork.settings import ROOT, Settings

LEDGER_LABEL = "PRESSWORK_DEPLOYED_LEDGER"
"""The job variable with the name of a deployment's ledger; `presswork deploy` also recognizes its deployments by it."""


async def read_origin(context: FlowRunContext, name: str | None, settings: Settings) -> RunOrigin:
    """Read a run's origin from the context of its flow run; `name` overrides the flow's name.

    Raises ConfigurationError if the deployment was made for another ledger than this worker's.
    """
    flow, found = context.flow, context.flow_run
    assert flow is not None
    assert found is not None
    deployment, deployed_as = await read_deployment(found.deployment_id)
    # In a thread, because git can be slow in a large or remote work tree.
    code = await asyncio.to_thread(code_version)
    source = await asyncio.to_thread(read_function, flow.fn)
    check_worker(deployment, settings, code)
    started_by_deployment = SCHEDULE if found.auto_scheduled else DEPLOYMENT
    return RunOrigin(
        flow=name or flow.fn.__name__,
        deployment=deployed_as,
        flow_run_id=str(found.id),
        trigger=started_by_deployment if found.deployment_id else COMMAND,
        parameters=TypeAdapter(dict[str, Any]).dump_python(context.parameters or {}, mode="json"),
        code_version=code,
        source=source,
    )


async def read_deployment(deployment_id: UUID | None) -> tuple[DeploymentResponse | None, str | None]:
    """Return a run's deployment and its full name, flow/deployment; (None, id) if it no longer exists."""
    if deployment_id is None:
        return None, None
    async with get_client() as client:
        try:
            found = await client.read_deployment(deployment_id)
            flow = await client.read_flow(found.flow_id)
        except ObjectNotFound:
            return None, str(deployment_id)
    return found, f"{flow.name}/{found.name}"


def check_worker(deployment: DeploymentResponse | None, settings: Settings, code: str) -> None:
    """Raise ConfigurationError if the deployment is for another ledger; warn if it was made with other code.

    A deployment made by `prefect deploy` records neither ledger nor code, so it is not checked.
    """
    made_for = ledger_of(deployment) if deployment is not None else None
    if deployment is None or made_for is None:
        return
    here = ledger_label(settings)
    if made_for != here:
        raise ConfigurationError(
            f"The deployment was made for the ledger {made_for}, but this worker uses {here} and would pay for its "
            "answers again. Give the worker the same PRESSWORK_DATABASE_URL, or run `presswork deploy` with this "
            "worker's settings."
        )
    if deployment.version != code:
        get_run_logger().warning(
            "The deployment was made with the code %s, but this worker has %s, so its form may not fit. Run "
            "`presswork deploy` to update it.",
            deployment.version,
            code,
        )


def ledger_of(deployment: DeploymentResponse) -> str | None:
    """Return the name of the ledger that a deployment was made for; None if `presswork deploy` did not make it."""
    environment = deployment.job_variables.get("env")
    found = environment.get(LEDGER_LABEL) if isinstance(environment, dict) else None
    return str(found) if found else None


def ledger_label(settings: Settings) -> str:
    """Name the ledger in the settings, without user or password, the same on every machine."""
    if settings.database_url is None:
        return f"sqlite {ROOT}"
    try:
        url = sqlalchemy.make_url(settings.database_url)
    except sqlalchemy.exc.ArgumentError:
        raise ConfigurationError(
            "PRESSWORK_DATABASE_URL is not a database URL. Set it like postgresql://user:password@host/database."
        ) from None
    if url.get_backend_name() == "sqlite":
        return f"sqlite {Path((url.database or '').removeprefix('file:')).resolve()}"
    # A password may contain a bare @, so the text before the last @ may be a part of it.
    host = str(url.host or url.query.get("host") or "localhost").rpartition("@")[2].lower()
    return f"postgresql {host}:{url.port or 5432}/{url.database}"
