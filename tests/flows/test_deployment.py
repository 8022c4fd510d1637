"""A deployment of a content flow runs on a process worker, as a person would set it up."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.workers.process import ProcessWorker

from flows.settings import ROOT
from tests.engine.workshop import Workshop, eventually

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


async def prefect(*arguments: str) -> str:
    """Run Prefect's command from the project's root."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("prefect")),
        "--no-prompt",
        *arguments,
        cwd=ROOT,
        env=os.environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_deployment_runs_on_a_process_worker(shop: Workshop) -> None:
    pool = f"tests-{uuid.uuid4().hex[:8]}"
    async with get_client() as client:
        template = ProcessWorker.get_default_base_job_template()
        await client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template))
        await prefect("deploy", "flows.product_copy:product_copy", "--name", "nightly", "--pool", pool)
        deployment = await client.read_deployment_by_name("product-copy/nightly")
        # Parameters become a form.
        form: Any = deployment.parameter_openapi_schema
        assert form["properties"]["selection"]["allOf" if "allOf" in form["properties"]["selection"] else "$ref"]
        assert form["definitions"]["Products"]["properties"]["category"]["title"] == "Category"
        flow_run = await client.create_flow_run_from_deployment(
            deployment.id, parameters={"selection": {"category": "tea"}, "options": {"limit": 3}}
        )

        async def look() -> FlowRun:
            return await client.read_flow_run(flow_run.id)

        worker = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("prefect")),
            *("worker", "start", "--pool", pool, "--run-once"),
            cwd=ROOT,
            env=os.environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            done = await eventually(look, lambda found: bool(found.state and found.state.is_final()), within_s=90)
            output, _ = await asyncio.wait_for(worker.communicate(), 30)
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()
        assert done.state_name == "Completed", output.decode()
        assert done.name == "product-copy category=tea"

    (run,) = shop.rows("SELECT * FROM runs")
    assert (run["flow"], run["status"], run["trigger"]) == ("product_copy", "completed", "deployment")
    assert (run["prefect_flow_run_id"], run["deployment"]) == (str(flow_run.id), "product-copy/nightly")
    assert shop.value("SELECT count(*) FROM current_content WHERE step = 'product_copy'") == 3
    assert shop.requests == 3
