"""Workers of a process pool, as machines that serve it: started, and killed with all that they have started."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from db.words import POOL
from flows.settings import ROOT

PREFECT = str(Path(sys.executable).with_name("prefect"))


class Pool:
    """A work pool with one deployment of a flow, and the workers that a test starts for it."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self._log = log
        self._workers: list[asyncio.subprocess.Process] = []

    async def deploy(self, entrypoint: str, name: str, *more: str) -> None:
        """Deploy as a person would, from the project's root."""
        process = await asyncio.create_subprocess_exec(
            *(PREFECT, "--no-prompt", "deploy", entrypoint, "--name", name, "--pool", self.name, *more),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 90)
        assert process.returncode == 0, output.decode()

    async def worker(self, *, limit: int | None = None) -> int:
        """Start a worker; its process id."""
        log = os.open(self._log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        worker = await asyncio.create_subprocess_exec(
            *(PREFECT, "worker", "start", "--pool", self.name, *(["--limit", str(limit)] if limit else [])),
            cwd=ROOT,
            env={**os.environ, "PREFECT_WORKER_QUERY_SECONDS": "1"},
            stdout=log,
            stderr=log,
        )
        os.close(log)
        self._workers.append(worker)
        return worker.pid

    def said(self) -> str:
        """What all workers have printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    async def kill(self, worker: int) -> None:
        """Kill a worker and all its processes at once, as a machine dies."""
        for pid in [worker, *_descendants(worker)]:
            _kill(pid)
        for process in self._workers:
            if process.pid == worker:
                await process.wait()

    async def close(self) -> None:
        """Kill what is left."""
        for process in self._workers:
            await self.kill(process.pid)


@asynccontextmanager
async def work_pool(folder: Path) -> AsyncIterator[Pool]:
    """A new work pool; its workers end with the context."""
    pool = Pool(f"tests-{uuid.uuid4().hex[:8]}", folder / "workers.log")
    async with get_client() as client:
        template = ProcessWorker.get_default_base_job_template()
        await client.create_work_pool(WorkPoolCreate(name=pool.name, type="process", base_job_template=template))
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def shipped_pool(folder: Path) -> AsyncIterator[Pool]:
    """The work pool that prefect.yaml names; its workers end with the context."""
    pool = Pool(POOL, folder / "workers.log")
    async with get_client() as client:
        template = ProcessWorker.get_default_base_job_template()
        with suppress(ObjectAlreadyExists):
            await client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
    try:
        yield pool
    finally:
        await pool.close()


async def start(deployment: str, **parameters: Any) -> FlowRun:
    """Start a run of a deployment."""
    async with get_client() as client:
        found = await client.read_deployment_by_name(deployment)
        return await client.create_flow_run_from_deployment(found.id, parameters=parameters)


async def ended(flow_run: FlowRun, *, within_s: float) -> State[Any]:
    """Wait until a flow run has ended, and return how."""
    async with get_client() as client, asyncio.timeout(within_s):
        while True:
            state = (await client.read_flow_run(flow_run.id)).state
            if state is not None and state.is_final():
                return state
            await asyncio.sleep(0.5)


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, new = [], [pid]
    while new:
        new = [child for parent in new for child in children.get(parent, [])]
        found += new
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
