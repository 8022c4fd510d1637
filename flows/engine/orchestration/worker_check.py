"""Find the deployment that started a run, and check that it was made for this worker.

A worker with other code may lack what the form offers, which is said in the run's log. One with another ledger would
pay again for all that the deployment's ledger has, so there the run stops before anything is asked.
"""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import sqlalchemy
from prefect import get_client, get_run_logger
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from sqlalchemy.exc import ArgumentError

from flows.errors import ConfigurationError
from flows.settings import ROOT, Settings

LEDGER_LABEL = "PRESSWORK_DEPLOYED_LEDGER"
"""The job variable in which a deployment keeps its ledger's name; it is also how `presswork deploy` knows its own."""

POSTGRES_PORT = 5432


async def read_deployment(deployment_id: UUID | None) -> tuple[DeploymentResponse | None, str | None]:
    """Read a run's deployment, and its name as people write it: flow/deployment. (None, id) where it is gone."""
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
    """Warn where the code is not the deployment's; ConfigurationError where the ledger is not.

    A deployment that `prefect deploy` made says neither, and is not checked.
    """
    made_for = ledger_of(deployment) if deployment is not None else None
    if deployment is None or made_for is None:
        return
    here = ledger_name(settings)
    if made_for != here:
        raise ConfigurationError(
            f"The deployment was made for the ledger {made_for}, and this worker's is {here}, which does not know what "
            "has been paid for there. Give the worker the same PRESSWORK_DATABASE_URL, or run `presswork deploy` where "
            "its settings hold."
        )
    if deployment.version != code:
        get_run_logger().warning(
            "The deployment was made with the code %s, and this worker has %s: what its form offers may not be what "
            "runs. `presswork deploy` brings it up to date.",
            deployment.version,
            code,
        )


def ledger_of(deployment: DeploymentResponse) -> str | None:
    """Say for which ledger a deployment was made; None where it was not made by `presswork deploy`."""
    environment = deployment.job_variables.get("env")
    found = environment.get(LEDGER_LABEL) if isinstance(environment, dict) else None
    return str(found) if found else None


def ledger_name(settings: Settings) -> str:
    """Name the ledger that is set, without user or password: the same database has the same name everywhere."""
    if settings.database_url is None:
        return f"sqlite {ROOT}"
    try:
        url = sqlalchemy.make_url(settings.database_url)
    except ArgumentError:
        raise ConfigurationError("PRESSWORK_DATABASE_URL is not a database URL.") from None
    if url.get_backend_name() == "sqlite":
        return f"sqlite {Path((url.database or '').removeprefix('file:')).resolve()}"
    # A password with a bare @ in it: what stands before the last one may be its end.
    host = str(url.host or url.query.get("host") or "localhost").rpartition("@")[2].lower()
    return f"postgresql {host}:{url.port or POSTGRES_PORT}/{url.database}"
