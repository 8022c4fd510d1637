"""Workers for tests: Prefect's own process worker, started as people start it, and killed as machines die."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID

import psutil
from prefect import get_client
from prefect.client.schemas.objects import FlowRun

from flows.settings import ROOT
from tests.engine.workshop import eventually


@asynccontextmanager
async def worker(pool: str, log: Path) -> AsyncIterator[psutil.Process]:
    """Start a worker, and end it and all that it started."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("prefect")),
            *("worker", "start", "--pool", pool),
            cwd=ROOT,
            env={**os.environ, "PREFECT_WORKER_QUERY_SECONDS": "1"},
            stdout=output,
            stderr=output,
        )
    found = psutil.Process(process.pid)
    try:
        yield found
    finally:
        kill(found)
        await process.wait()


def kill(process: psutil.Process) -> None:
    """Kill a process and its descendants at once, as a power cut does."""
    with suppress(psutil.NoSuchProcess):
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                one.kill()


async def start(deployment: str, **options: object) -> UUID:
    """Start a run of a deployment, as a button of the UI does."""
    async with get_client() as client:
        found = await client.read_deployment_by_name(deployment)
        return (await client.create_flow_run_from_deployment(found.id, parameters={"options": options})).id


async def read(flow_run_id: UUID) -> FlowRun:
    """Read a flow run."""
    async with get_client() as client:
        return await client.read_flow_run(flow_run_id)


async def reached(flow_run_id: UUID, *names: str, within_s: float = 60) -> FlowRun:
    """Wait until a flow run has come to a state of one of these names."""
    found: FlowRun = await eventually(lambda: read(flow_run_id), lambda run: run.state_name in names, within_s=within_s)
    assert found.state_name in names, found.state
    return found
