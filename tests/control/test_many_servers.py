"""A real installation in small: two Prefect servers on one PostgreSQL, with Redis between them, and a worker."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.control.deployments import deploy
from flows.control.pools import ensure_pool
from flows.engine.orchestration.prefect_server import is_healthy
from flows.settings import ROOT
from tests.conftest import new_postgres_database
from tests.control.machine import free_port, wait_for
from tests.engine.workshop import Workshop, eventually, task_runs

pytestmark = [pytest.mark.prefect, pytest.mark.postgres, pytest.mark.soak]

# The PostgreSQL of the wheel comes without the extension pg_trgm, with which Prefect makes a few indexes of names. Real
# installations have it; here these indexes are left out, and all else of Prefect's own migrations is run.
MAKE_TABLES = """
import asyncio
from sqlalchemy import Engine, event
from prefect.server.database import provide_database_interface

@event.listens_for(Engine, "before_cursor_execute", retval=True)
def without_trigrams(connection, cursor, statement, parameters, context, many):
    return "SELECT 1" if "trgm" in statement else statement, parameters

asyncio.run(provide_database_interface().create_db())
"""
PREFECT = str(Path(sys.executable).with_name("prefect"))


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def servers(postgres_server: str, tmp_path: Path) -> Iterator[list[str]]:
    """The APIs of two servers that docs/operations.md has set up."""
    redis = shutil.which("redis-server")
    if redis is None:
        pytest.skip("redis-server is not installed; Debian's package of that name has it")
    database = new_postgres_database(postgres_server).replace("postgresql+psycopg://", "postgresql+asyncpg://", 1)
    redis_port = str(free_port())
    settings = {
        "PREFECT_HOME": str(tmp_path / "prefect-home"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
        "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
        "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
        "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE": "prefect_redis.cleanup_queue",
        "PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1",
        "PREFECT_REDIS_MESSAGING_PORT": redis_port,
        "PREFECT_SERVER_DOCKET_URL": f"redis://127.0.0.1:{redis_port}/1",
    }
    environment = {**os.environ, **settings}
    subprocess.run([sys.executable, "-c", MAKE_TABLES], env=environment, cwd=ROOT, check=True, timeout=200)
    apis = []
    with ExitStack() as stack:
        stack.enter_context(
            running([redis, "--port", redis_port, "--bind", "127.0.0.1", "--save", ""], tmp_path / "redis.log")
        )
        for number in (1, 2):
            port = free_port()
            log = tmp_path / f"server-{number}.log"
            command = [PREFECT, "--no-prompt", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
            stack.enter_context(running(command, log, **settings))
            api = f"http://127.0.0.1:{port}/api"
            wait_for(partial(is_healthy, api), within_s=180)
            apis.append(api)
        yield apis


async def test_run_goes_through_two_servers(servers: list[str], shop: Workshop, tmp_path: Path) -> None:
    one, other = servers
    with temporary_settings({PREFECT_API_URL: one}):
        await ensure_pool("presswork", print)
        await deploy(work_pool="presswork", say=print)
        async with get_client() as client:
            deployment = await client.read_deployment_by_name("product-copy/nightly")
            flow_run = await client.create_flow_run_from_deployment(
                deployment.id, parameters={"selection": {"category": "tea"}, "options": {"limit": 3}}
            )
    worker = [PREFECT, "--no-prompt", "worker", "start", "--pool", "presswork", "--run-once"]
    with (
        temporary_settings({PREFECT_API_URL: other}),
        running(worker, tmp_path / "worker.log", PREFECT_API_URL=other) as process,
    ):
        async with get_client() as client:

            async def look() -> FlowRun:
                return await client.read_flow_run(flow_run.id)

            done = await eventually(look, lambda found: bool(found.state and found.state.is_final()), within_s=150)
            await asyncio.to_thread(process.wait, 60)
    assert done.state_name == "Completed", (tmp_path / "worker.log").read_text()
    with temporary_settings({PREFECT_API_URL: one}):
        # They reach the database as events, over Redis.
        assert len(await task_runs(str(flow_run.id), count=3)) == 3
    assert shop.requests == 3
    assert shop.value("SELECT count(*) FROM current_content WHERE step = 'product_copy'") == 3
