"""The deployments of prefect.yaml, made by Prefect's own command, run on a process worker by their schedule."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import IntervalSchedule

from flows.control.deployment_specs import PULL_STEPS
from flows.settings import ROOT
from tests.engine.workshop import Workshop, eventually
from tests.flows.workers import PREFECT, shipped_pool

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


async def prefect(*arguments: str) -> None:
    """Run Prefect's command from the project's root."""
    process = await asyncio.create_subprocess_exec(
        *(PREFECT, "--no-prompt", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, output.decode()


@pytest.mark.timeout(300)
@pytest.mark.soak
async def test_schedule_fires_by_itself_and_the_second_time_asks_for_nothing(shop: Workshop, tmp_path: Path) -> None:
    async with shipped_pool(tmp_path) as pool, get_client() as client:
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
