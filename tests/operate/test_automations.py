"""What goes on by itself: runs of dead workers, cancelled runs that nobody ends, retries, and schedules."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.events import emit_event
from prefect.states import AwaitingRetry, Cancelling, Pending, Running, Scheduled, Suspended

from db.words import POOL
from presswork.errors import ConfigurationError
from presswork.operate.automations import HEARTBEAT, OURS, install_automations, install_notification
from presswork.operate.deployment_specs import PULL_STEPS
from presswork.operate.deployments import deploy
from tests.engine.workshop import Workshop, eventually
from tests.workers import Pool, prefect, start, work_pool

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


@pytest.fixture
async def pool(workshop: Workshop, tmp_path: Path) -> AsyncIterator[Pool]:
    """A work pool of the test's own, with all deployments."""
    async with work_pool(tmp_path) as made:
        await deploy(work_pool=made.name, say=lambda _line: None)
        yield made


@asynccontextmanager
async def waiting(name: str, seconds: float) -> AsyncIterator[None]:
    """Let the automations wait as long, while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"presswork.operate.automations.{name}", seconds)
        await install_automations()
        yield
    await install_automations()


async def put(flow_run: FlowRun, *states: object) -> None:
    async with get_client() as client:
        for state in states:
            await client.set_flow_run_state(flow_run.id, state, force=True)  # type: ignore[arg-type]


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


async def test_cancel_ends_a_run_though_no_worker_is_there(workshop: Workshop, pool: Pool) -> None:
    waits, died = await start("content/note"), await start("content/note")
    await put(died, Pending(), Running(), Cancelling())
    async with get_client() as client:
        await client.set_flow_run_state(waits.id, Cancelling())
    await pool.reached(waits, "Cancelled", within_s=5)
    await pool.reached(died, "Cancelled", within_s=40)


@pytest.fixture
async def patient(pool: Pool) -> AsyncIterator[Pool]:
    """The pool, where no automation ends a run within the test: only its worker does."""
    async with waiting("CANCEL_S", 3600):
        yield pool


@pytest.mark.timeout(600)
async def test_cancel_and_retry_of_a_run_on_a_worker(workshop: Workshop, patient: Pool) -> None:
    pool = patient
    workshop.numbered(60)
    workshop.sandbox.configure(latency_ms=1500)
    await pool.worker()
    run = await start("content/note", options={"concurrency": 4})
    await workshop.answered(4)
    await put(run, Cancelling())
    await pool.reached(run, "Cancelled", within_s=20)
    recorded = workshop.value("SELECT count(*) FROM generations WHERE status = 'succeeded'")
    assert 4 <= recorded < 60
    (cancelled,) = workshop.rows("SELECT id, status FROM runs")
    assert cancelled["status"] == "cancelled"

    workshop.sandbox.configure(latency_ms=0)
    await put(run, AwaitingRetry())
    await pool.reached(run, "Completed", within_s=60)
    # One flow run is one run.
    (retried,) = workshop.rows("SELECT id, status FROM runs")
    assert (retried["id"], retried["status"]) == (cancelled["id"], "completed")
    asked = workshop.counts("SELECT prompt_hash, count(*) FROM attempts WHERE output_text IS NOT NULL GROUP BY 1")
    assert len(asked) == 60
    assert set(asked.values()) == {1}


@pytest.mark.soak
async def test_run_of_a_worker_that_is_killed_goes_on_with_another(workshop: Workshop, pool: Pool) -> None:
    workshop.numbered(200)
    workshop.sandbox.configure(latency_ms=1000)
    first = await pool.worker()
    run = await start("content/note", options={"concurrency": 4})
    await workshop.answered(20)
    await pool.kill(first)
    asked, killed_at = workshop.requests, time.monotonic()
    workshop.sandbox.configure(latency_ms=0)
    await pool.reached(run, "Crashed", "AwaitingRetry", within_s=200)
    sys.stdout.write(f"crashed after {time.monotonic() - killed_at:.0f} s\n")
    await pool.worker()
    found = await pool.reached(run, "Completed", within_s=120)
    sys.stdout.write(f"completed after {time.monotonic() - killed_at:.0f} s\n")
    assert found.run_count == 2
    assert workshop.value("SELECT count(*) FROM current_content") == 200
    assert workshop.requests <= 200 + 4 + 4, f"{asked} were asked before"


@pytest.fixture
async def impatient(pool: Pool) -> AsyncIterator[Pool]:
    """The pool, where a run counts as crashed once it was not heard of for ten seconds."""
    async with waiting("CRASHED_AFTER_S", 10):
        yield pool


@pytest.mark.soak
async def test_run_that_is_left_is_not_taken_for_one_that_crashed(prefect_api: str, impatient: Pool) -> None:
    left, crashed = await start("content/note"), await start("content/note")
    for flow_run in (left, crashed):
        await put(flow_run, Pending(), Running())
        emit_event(HEARTBEAT, {"prefect.resource.id": f"prefect.flow-run.{flow_run.id}"}, related=[OURS])

    async def heard() -> Any:
        of_both = {"id": [f"prefect.flow-run.{flow_run.id}" for flow_run in (left, crashed)]}
        wanted = {"filter": {"event": {"name": [HEARTBEAT]}, "resource": of_both}}
        async with httpx.AsyncClient() as client:
            return (await client.post(f"{prefect_api}/events/filter", json=wanted)).json()["total"]

    assert await eventually(heard, lambda found: found == 2) == 2
    await put(left, Suspended(), Scheduled(name="Resuming", scheduled_time=datetime.now(UTC) + timedelta(days=1)))
    await impatient.reached(crashed, "Crashed", "AwaitingRetry")
    await impatient.reached(left, "Resuming", within_s=0)


@pytest.mark.timeout(300)
@pytest.mark.soak
async def test_schedule_fires_by_itself_and_the_second_time_asks_for_nothing(shop: Workshop, tmp_path: Path) -> None:
    async with work_pool(tmp_path, POOL) as pool, get_client() as client:
        await prefect("deploy", "--all")
        deployment = await client.read_deployment_by_name("product-copy/nightly")
        # Parameters become a form, and no schedule spends money unasked.
        form: Any = deployment.parameter_openapi_schema
        assert form["definitions"]["Products"]["properties"]["category"]["type"] == "string"
        assert [schedule.active for schedule in deployment.schedules] == [False]
        assert deployment.pull_steps == PULL_STEPS

        often = DeploymentScheduleCreate(
            schedule=IntervalSchedule(interval=timedelta(seconds=8)),
            active=True,
            parameters={"selection": {"category": "tea"}, "options": {"limit": 3}},
        )
        await client.create_deployment_schedules(deployment.id, [often])
        try:
            await pool.worker()
            done = await eventually(lambda: completed(shop), lambda rows: len(rows) >= 2, within_s=240)
        finally:
            await client.delete_deployment(deployment.id)

    assert len(done) >= 2, pool.said()
    for run in done:
        assert (run["flow"], run["trigger"], run["deployment"]) == ("product_copy", "schedule", "product-copy/nightly")
    assert shop.value("SELECT count(*) FROM current_content WHERE step = 'product_copy'") == 3
    assert shop.requests == 3
    assert shop.counts("SELECT run_id, count(*) FROM attempts GROUP BY 1") == {done[0]["id"]: 3}


async def completed(shop: Workshop) -> list[dict[str, Any]]:
    return shop.rows("SELECT * FROM runs WHERE status = 'completed' ORDER BY id")
