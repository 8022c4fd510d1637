"""Find out what started a run, as its row in the ledger says it."""

from __future__ import annotations

import asyncio
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prefect.context import FlowRunContext
from pydantic import TypeAdapter

from db.words import COMMAND, DEPLOYMENT, SCHEDULE
from flows.engine.orchestration.host import Origin
from flows.engine.orchestration.worker_check import check_worker, read_deployment
from flows.settings import ROOT, Settings
from flows.steps.prompts.flow_source import read_function


async def read_origin(context: FlowRunContext, name: str | None, settings: Settings) -> Origin:
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
    return Origin(
        flow=name or flow.fn.__name__,
        deployment=deployed_as,
        flow_run_id=str(found.id),
        trigger=started_by_deployment if found.deployment_id else COMMAND,
        parameters=TypeAdapter(dict[str, Any]).dump_python(context.parameters or {}, mode="json"),
        code_version=code,
        words=source.texts,
    )


@lru_cache(maxsize=1)
def code_version() -> str:
    """The git commit where there is one, marked `+` where files differ from it; else the package's version."""
    try:
        number = version("presswork")
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
