"""Workers of a process pool, as machines that serve it: Prefect's own, started as people do, killed as machines die."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from presswork.settings import ROOT
from tests.engine.workshop import eventually

PREFECT = str(Path(sys.executable).with_name("prefect"))


class Pool:
    """A work pool, and the workers that a test starts for it."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self._log = log
        self._workers: dict[int, asyncio.subprocess.Process] = {}

    async def worker(self, *, limit: int | None = None) -> int:
        """Start a worker; its process id."""
        with self._log.open("ab") as log:
            worker = await asyncio.create_subprocess_exec(
                *(PREFECT, "worker", "start", "--pool", self.name, *(["--limit", str(limit)] if limit else [])),
                cwd=ROOT,
                env={**os.environ, "PREFECT_WORKER_QUERY_SECONDS": "1"},
                stdout=log,
                stderr=log,
            )
        self._workers[worker.pid] = worker
        return worker.pid

    async def pause(self, *, is_paused: bool = True) -> None:
        """Let the workers take no further flow run, or let them again; running ones go on."""
        async with get_client() as client:
            await client.update_work_pool(self.name, WorkPoolUpdate(is_paused=is_paused))

    async def reached(self, flow_run: FlowRun, *names: str, within_s: float = 60) -> FlowRun:
        """Wait until a flow run has come to a state of one of these names."""

        async def read() -> FlowRun:
            async with get_client() as client:
                return await client.read_flow_run(flow_run.id)

        found: FlowRun = await eventually(read, lambda run: run.state_name in names, within_s=within_s)
        assert found.state_name in names, f"{found.state}\n{self.said()}"
        return found

    def said(self) -> str:
        """What all workers have printed."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    async def kill(self, worker: int) -> None:
        """Kill a worker and all its processes at once, as a power cut does."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(worker)
            for one in [process, *process.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        await self._workers.pop(worker).wait()

    async def close(self) -> None:
        """Kill what is left."""
        for worker in list(self._workers):
            await self.kill(worker)


@asynccontextmanager
async def work_pool(folder: Path, name: str | None = None) -> AsyncIterator[Pool]:
    """A work pool, new unless it is named; its workers end with the context."""
    pool = Pool(name or f"tests-{uuid.uuid4().hex[:8]}", folder / "workers.log")
    async with get_client() as client:
        template = ProcessWorker.get_default_base_job_template()
        with suppress(ObjectAlreadyExists):
            await client.create_work_pool(WorkPoolCreate(name=pool.name, type="process", base_job_template=template))
    try:
        yield pool
    finally:
        await pool.close()


async def prefect(*arguments: str) -> None:
    """Run Prefect's command as a person would, from the project's root."""
    process = await asyncio.create_subprocess_exec(
        *(PREFECT, "--no-prompt", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, output.decode()


async def start(deployment: str, **parameters: Any) -> FlowRun:
    """Start a run of a deployment, as a button of the UI does."""
    async with get_client() as client:
        found = await client.read_deployment_by_name(deployment)
        return await client.create_flow_run_from_deployment(found.id, parameters=parameters)
