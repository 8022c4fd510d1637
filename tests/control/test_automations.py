"""What goes on by itself: runs of dead workers, cancelled runs that nobody ends, runs that are tried again."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.states import AwaitingRetry, Cancelling, Pending, Running
from prefect.workers.process import ProcessWorker

from flows.control.automations import install_automations, install_notification
from flows.control.deployments import deploy
from flows.errors import ConfigurationError
from tests.control.workers import kill, reached, start, worker
from tests.engine.workshop import Workshop

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


@pytest.fixture
async def pool(workshop: Workshop, request: pytest.FixtureRequest) -> str:
    """A work pool of the test's own, with all deployments."""
    name = f"tests-{abs(hash(request.node.name)) % 10**8}"
    async with get_client() as client:
        template = ProcessWorker.get_default_base_job_template()
        await client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
    await deploy(work_pool=name, say=lambda _line: None)
    return name


async def put(flow_run_id: UUID, *states: object) -> None:
    async with get_client() as client:
        for state in states:
            await client.set_flow_run_state(flow_run_id, state, force=True)  # type: ignore[arg-type]


async def test_automations_are_made_once(prefect_api: str) -> None:
    await install_automations()
    assert await install_automations() == []
    async with get_client() as client:
        names = [found.name for found in await client.read_automations() if found.name.startswith("presswork: ")]
    assert len(names) == len(set(names)) == 3


async def test_block_that_is_not_there_is_named(prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_NOTIFY_BLOCK", "slack-webhook/nobody")
    with pytest.raises(ConfigurationError, match="slack-webhook/nobody"):
        await install_notification()


async def test_cancel_ends_a_run_though_no_worker_is_there(workshop: Workshop, pool: str) -> None:
    waits, died = await start("content/note"), await start("content/note")
    await put(died, Pending(), Running(), Cancelling())
    async with get_client() as client:
        await client.set_flow_run_state(waits, Cancelling())
    await reached(waits, "Cancelled", within_s=5)
    await reached(died, "Cancelled", within_s=40)


async def test_cancel_and_retry_of_a_run_on_a_worker(workshop: Workshop, pool: str, tmp_path: Path) -> None:
    workshop.numbered(60)
    workshop.sandbox.configure(latency_ms=1500)
    async with worker(pool, tmp_path / "worker.log"):
        run = await start("content/note", concurrency=4)
        await workshop.answered(4)
        cancelled_at = time.monotonic()
        await put(run, Cancelling())
        await reached(run, "Cancelled", within_s=20)
        took = time.monotonic() - cancelled_at
        recorded = workshop.value("SELECT count(*) FROM generations WHERE status = 'succeeded'")
        assert 4 <= recorded < 60
        assert took < 10
        assert workshop.value("SELECT status FROM runs") == "cancelled"

        workshop.sandbox.configure(latency_ms=0)
        await put(run, AwaitingRetry())
        await reached(run, "Completed", within_s=60)
    first, second = workshop.rows("SELECT id, resumes_run_id, status FROM runs ORDER BY id")
    assert second["resumes_run_id"] == first["id"]
    assert second["status"] == "completed"
    asked = workshop.counts("SELECT prompt_hash, count(*) FROM attempts WHERE output_text IS NOT NULL GROUP BY 1")
    assert len(asked) == 60
    assert set(asked.values()) == {1}


@pytest.mark.soak
async def test_run_of_a_worker_that_is_killed_goes_on_with_another(
    workshop: Workshop, pool: str, tmp_path: Path
) -> None:
    workshop.numbered(200)
    workshop.sandbox.configure(latency_ms=1000)
    async with worker(pool, tmp_path / "first.log") as first:
        run = await start("content/note", concurrency=4)
        await workshop.answered(20)
        kill(first)
    asked, killed_at = workshop.requests, time.monotonic()
    workshop.sandbox.configure(latency_ms=0)
    await reached(run, "Crashed", "AwaitingRetry", within_s=200)
    print(f"crashed after {time.monotonic() - killed_at:.0f} s")  # noqa: T201 - a figure to report
    async with worker(pool, tmp_path / "second.log"):
        found = await reached(run, "Completed", within_s=120)
    print(f"completed after {time.monotonic() - killed_at:.0f} s")  # noqa: T201 - as above
    assert found.run_count == 2
    assert workshop.value("SELECT count(*) FROM current_content") == 200
    assert workshop.requests <= 200 + 4 + 4, f"{asked} were asked before"
