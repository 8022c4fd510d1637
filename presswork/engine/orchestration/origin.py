"""Find out what started a run, as its row in the ledger says it, and check that its deployment fits this worker.

A worker with other code may lack what the form offers, which is said in the run's log. One with another ledger would
pay again for all that the deployment's ledger has, so there the run stops before anything is asked.
"""

import asyncio
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy
from prefect import get_client, get_run_logger
from prefect.client.schemas.responses import DeploymentResponse
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from pydantic import TypeAdapter

from db.words import COMMAND, DEPLOYMENT, PROGRAM, SCHEDULE
from presswork.engine.orchestration.host import RunOrigin
from presswork.errors import ConfigurationError
from presswork.prompts.flow_source import read_function
from presswork.settings import ROOT, Settings

LEDGER_LABEL = "PRESSWORK_DEPLOYED_LEDGER"
"""The job variable in which a deployment keeps its ledger's name; it is also how `presswork deploy` knows its own."""


async def read_origin(context: FlowRunContext, name: str | None, settings: Settings) -> RunOrigin:
    """Read it from the context of a flow run; `name` overrides the flow's own.

    ConfigurationError where this worker's ledger is not the one that the deployment was made for.
    """
    flow, found = context.flow, context.flow_run
    assert flow is not None
    assert found is not None
    deployment, deployed_as = await read_deployment(found.deployment_id)
    # It asks git, which takes its time in a large or remote work tree.
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


@lru_cache(maxsize=1)
def code_version() -> str:
    """The git commit where there is one, marked `+` where files differ from it; else the package's version."""
    try:
        number = version(PROGRAM)
    except PackageNotFoundError:
        number = "0"
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=10"],  # noqa: S607 - git as the user has it
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return number
    return f"{number} {found.stdout.strip()}"


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
    here = ledger_label(settings)
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


def ledger_label(settings: Settings) -> str:
    """Name the ledger that is set, without user or password: the same database has the same name everywhere."""
    if settings.database_url is None:
        return f"sqlite {ROOT}"
    try:
        url = sqlalchemy.make_url(settings.database_url)
    except sqlalchemy.exc.ArgumentError:
        raise ConfigurationError("PRESSWORK_DATABASE_URL is not a database URL.") from None
    if url.get_backend_name() == "sqlite":
        return f"sqlite {Path((url.database or '').removeprefix('file:')).resolve()}"
    # A password with a bare @ in it: what stands before the last one may be its end.
    host = str(url.host or url.query.get("host") or "localhost").rpartition("@")[2].lower()
    return f"postgresql {host}:{url.port or 5432}/{url.database}"
